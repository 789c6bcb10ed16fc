"""The ids of a log's newest entries, and what their absence proves: the memory half of "idempotent
for ever".
"""

from __future__ import annotations

import heapq
from array import array
from collections import deque

from ..core.ids import SKEW_MS
from ..core.pages import ID_BYTES

Positions = int | tuple[int, ...]

FAR_AHEAD_MS = 10_000
"""Ids that lie this far ahead of the stamp come from a wrong clock, not from the unsteadiness of a right one."""
_BLOCK_IDS = 1024


class _Block:
    """Ids that are seldom asked for: joined, 16 bytes each, with their positions and the range of their times."""

    __slots__ = ("high", "ids", "low", "seqs")

    def __init__(self) -> None:
        self.ids = bytearray()
        self.seqs = array("q")
        self.low = 1 << 62
        self.high = -1

    def add(self, raw: bytes, time_ms: int, seq: int) -> None:
        self.ids += raw
        self.seqs.append(seq)
        self.low = min(self.low, time_ms)
        self.high = max(self.high, time_ms)


class RecentIds:
    """Which positions hold an id, for the newest entries of a log.

    An entry whose id has the time t was committed with a stamp of at least t - 5 min, since nothing
    further ahead is accepted. So everything not held here, committed up to stamp s, has ids of
    times up to s + 5 min: `unseen_time` is the largest time that an id not held may have. Ids
    beyond it that aren't held are new for certain; others must be looked up in the store, in every
    page with a stamp of at least t - 5 min.

    The newest `capacity` ids are held in a dict, about `older` before them in blocks, at 24 bytes each. Those that lie
    far ahead stay out of the blocks, in which every newer id would have to be searched for then.
    """

    __slots__ = (
        "_ahead",
        "_ahead_times",
        "_blocks",
        "_capacity",
        "_far",
        "_filling",
        "_older",
        "_older_high",
        "_order",
        "_positions",
        "unseen_time",
    )

    def __init__(self, unseen_time: int, capacity: int = 8192, older: int = 32 * 8192) -> None:
        self.unseen_time = unseen_time
        self._capacity = capacity
        self._older = older
        self._positions: dict[bytes, Positions] = {}
        self._order: deque[bytes] = deque()
        self._blocks: deque[_Block] = deque()
        self._filling = _Block()
        # The largest time of an id in a block: what is newer is in none.
        self._older_high = -1
        # The times of the ids that lay far ahead when they were added, the earliest first.
        self._far: list[int] = []
        # Ids that had to leave the dict while they lay far ahead, and their times, the earliest first.
        self._ahead: dict[bytes, tuple[int, ...]] = {}
        self._ahead_times: list[tuple[int, bytes]] = []

    @property
    def capacity(self) -> int:
        """How many ids are held, about."""
        return self._capacity + self._older

    def crowded(self, now_ms: int) -> bool:
        """Whether so many ids lie far ahead of a stamp that more of them would push out each other."""
        self._near(now_ms)
        return len(self._far) >= self._most_ahead

    @property
    def _most_ahead(self) -> int:
        return self._capacity // 4

    def _near(self, now_ms: int) -> None:
        while self._far and self._far[0] <= now_ms + FAR_AHEAD_MS:
            heapq.heappop(self._far)

    def find(self, raw: bytes) -> Positions | None:
        """The position, or positions, that are known to hold an id."""
        known = self._positions.get(raw)
        time_ms = _time(raw)
        ahead = self._ahead.get(raw, ())
        if time_ms > self._older_high and not ahead:
            return known
        found = [*_each(known), *ahead]
        for block in (*self._blocks, self._filling):
            if block.low <= time_ms <= block.high:
                found += [block.seqs[at] for at in offsets(block.ids, raw)]
        if len(found) < 2:
            return found[0] if found else None
        return tuple(sorted(set(found)))

    def add(self, raw: bytes, seq: int, now_ms: int) -> None:
        """Notes a committed id. `now_ms` is the stamp of its page."""
        known = self._positions.get(raw)
        if known is None:
            self._positions[raw] = seq
            self._order.append(raw)
            time_ms = _time(raw)
            if time_ms > now_ms + FAR_AHEAD_MS:
                self._near(now_ms)
                heapq.heappush(self._far, time_ms)
            if len(self._order) > self._capacity:
                self._evict(now_ms)
        elif isinstance(known, int):
            if known != seq:
                self._positions[raw] = (known, seq)
        elif seq not in known:
            self._positions[raw] = (*known, seq)

    def _evict(self, now_ms: int) -> None:
        """The oldest id of the dict goes into a block, with those that lie ahead no more."""
        while self._ahead_times and self._ahead_times[0][0] <= now_ms:
            time_ms, raw = heapq.heappop(self._ahead_times)
            self._into_block(raw, time_ms, self._ahead.pop(raw), now_ms)
        raw = self._order.popleft()
        positions, time_ms = _each(self._positions.pop(raw)), _time(raw)
        if raw in self._ahead:
            self._ahead[raw] += positions
        elif time_ms > now_ms + FAR_AHEAD_MS and len(self._ahead) < self._most_ahead:
            self._ahead[raw] = positions
            heapq.heappush(self._ahead_times, (time_ms, raw))
        else:
            self._into_block(raw, time_ms, positions, now_ms)

    def _into_block(
        self, raw: bytes, time_ms: int, positions: tuple[int, ...], now_ms: int
    ) -> None:
        """When there are too many blocks, the oldest is let go of."""
        for seq in positions:
            self._filling.add(raw, time_ms, seq)
        self._older_high = max(self._older_high, time_ms)
        if len(self._filling.seqs) < min(_BLOCK_IDS, max(self._older // 8, 1)):
            return
        self._blocks.append(self._filling)
        self._filling = _Block()
        while sum(len(block.seqs) for block in self._blocks) > self._older:
            self._let_go(self._blocks.popleft(), now_ms)

    def _let_go(self, block: _Block, now_ms: int) -> None:
        times = [_time(block.ids[at : at + 6]) for at in range(0, len(block.ids), ID_BYTES)]
        ahead = [at for at, time_ms in enumerate(times) if time_ms > now_ms]
        if 2 * len(ahead) > len(times):
            # `crowded` keeps them few; notes, which are never refused, may be many.
            ahead = []
        # An id that lies ahead stays: without it every newer one would have to be looked up.
        for at in ahead:
            raw = bytes(block.ids[at * ID_BYTES : (at + 1) * ID_BYTES])
            self._filling.add(raw, times[at], block.seqs[at])
        gone = set(range(len(times))).difference(ahead)
        self.unseen_time = max(self.unseen_time, *(times[at] for at in gone))
        self._older_high = max((b.high for b in (*self._blocks, self._filling)), default=-1)


def _each(positions: Positions | None) -> tuple[int, ...]:
    if positions is None:
        return ()
    return (positions,) if isinstance(positions, int) else positions


def _time(raw: bytes | bytearray) -> int:
    return int.from_bytes(raw[:6], "big")


def latest_unseen(stamp: int) -> int:
    """The largest time that an id committed up to a stamp may have."""
    return stamp + SKEW_MS


def earliest_stamp(id_time_ms: int) -> int:
    """The smallest stamp that a page holding an id of this time may have."""
    return id_time_ms - SKEW_MS


def offsets(ids: bytes | bytearray, raw: bytes) -> list[int]:
    """Which of the 16-byte ids joined in `ids` are `raw`."""
    found = []
    at = ids.find(raw)
    while at >= 0:
        if at % ID_BYTES == 0:
            found.append(at // ID_BYTES)
        at = ids.find(raw, at + 1)
    return found
