"""The publisher: the link that sends what this node publishes, in pipelines and within bounds.

What can't be sent is owed: of a page only its log and position are kept, once a log, and go out as a pointer to the
head when the connection is there. When even that is too much, every node is told to look at its heads.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ...core.records import record
from ...redis_options import RedisAddress, RedisOptions
from .connection import pack
from .link import Link

WAITING_BYTES = 8 * 1024 * 1024
"""What may wait to be sent on one link."""
UNDER_WAY_BYTES = 1024 * 1024
"""What may be sent without having been answered."""
OWED_LOGS = 100_000
_OVERHEAD = 100


@record(frozen=True, slots=True)
class Parcel:
    """A frame for a channel. `seq` is the position that receivers must learn of; with 0 it may be lost. `number` counts
    what was published: that of the oldest that it stands for.
    """

    channel: bytes
    frame: bytes
    log: str
    seq: int
    number: int

    @property
    def size(self) -> int:
        """What it takes, in bytes, about."""
        return len(self.frame) + len(self.channel) + _OVERHEAD


@record(frozen=True, slots=True)
class Owed:
    """How far receivers must learn that a log goes, and the number of the oldest publication that would have told."""

    seq: int
    number: int


@dataclass(slots=True)
class Sent:
    """What publishers count."""

    published: int = 0
    """Frames that Redis has taken."""
    owed: int = 0
    """Pages that could not be sent and became pointers."""
    dropped: int = 0
    """Notices that could not be sent."""


class Publisher(Link):
    """Sends to one server. `pointer` makes the parcel of an owed log; `overflow` is called when too much is owed, with
    the number of the oldest.
    """

    kind = "publisher"

    def __init__(
        self,
        options: RedisOptions,
        address: RedisAddress,
        rng: random.Random,
        *,
        counts: Sent,
        pointer: Callable[[str, Owed], Parcel],
        overflow: Callable[[int], None],
        refused: Callable[[], None],
    ) -> None:
        super().__init__(options, address, rng)
        self.owed: dict[str, Owed] = {}
        self._command = "SPUBLISH" if options.cluster else "PUBLISH"
        self._counts = counts
        self._pointer = pointer
        self._overflow = overflow
        self._on_refused = refused
        self._waiting: deque[Parcel] = deque()
        self._waiting_bytes = 0
        # In the order of their replies; None is a ping.
        self._under_way: deque[Parcel | None] = deque()
        self._under_way_bytes = 0
        self._scheduled = False
        self._emptied: asyncio.Future[None] | None = None

    @property
    def waiting_bytes(self) -> int:
        """What waits or is under way."""
        return self._waiting_bytes + self._under_way_bytes

    def send(self, parcel: Parcel) -> None:
        """Sends it soon, or owes it."""
        # The first connection is waited for: nothing speaks against it yet.
        hopeless = self.connection is None and self.first_try.is_set()
        if hopeless or self._waiting_bytes >= WAITING_BYTES:
            self._owe(parcel)
            return
        self._waiting.append(parcel)
        self._waiting_bytes += parcel.size
        self._soon()

    def owe(self, log: str, owed: Owed) -> None:
        """Receivers of a log must learn that it goes up to a position."""
        before = self.owed.get(log)
        if before is not None:
            owed = Owed(max(owed.seq, before.seq), min(owed.number, before.number))
        self.owed[log] = owed
        if len(self.owed) > OWED_LOGS:
            oldest = min(owed.number for owed in self.owed.values())
            self.owed.clear()
            self._overflow(oldest)
        if self.connection is not None:
            self._soon()

    def oldest(self) -> int | None:
        """The number of the oldest publication that must not be lost and is not taken; None when there is none."""
        queued = (p for p in chain(self._waiting, self._under_way) if p is not None and p.seq)
        numbers = chain((p.number for p in queued), (o.number for o in self.owed.values()))
        return min(numbers, default=None)

    async def emptied(self) -> None:
        """Returns when everything is sent and answered, or there is no connection."""
        if self.connection is not None and (self._waiting or self._under_way or self.owed):
            self._emptied = asyncio.get_running_loop().create_future()
            await self._emptied

    def up(self) -> None:
        """See `Link`."""
        self._send()

    def down(self) -> None:
        """See `Link`."""
        # Redis may have taken what is under way: a pointer too many costs nothing.
        left = [p for p in (*self._under_way, *self._waiting) if p is not None]
        self._under_way.clear()
        self._waiting.clear()
        self._under_way_bytes = self._waiting_bytes = 0
        for parcel in left:
            self._owe(parcel)
        self._tell_emptied()

    def refused(self) -> None:
        """See `Link`."""
        self._on_refused()

    def pushed(self, push: list[Any]) -> None:
        """See `Link`: nothing is subscribed to here."""

    def next_is_ping(self) -> bool:
        """See `Link`."""
        return bool(self._under_way) and self._under_way[0] is None

    def pinging(self) -> None:
        """See `Link`."""
        self._under_way.append(None)

    def answered(self) -> None:
        """See `Link`."""
        parcel = self._under_way.popleft()
        if parcel is not None:
            self._under_way_bytes -= parcel.size
            self._counts.published += 1
        if self._waiting or self.owed:
            if self._under_way_bytes < UNDER_WAY_BYTES // 2:
                self._soon()
        elif not self._under_way:
            self._tell_emptied()

    def writable(self) -> None:
        """See `Link`."""
        self._soon()

    def _soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._scheduled = False
        connection = self.connection
        if connection is None or connection.congested:
            return
        command, parts = self._command, []
        while self._under_way_bytes < UNDER_WAY_BYTES:
            if self._waiting:
                parcel = self._waiting.popleft()
                self._waiting_bytes -= parcel.size
            elif self.owed:
                log = next(iter(self.owed))
                parcel = self._pointer(log, self.owed.pop(log))
            else:
                break
            self._under_way.append(parcel)
            self._under_way_bytes += parcel.size
            parts.append(pack(command, parcel.channel, parcel.frame))
        if parts:
            connection.write(b"".join(parts))

    def _owe(self, parcel: Parcel) -> None:
        if not parcel.seq:
            self._counts.dropped += 1
            return
        self._counts.owed += 1
        self.owe(parcel.log, Owed(parcel.seq, parcel.number))

    def _tell_emptied(self) -> None:
        if self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)
