"""Keys that Textual doesn't know by itself."""

from __future__ import annotations

from typing import Any, Final, cast

from textual import _ansi_sequences
from textual.keys import Keys

_ALT_ENTER: Final = "\x1b\r"


def teach_alt_enter() -> None:
    """Let Alt+Enter be Ctrl+J in terminals without the newer keyboard protocol.

    Textual takes it for two keys, a circumflex and Enter: half a message would be sent.
    """
    table = cast("dict[str, Any]", _ansi_sequences.ANSI_SEQUENCES_KEYS)
    table[_ALT_ENTER] = (Keys.ControlJ,)
