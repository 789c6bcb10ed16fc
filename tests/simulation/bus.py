"""A bus that does what its port allows: loses, doubles, delays and reorders publications."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

from tidings_server.bus.base import Bus, Publication
from tidings_server.bus.local import LocalBus

from .loop import Process, SimLoop

_WIRE_S = 0.0005
"""The least time from node to node."""


class Wire:
    """What connects the buses of several nodes."""

    def __init__(self) -> None:
        self.buses: dict[UnreliableBus, None] = {}


class UnreliableBus(Bus):
    """Passes on to the `LocalBus` of each node on the wire what gets through. It belongs to a process, and is off the
    wire when that is dead.

    `loss` and `double` are probabilities of a publication; `delay` bounds in seconds how late it comes, each on its
    own, so that they overtake each other. Subscribing takes up to `delay` seconds too.
    """

    def __init__(
        self,
        loop: SimLoop,
        rng: random.Random,
        wire: Wire,
        process: Process,
        *,
        loss: float = 0.0,
        double: float = 0.0,
        delay: float = 0.0,
    ) -> None:
        self._loop = loop
        self._rng = rng
        self._wire = wire
        self._process = process
        self._inner = LocalBus()
        self.loss = loss
        self.double = double
        self.delay = delay
        self.lost = 0
        self._wanted: dict[str, object] = {}

    async def start(self) -> None:
        """See `Bus`."""
        self._inner.on_publication = self.on_publication
        self._inner.on_resync = self.on_resync
        await self._inner.start()
        self._wire.buses[self] = None

    async def stop(self) -> None:
        """See `Bus`."""
        self._wire.buses.pop(self, None)
        await self._inner.stop()

    def publish(self, publication: Publication) -> None:
        """See `Bus`."""
        for bus in [bus for bus in self._wire.buses if bus._process.alive]:
            if self._rng.random() < self.loss:
                self.lost += 1
                continue
            for _ in range(2 if self._rng.random() < self.double else 1):
                self._carry(bus, publication)

    def _carry(self, bus: UnreliableBus, publication: Publication) -> None:
        if bus is self:
            if self.delay:
                self._loop.call_later(
                    self._rng.random() * self.delay, self._inner.publish, publication
                )
            else:
                self._inner.publish(publication)
            return
        # What is on the wire arrives, whether or not its sender lives on.
        delay = _WIRE_S + self._rng.random() * self.delay
        self._loop.later(delay, self._loop.soon, bus._process, bus._inner.publish, publication)

    def mark(self) -> int:
        """See `Bus`."""
        return self._inner.mark()

    def taken(self, mark: int) -> bool:
        """See `Bus`. What is lost after that, is lost by what carries it."""
        return self._inner.taken(mark)

    async def subscribe(self, logs: Iterable[str]) -> None:
        """See `Bus`."""
        names = list(logs)
        self._wanted.update(dict.fromkeys(names, object()))
        asked = {name: self._wanted[name] for name in names}
        await asyncio.sleep(self._rng.random() * self.delay)
        # Who has unsubscribed or subscribed again meanwhile is not subscribed by this.
        await self._inner.subscribe(n for n in names if self._wanted.get(n) == asked[n])

    def unsubscribe(self, logs: Iterable[str]) -> None:
        """See `Bus`."""
        names = list(logs)
        for name in names:
            self._wanted.pop(name, None)
        self._inner.unsubscribe(names)

    def resync(self) -> None:
        """The connection to the bus was renewed: anything may have been lost before."""
        self.on_resync()
