"""Contents: what the server looks at in what a message says."""

from __future__ import annotations

from .commands import ChangeId
from .records import record


@record(frozen=True, slots=True)
class Content:
    """What a serialised `tidings.v1.MessageContent` refers to.

    `reply_to` is the id of the message that it replies to, or None.
    """

    reply_to: ChangeId | None = None


PLAIN = Content()
"""That of a message which refers to nothing."""
