"""Effects of changes of messages: the overlays that readers are given with them."""

from __future__ import annotations

from ..codec.overlays import dump_overlay, load_overlay
from ..core.entries import MESSAGE_CHANGES, Entry
from ..core.overlays import fold_overlay
from ..core.state import ConversationState
from ..storage.base import OverlayRow, Store


class MessageEffects:
    """Folds changes into overlays."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def __call__(self, log: str, change: Entry, conversation: ConversationState) -> None:  # noqa: ARG002
        """Writes the effects of one change; those of earlier changes of the log are written before. Raises
        StoreUnavailable.
        """
        assert isinstance(change.body, MESSAGE_CHANGES)
        seq = change.body.seq
        rows = await self._store.overlays(log, seq, seq)
        before = load_overlay(rows[0].body) if rows else None
        overlay = fold_overlay(before, seq, change)
        if overlay != before:
            row = OverlayRow(seq, overlay.as_of, dump_overlay(log, overlay))
            await self._store.put_overlays(log, [row])
