"""Look-ups of entries by the id that their sender gave them, in memory and as far back as such an
id can be.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from ..codec.entries import decode_entries
from ..core.commands import ChangeId
from ..core.entries import Entry, MessagePosted
from ..core.pages import ID_BYTES
from ..errors import DomainError, Reason, outcome_unknown
from ..storage.base import PageIds, Store
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
    waiting: Iterable[Proposal] = (),
) -> Found:
    """The entry with an id from a sender.

    The store is read back to the earliest page that can hold it, and not beyond position `joined`.
    Raises DomainError (OUTCOME_UNKNOWN) when that is further than the budget allows, unless it is
    `unbounded`; who asks again gets further. Raises StoreUnavailable. The ids of those `waiting`
    are looked for along with it.
    """
    others: set[int] = set()
    search = _search(store, state, change_id, joined, waiting, unbounded=unbounded)
    async for positions in search:
        found = await _check(store, state.log, positions, user_id, change_id, others)
        if found is not None:
            return Found(found, frozenset(others))
    return Found(None, frozenset(others))


async def find_positions(
    store: Store, state: LogState, change_id: ChangeId, *, joined: int
) -> set[int]:
    """The positions whose entries have an id, from whichever sender. Otherwise as `find_entry`."""
    found: set[int] = set()
    async for positions in _search(store, state, change_id, joined, (), unbounded=False):
        found.update(positions)
    return found


async def _search(
    store: Store,
    state: LogState,
    change_id: ChangeId,
    joined: int,
    waiting: Iterable[Proposal],
    *,
    unbounded: bool,
) -> AsyncIterator[list[int]]:
    known = state.recent.find(change_id.raw)
    yield [known] if isinstance(known, int) else list(known or ())
    if change_id.time_ms > state.recent.unseen_time:
        return
    search = state.search(change_id.raw)
    yield list(search.positions)
    if search.given_up and not unbounded:
        state.keep(change_id.raw, Search(search.high, search.low, search.positions))
        raise outcome_unknown()
    along = _along(state, change_id, waiting)
    high, read = state.head, 0
    before = _past(state, search, high + 1, along)
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
            _note(along, page)
            yield positions
        read += len(pages)
        if len(pages) < _PAGES_AT_ONCE:
            before = pages[-1].first_seq if pages else before
            break
        before = _past(state, search, pages[-1].first_seq, along)
        if read >= _MOST_PAGES and not unbounded:
            # Whoever asks again goes on from here.
            state.keep(change_id.raw, Search(high, before, search.positions))
            _keep_along(state, along, high, before, given_up=True)
            raise outcome_unknown()
    _keep_along(state, along, high, before, given_up=False)


def _along(
    state: LogState, change_id: ChangeId, waiting: Iterable[Proposal]
) -> dict[bytes, set[int]]:
    """The ids that will be looked for next. A device that comes back asks for hundreds: one reading serves them all."""
    unseen = state.recent.unseen_time
    along: dict[bytes, set[int]] = {
        proposal.id.raw: set()
        for proposal in waiting
        if proposal.id.time_ms <= unseen and state.memberships.get(proposal.user_id) is not None
    }
    along.pop(change_id.raw, None)
    return along


def _past(state: LogState, search: Search, before: int, along: dict[bytes, set[int]]) -> int:
    """Where a search goes on below `before`. What it passes over must have been searched for the others too."""
    past = search.past(before)
    if past != before:
        for raw in list(along):
            other = state.searches.get(raw)
            if other is not None and (other.high, other.low) == (search.high, search.low):
                along[raw] |= other.positions
            else:
                del along[raw]
    return past


def _note(along: dict[bytes, set[int]], page: PageIds) -> None:
    if along:
        for at in range(0, len(page.ids), ID_BYTES):
            positions = along.get(page.ids[at : at + ID_BYTES])
            if positions is not None:
                positions.add(page.first_seq + at // ID_BYTES)


def _keep_along(
    state: LogState, along: dict[bytes, set[int]], high: int, low: int, *, given_up: bool
) -> None:
    for raw, positions in along.items():
        other = state.searches.get(raw)
        if other is None or other.low >= low:
            state.keep(raw, Search(high, low, positions, given_up))


async def look_up(
    store: Store, state: LogState, proposal: Proposal, waiting: Iterable[Proposal] = ()
) -> Committed | DomainError | None:
    """Looks for an earlier entry with a proposal's id, and for its predecessor, and notes in the
    proposal what it finds. Gives the outcome if that is known by now, or None. Those `waiting` come
    next.

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
            waiting=waiting,
        )
        if found.entry is not None:
            return _repeated(proposal, found.entry)
        proposal.cleared = found.others
        proposal.absent_upto = state.recent.unseen_time
        if proposal.after is not None and state.recent.find(proposal.after.raw) is None:
            after = await find_entry(store, state, proposal.after, proposal.user_id, joined=joined)
            proposal.after_found = after.entry is not None
        if proposal.says.reply_to is not None:
            proposal.replied = await _find_messages(store, state, proposal.says.reply_to, joined)
    except DomainError as problem:
        return problem
    return None


async def look_up_replies(store: Store, state: LogState, waiting: Iterable[Proposal]) -> None:
    """Looks for the messages that the proposals `waiting` in a queue reply to, as far as they are known in memory; they
    then go together into one commit. What is not found may stand before them in the queue.

    Raises StoreUnavailable.
    """
    for proposal in list(waiting):
        asked, membership = proposal.says.reply_to, state.memberships.get(proposal.user_id)
        if asked is None or proposal.replied is not None or membership is None:
            continue
        known = state.recent.find(asked.raw)
        positions = (known,) if isinstance(known, int) else known or ()
        there = await _messages(store, state.log, [s for s in positions if membership.visible(s)])
        proposal.replied = there or None


async def _find_messages(
    store: Store, state: LogState, message_id: ChangeId, joined: int
) -> frozenset[int]:
    """The positions of the messages with an id, from whichever sender. Otherwise as `find_entry`."""
    positions = await find_positions(store, state, message_id, joined=joined)
    return await _messages(store, state.log, positions)


async def _messages(store: Store, log: str, positions: Iterable[int]) -> frozenset[int]:
    """Which of these positions hold messages."""
    entries = [await read_entry(store, log, seq) for seq in sorted(positions)]
    return frozenset(e.seq for e in entries if e is not None and isinstance(e.body, MessagePosted))


def _repeated(proposal: Proposal, entry: Entry) -> Committed | DomainError:
    # Of what was erased nobody can tell any more what it said.
    if proposal.same_as(entry.body) or (
        entry.erased and type(entry.body) is type(proposal.asked())
    ):
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
