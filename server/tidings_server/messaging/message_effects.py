"""Effects of changes of messages: overlays, which readers are given with them, and the erasure of what was deleted."""

from __future__ import annotations

from ..codec.erasing import erased
from ..codec.overlays import dump_overlay, load_overlay
from ..core.entries import MESSAGE_CHANGES, Entry, MessageDeleted, ReactionSet
from ..core.overlays import fold_overlay
from ..core.pages import rewritten
from ..core.state import ConversationState
from ..storage.base import OverlayRow, ReactionRow, Store, StoreUnavailable
from ..storage.tail_cache import TailCache

_TRIES = 100
_REACTIONS_AT_ONCE = 500


class MessageEffects:
    """Folds changes into overlays, and erases."""

    def __init__(self, store: Store, pages: TailCache) -> None:
        self._store = store
        self._pages = pages

    async def __call__(self, log: str, change: Entry, conversation: ConversationState) -> None:  # noqa: ARG002
        """Writes the effects of one change; those of earlier changes of the log are written before. Raises
        StoreUnavailable.
        """
        assert isinstance(change.body, MESSAGE_CHANGES)
        seq = change.body.seq
        rows = await self._store.overlays(log, seq, seq)
        before = load_overlay(rows[0].body) if rows else None
        if isinstance(change.body, ReactionSet):
            # Before the overlay: a reader who has that finds a row that is no older.
            row = ReactionRow(seq, change.user_id, change.seq, change.body.reaction)
            await self._store.put_reactions(log, [row])
        overlay = fold_overlay(before, seq, change)
        if overlay != before:
            now = OverlayRow(seq, overlay.as_of, dump_overlay(log, overlay))
            await self._store.put_overlays(log, [now])
        if isinstance(change.body, MessageDeleted):
            await self._take_back_reactions(log, seq, change.seq)
        if overlay.deleted:
            await self._erase(log, (seq, *overlay.edits))

    async def _take_back_reactions(self, log: str, seq: int, as_of: int) -> None:
        """Nobody has reacted to a message that is deleted."""
        after = ""
        while rows := await self._store.list_reactions(
            log, seq, after_user=after, limit=_REACTIONS_AT_ONCE
        ):
            after = rows[-1].user_id
            await self._store.put_reactions(
                log, [ReactionRow(seq, row.user_id, as_of, "") for row in rows]
            )

    async def _erase(self, log: str, seqs: tuple[int, ...]) -> None:
        """Erases the content of entries from their pages."""
        wanted = frozenset(seqs)
        for seq in seqs:
            for _ in range(_TRIES):
                (page,) = await self._store.read(log, seq - 1, max_bytes=1, upto=seq)
                body = erased(page.body, wanted)
                if body == page.body or await self._store.rewrite(
                    log, rewritten(page, body, page.flags)
                ):
                    break
            else:
                raise StoreUnavailable("others rewrite a page all the time")
        self._pages.forget(log)
