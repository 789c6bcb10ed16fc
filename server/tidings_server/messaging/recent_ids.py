"""The ids of a log's newest entries, and what their absence proves: the memory half of "idempotent
for ever".
"""

from __future__ import annotations

import heapq
from collections import deque

from ..core.ids import SKEW_MS
from ..core.pages import ID_BYTES

Positions = int | tuple[int, ...]

FAR_AHEAD_MS = 10_000
"""Ids that lie this far ahead of the stamp come from a wrong clock, not from the unsteadiness of a right one."""


class RecentIds:
    """Which positions hold an id, for the newest entries of a log.

    An entry whose id has the time t was committed with a stamp of at least t - 5 min, since nothing
    further ahead is accepted. So everything not held here, committed up to stamp s, has ids of
    times up to s + 5 min: `unseen_time` is the largest time that an id not held may have. Ids
    beyond it that aren't held are new for certain; others must be looked up in the store, in every
    page with a stamp of at least t - 5 min.
    """

    __slots__ = ("_capacity", "_far", "_order", "_positions", "unseen_time")

    def __init__(self, unseen_time: int, capacity: int = 8192) -> None:
        self.unseen_time = unseen_time
        self._capacity = capacity
        self._positions: dict[bytes, Positions] = {}
        self._order: deque[bytes] = deque()
        # The times of the ids that lay far ahead when they were added, the earliest first.
        self._far: list[int] = []

    def crowded(self, now_ms: int) -> bool:
        """Whether so many ids lie far ahead of a stamp that more of them would push out each other."""
        self._near(now_ms)
        return len(self._far) >= self._capacity // 4

    def _near(self, now_ms: int) -> None:
        while self._far and self._far[0] <= now_ms + FAR_AHEAD_MS:
            heapq.heappop(self._far)

    def find(self, raw: bytes) -> Positions | None:
        """The position, or positions, that are known to hold an id."""
        return self._positions.get(raw)

    def add(self, raw: bytes, seq: int, now_ms: int) -> None:
        """Notes a committed id. `now_ms` is the stamp of its page."""
        known = self._positions.get(raw)
        if known is None:
            self._positions[raw] = seq
            self._order.append(raw)
            time_ms = int.from_bytes(raw[:6], "big")
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
        # An id that lies ahead stays: dropping it would send every newer id to the store. Those far ahead are few, see
        # `crowded`; of the others only some are looked at, so that a crowd of them costs no more than that.
        looks = 4
        while True:
            raw = self._order.popleft()
            ahead_ms = int.from_bytes(raw[:6], "big") - now_ms
            looks -= ahead_ms <= FAR_AHEAD_MS
            if ahead_ms <= 0 or (looks < 0 and ahead_ms <= FAR_AHEAD_MS) or self._all_far():
                break
            self._order.append(raw)
        del self._positions[raw]
        self.unseen_time = max(self.unseen_time, now_ms + ahead_ms)

    def _all_far(self) -> bool:
        """Whether nothing else is held: notes, which are never refused, may fill an inbox so."""
        return len(self._far) > self._capacity // 2


def latest_unseen(stamp: int) -> int:
    """The largest time that an id committed up to a stamp may have."""
    return stamp + SKEW_MS


def earliest_stamp(id_time_ms: int) -> int:
    """The smallest stamp that a page holding an id of this time may have."""
    return id_time_ms - SKEW_MS


def offsets(ids: bytes, raw: bytes) -> list[int]:
    """Which of the 16-byte ids joined in `ids` are `raw`."""
    found = []
    at = ids.find(raw)
    while at >= 0:
        if at % ID_BYTES == 0:
            found.append(at // ID_BYTES)
        at = ids.find(raw, at + 1)
    return found
