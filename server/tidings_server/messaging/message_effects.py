"""Effects of messages and their changes: mentions, overlays, which readers are given with them, and erasure."""

from __future__ import annotations

from ..codec.contents import read_content
from ..codec.erasing import erased
from ..codec.overlays import dump_overlay, load_overlay
from ..core.contents import PLAIN
from ..core.entries import (
    MESSAGE_CHANGES,
    Entry,
    MessageDeleted,
    MessageEdited,
    MessagePosted,
    ReactionSet,
)
from ..core.overlays import Overlay, fold_overlay
from ..core.pages import rewritten
from ..core.state import ConversationState
from ..storage.base import OverlayRow, ReactionRow, Store, StoreUnavailable
from ..storage.tail_cache import TailCache
from .lookup import read_entry
from .mentions import mention_rows

_TRIES = 100
_REACTIONS_AT_ONCE = 500


class MessageEffects:
    """Notes mentions, folds changes into overlays, and erases."""

    def __init__(self, store: Store, pages: TailCache) -> None:
        self._store = store
        self._pages = pages

    async def __call__(self, log: str, change: Entry, conversation: ConversationState) -> None:  # noqa: ARG002
        """Writes the effects of one change; those of earlier changes of the log are written before. Raises
        StoreUnavailable.
        """
        if isinstance(change.body, MessagePosted):
            says = read_content(change.body.content)
            await self._store.put_mentions(log, mention_rows(change.seq, change, PLAIN, says))
            return
        assert isinstance(change.body, MESSAGE_CHANGES)
        seq = change.body.seq
        rows = await self._store.overlays(log, seq, seq)
        before = load_overlay(rows[0].body) if rows else None
        if isinstance(change.body, ReactionSet):
            # Before the overlay: a reader who has that finds a row that is no older.
            row = ReactionRow(seq, change.user_id, change.seq, change.body.reaction)
            await self._store.put_reactions(log, [row])
        if before is None or before.as_of < change.seq:
            await self._follow_mentions(log, before, seq, change)
        overlay = fold_overlay(before, seq, change)
        if overlay != before:
            now = OverlayRow(seq, overlay.as_of, dump_overlay(log, overlay))
            await self._store.put_overlays(log, [now])
        if isinstance(change.body, MessageDeleted):
            await self._take_back_reactions(log, seq, change.seq)
        if overlay.deleted:
            await self._erase(log, (seq, *overlay.edits))

    async def _follow_mentions(
        self, log: str, before: Overlay | None, seq: int, change: Entry
    ) -> None:
        """Before the overlay, which says what was mentioned until then."""
        match change.body:
            case MessageEdited(content=content):
                says = read_content(content)
            case MessageDeleted():
                says = PLAIN
            case _:
                return
        said = before.content if before is not None else b""
        if not said:
            message = await read_entry(self._store, log, seq)
            assert message is not None, "a change is about a message"
            assert isinstance(message.body, MessagePosted)
            said = message.body.content
        await self._store.put_mentions(log, mention_rows(seq, change, read_content(said), says))

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
