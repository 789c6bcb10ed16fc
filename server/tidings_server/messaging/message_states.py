"""Message states: what became of messages, as those who may read them are told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..codec.entries import decode_entries
from ..codec.overlays import dump_overlay, load_overlay, state_event
from ..core.entries import MESSAGE_CHANGES, MessageEdited
from ..core.ids import is_inbox
from ..core.overlays import Overlay
from ..core.pages import PageFlag
from ..storage.base import OverlayRow, Store
from .lookup import read_entry
from .sequencer import Sequencer

_FLAGGED_AT_ONCE = 500
_NEAR = 200
"""Positions that lie so near to each other are asked for together."""


class MessageStates:
    """Reads overlays, for readers whose view of the log is no older than the positions that they ask for. Raises
    StoreUnavailable, and DomainError (STORE_UNAVAILABLE).

    `known` is the position up to which a reader's membership is known to be as they say.
    """

    def __init__(self, store: Store, sequencer: Sequencer) -> None:
        self._store = store
        self._sequencer = sequencer

    async def between(
        self, log: str, user_id: str, first: int, last: int, upto: int | None, known: int
    ) -> dict[int, bytes]:
        """The states of the messages at the positions `first .. last` for a user, each as one `events` element.

        `upto` is the last position that the reader may see, or None for a member: nothing later is told.
        """
        rows = await self._store.overlays(log, first, last)
        return await self._events(log, user_id, rows, upto, known)

    async def passed_over(
        self,
        user_id: str,
        log: str,
        ranges: Sequence[tuple[int, int]],
        first: int,
        last: int,
        known: int,
    ) -> list[bytes]:
        """What a device that is not sent the entries `first .. last` of a log is told instead: the states of the
        messages that were changed by them and lie before them, within the `ranges` that the user may see.
        """
        if is_inbox(log) or ranges[0][0] >= first:
            return []
        await self._sequencer.folded(log)
        about: set[int] = set()
        after = first - 1
        while True:
            pages = await self._store.read_flagged(
                log, after, PageFlag.CHANGE, limit=_FLAGGED_AT_ONCE
            )
            for page in pages:
                if page.first_seq > last:
                    break
                for entry in decode_entries(page.body):
                    if isinstance(entry.body, MESSAGE_CHANGES) and entry.seq <= last:
                        about.add(entry.body.seq)
                after = page.last_seq
            if len(pages) < _FLAGGED_AT_ONCE or after >= last or pages[-1].first_seq > last:
                break
        seen = [
            seq
            for seq in sorted(about)
            if seq < first and any(low <= seq <= high for low, high in ranges)
        ]
        found: list[bytes] = []
        for low, high in _near(seen):
            rows = [row for row in await self._store.overlays(log, low, high) if row.seq in about]
            found += (await self._events(log, user_id, rows, ranges[-1][1], known)).values()
        return found

    async def _events(
        self, log: str, user_id: str, rows: Sequence[OverlayRow], upto: int | None, known: int
    ) -> dict[int, bytes]:
        if any(row.as_of > known for row in rows):
            # Messages were changed since the membership was read, perhaps when it had ended.
            view = await self._sequencer.view(log, user_id)
            assert view.membership is not None, "memberships are never taken back"
            upto = view.membership.last_visible
        found: dict[int, bytes] = {}
        reacted: list[int] = []
        for row in rows:
            overlay = load_overlay(row.body)
            if upto is not None and row.as_of > upto:
                overlay = await self._as_of(log, overlay, upto)
                found[row.seq] = state_event(dump_overlay(log, overlay))
            else:
                found[row.seq] = state_event(row.body)
                reacted += [row.seq] if overlay.reactions else []
        if reacted:
            own = await self._store.reactions_of(log, user_id, reacted)
            bodies = {row.seq: row.body for row in rows}
            for seq, reaction in own.items():
                found[seq] = state_event(bodies[seq], reaction.reaction)
        return found

    async def _as_of(self, log: str, overlay: Overlay, upto: int) -> Overlay:
        """What the message was at a position, for somebody who has seen the log no further."""
        edits = tuple(seq for seq in overlay.edits if seq <= upto)
        content, edit_ms = b"", 0
        if edits:
            edit = await read_entry(self._store, log, edits[-1])
            assert edit is not None, "an edit is in the log"
            assert isinstance(edit.body, MessageEdited)
            content, edit_ms = edit.body.content, edit.time_ms
        # How many had reacted by then, and whether it was pinned, is not known any more.
        return replace(
            overlay,
            as_of=upto,
            content=content,
            edits=edits,
            edit_ms=edit_ms,
            reactions=(),
            pin_seq=0,
        )


def _near(seqs: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending positions as ranges, in which those that lie near to each other are together."""
    ranges: list[tuple[int, int]] = []
    for seq in seqs:
        if ranges and seq - ranges[-1][1] <= _NEAR:
            ranges[-1] = (ranges[-1][0], seq)
        else:
            ranges.append((seq, seq))
    return ranges
