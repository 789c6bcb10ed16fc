"""What a sequencer knows of one log: its head, the fold of its entries, memberships met so far and
the newest ids.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..codec.entries import decode_entries
from ..core import state as folding
from ..core.entries import ConversationCreated, Entry
from ..core.ids import is_inbox
from ..core.memberships import Membership, affected_users, fold_membership
from ..core.pages import ID_BYTES, Page, PageFlag, page_ids
from ..core.state import ConversationState
from ..storage.base import Head, PageIds, Store
from .recent_ids import RecentIds, latest_unseen

_RECENT_MS = 7 * 60 * 1000
_RECENT_PAGES = 500
_FLAGGED_AT_ONCE = 500
MAX_MEMBERSHIPS = 20_000
_MAX_SEARCHES = 8192
"""Several devices that come back have so many old messages in flight at once. With room for fewer, each look-up would
push out another before that one is asked for again, and none would come to its end."""


@dataclass(slots=True)
class Search:
    """How far an id was looked for: `positions` are all those that hold it from `low` to `high`.

    `given_up` tells that it was looked for along with another, at which the budget ended: who asks
    is told so, too, and then asks again.
    """

    high: int
    low: int
    positions: set[int]
    given_up: bool = False

    def past(self, before: int) -> int:
        """Where to go on reading backwards from `before`."""
        return self.low if self.low <= before <= self.high + 1 else before


class LogState:
    """The state of a log at `head`. It moves only by `apply`, with pages that are known to be
    committed.

    `memberships` maps users to their row, or to None when they have none; users not in it are
    unknown. `pending` are the positions of changes whose effects outside the log are not known to
    be written. `shared` tells that others append to the log as well.
    """

    __slots__ = (
        "conversation",
        "head",
        "log",
        "memberships",
        "ordinal",
        "pending",
        "recent",
        "searches",
        "shared",
        "stamp",
    )

    def __init__(self, log: str, head: Head | None, *, shared: bool = False) -> None:
        self.log = log
        self.shared = shared
        self.head = head.last_seq if head else 0
        self.ordinal = head.ordinal if head else 0
        self.stamp = head.stamp if head else 0
        self.pending = head.pending if head else ()
        self.conversation = folding.EMPTY
        self.memberships: dict[str, Membership | None] = {}
        self.recent = RecentIds(latest_unseen(self.stamp) if head else -1)
        # Those that were given up or made along with others, for whoever asks again or next.
        self.searches: OrderedDict[bytes, Search] = OrderedDict()

    def apply(self, page: Page, entries: Sequence[Entry]) -> None:
        """Moves on by one page. `entries` are those of the page that change the state; messages may
        be left out.
        """
        assert page.first_seq == self.head + 1, "pages are applied in order"
        self.head = page.last_seq
        self.ordinal = page.ordinal
        self.stamp = page.stamp
        for entry in entries:
            self._fold(entry)
        for offset, raw in enumerate(page_ids(page)):
            self.recent.add(raw, page.first_seq + offset, page.stamp)

    def trim(self) -> None:
        """Forgets the memberships when there are too many. Not while a commit is under way, which
        was decided with some of them, nor while rows of the store are behind.
        """
        if len(self.memberships) > MAX_MEMBERSHIPS and not self.pending:
            self.memberships = {}

    def search(self, raw: bytes) -> Search:
        """How far an id was looked for before: nowhere, or as far as a search came that was kept."""
        return self.searches.pop(raw, None) or Search(0, 0, set())

    def keep(self, raw: bytes, search: Search) -> None:
        """Keeps how far an id was looked for."""
        self.searches[raw] = search
        self.searches.move_to_end(raw)
        if len(self.searches) > _MAX_SEARCHES:
            self.searches.popitem(last=False)

    def know(self, users: Iterable[str], rows: dict[str, Membership]) -> None:
        """Takes membership rows that were read. What is known already is newer and stays."""
        for user in users:
            if user not in self.memberships:
                self.memberships[user] = rows.get(user)

    def _fold(self, entry: Entry) -> None:
        self.conversation = folding.fold(self.conversation, entry)
        first = isinstance(entry.body, ConversationCreated)
        for user in affected_users(entry.body):
            # Nobody has a membership before the first entry. Other changes were decided with the memberships of
            # their users.
            if first or user in self.memberships:
                before = self.memberships.get(user)
                self.memberships[user] = fold_membership(before, entry, user)


@dataclass(frozen=True, slots=True)
class LogView:
    """A log at one position: `head`, with its ordinal and stamp, the folded state and one user's
    membership.
    """

    conversation: ConversationState
    membership: Membership | None
    head: int
    ordinal: int
    stamp: int


async def load(store: Store, log: str, now_ms: int) -> LogState:
    """The state of a log at its head. Raises StoreUnavailable."""
    head = (await store.heads([log])).get(log)
    state = LogState(log, head, shared=store.shared)
    if head is None:
        return state
    if not is_inbox(log):
        await _fold_stored(store, state)
    await _read_recent(store, state, now_ms)
    return state


async def _fold_stored(store: Store, state: LogState) -> None:
    snapshot = await store.snapshot(state.log)
    after = 0
    if snapshot is not None:
        state.conversation = folding.load(snapshot.state)
        after = snapshot.seq
    while True:
        pages = await store.read_flagged(state.log, after, PageFlag.STATE, limit=_FLAGGED_AT_ONCE)
        for page in pages:
            for entry in decode_entries(page.body):
                # Another node may have appended since the head was read: that is folded when its page is applied.
                if entry.seq <= state.head:
                    state.conversation = folding.fold(state.conversation, entry)
        if len(pages) < _FLAGGED_AT_ONCE:
            return
        after = pages[-1].last_seq


async def _read_recent(store: Store, state: LogState, now_ms: int) -> None:
    """Reads the ids of the last minutes, so that no fresh id has to be looked up."""
    horizon = max(now_ms, state.stamp) - _RECENT_MS
    if state.stamp < horizon:
        return
    newest_first: list[PageIds] = []
    before, count = state.head + 1, 0
    # What is not read has a stamp of at most the oldest one read (stamps may repeat), or lies before the horizon.
    unread = horizon - 1
    while True:
        pages = await store.read_ids(
            state.log, before=before, min_stamp=horizon, max_pages=_RECENT_PAGES
        )
        newest_first += pages
        count += sum(len(page.ids) for page in pages) // ID_BYTES
        if len(pages) < _RECENT_PAGES:
            break
        before = pages[-1].first_seq
        if count >= state.recent.capacity:
            unread = pages[-1].stamp
            break
    state.recent.unseen_time = latest_unseen(unread)
    for number, page in enumerate(reversed(newest_first), 1):
        for at in range(0, len(page.ids), ID_BYTES):
            state.recent.add(
                page.ids[at : at + ID_BYTES], page.first_seq + at // ID_BYTES, page.stamp
            )
        if not number % _RECENT_PAGES:
            # Others have their turn.
            await asyncio.sleep(0)
