"""Look-ups of entries by the id that their sender gave them, in memory and as far back as such an
id can be.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from ..codec.entries import decode_entries
from ..core.commands import ChangeId
from ..core.entries import Entry
from ..errors import DomainError, Reason, outcome_unknown
from ..storage.base import Store
from .batch import stranger
from .log_state import LogState, Search
from .proposals import Committed, NoteInInbox, Proposal
from .recent_ids import earliest_stamp, offsets

_PAGES_AT_ONCE = 500
_MOST_PAGES = 5_000


@dataclass(frozen=True, slots=True)
class Found:
    """The sender's entry, if there is one, and the positions whose entries have the id from other
    senders.
    """

    entry: Entry | None
    others: frozenset[int]


async def find_entry(
    store: Store,
    state: LogState,
    change_id: ChangeId,
    user_id: str,
    *,
    joined: int,
    unbounded: bool = False,
) -> Found:
    """The entry with an id from a sender.

    The store is read back to the earliest page that can hold it, and not beyond position `joined`.
    Raises DomainError (OUTCOME_UNKNOWN) when that is further than the budget allows, unless it is
    `unbounded`; who asks again gets further. Raises StoreUnavailable.
    """
    others: set[int] = set()
    async for positions in _search(store, state, change_id, joined, unbounded=unbounded):
        found = await _check(store, state.log, positions, user_id, change_id, others)
        if found is not None:
            return Found(found, frozenset(others))
    return Found(None, frozenset(others))


async def find_positions(
    store: Store, state: LogState, change_id: ChangeId, *, joined: int
) -> set[int]:
    """The positions whose entries have an id, from whichever sender. Otherwise as `find_entry`."""
    found: set[int] = set()
    async for positions in _search(store, state, change_id, joined, unbounded=False):
        found.update(positions)
    return found


async def _search(
    store: Store, state: LogState, change_id: ChangeId, joined: int, *, unbounded: bool
) -> AsyncIterator[list[int]]:
    known = state.recent.find(change_id.raw)
    yield [known] if isinstance(known, int) else list(known or ())
    if change_id.time_ms > state.recent.unseen_time:
        return
    search = state.search(change_id.raw)
    yield list(search.positions)
    high, before, read = state.head, search.past(state.head + 1), 0
    while before > joined:
        pages = await store.read_ids(
            state.log,
            before=before,
            min_stamp=earliest_stamp(change_id.time_ms),
            max_pages=_PAGES_AT_ONCE,
        )
        for page in pages:
            positions = [page.first_seq + offset for offset in offsets(page.ids, change_id.raw)]
            search.positions.update(positions)
            yield positions
        if len(pages) < _PAGES_AT_ONCE:
            return
        before, read = search.past(pages[-1].first_seq), read + len(pages)
        if read >= _MOST_PAGES and not unbounded:
            # Whoever asks again goes on from here.
            state.give_up(change_id.raw, Search(high, before, search.positions))
            raise outcome_unknown()


async def look_up(
    store: Store, state: LogState, proposal: Proposal
) -> Committed | DomainError | None:
    """Looks for an earlier entry with a proposal's id, and for its predecessor, and notes in the
    proposal what it finds. Gives the outcome if that is known by now, or None.

    Raises StoreUnavailable.
    """
    if stranger(state, proposal):
        return None
    membership = state.memberships.get(proposal.user_id)
    joined = membership.intervals[0].join_seq if membership else 1
    try:
        found = await find_entry(
            store,
            state,
            proposal.id,
            proposal.user_id,
            joined=joined,
            # The change that a note tells of is durable: the note can't be refused.
            unbounded=isinstance(proposal, NoteInInbox),
        )
        if found.entry is not None:
            return _repeated(proposal, found.entry)
        proposal.cleared = found.others
        proposal.absent_upto = state.recent.unseen_time
        if proposal.after is not None and state.recent.find(proposal.after.raw) is None:
            after = await find_entry(store, state, proposal.after, proposal.user_id, joined=joined)
            proposal.after_found = after.entry is not None
    except DomainError as problem:
        return problem
    return None


def _repeated(proposal: Proposal, entry: Entry) -> Committed | DomainError:
    if proposal.same_as(entry.body):
        return Committed(entry.seq, entry.time_ms)
    return DomainError(
        Reason.ID_REUSED,
        "The id was used before for other content.",
        field=proposal.id_field,
        metadata={"seq": str(entry.seq)},
    )


async def _check(
    store: Store,
    log: str,
    positions: list[int],
    user_id: str,
    change_id: ChangeId,
    others: set[int],
) -> Entry | None:
    for seq in positions:
        if seq in others:
            continue
        entry = await read_entry(store, log, seq)
        if entry is not None and entry.id == change_id.text and entry.user_id == user_id:
            return entry
        others.add(seq)
    return None


async def read_entry(store: Store, log: str, seq: int) -> Entry | None:
    """The entry at a position, or None when it is beyond the head."""
    pages = await store.read(log, seq - 1, max_bytes=1, upto=seq)
    for page in pages:
        for entry in decode_entries(page.body):
            if entry.seq == seq:
                return entry
    return None
