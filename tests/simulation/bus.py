"""A bus that does what its port allows: loses, doubles, delays and reorders publications."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

from tidings_server.bus.base import Bus, Publication
from tidings_server.bus.local import LocalBus

from .loop import SimLoop


class UnreliableBus(Bus):
    """Passes on to a `LocalBus` what gets through.

    `loss` and `double` are probabilities of a publication; `delay` bounds in seconds how late it comes, each on its
    own, so that they overtake each other. Subscribing takes up to `delay` seconds too.
    """

    def __init__(
        self,
        loop: SimLoop,
        rng: random.Random,
        *,
        loss: float = 0.0,
        double: float = 0.0,
        delay: float = 0.0,
    ) -> None:
        self._loop = loop
        self._rng = rng
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

    async def stop(self) -> None:
        """See `Bus`."""
        await self._inner.stop()

    def publish(self, publication: Publication) -> None:
        """See `Bus`."""
        if self._rng.random() < self.loss:
            self.lost += 1
            return
        for _ in range(2 if self._rng.random() < self.double else 1):
            if self.delay:
                self._loop.call_later(
                    self._rng.random() * self.delay, self._inner.publish, publication
                )
            else:
                self._inner.publish(publication)

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
