"""Chaos: the server is killed, or stands still for a while, at random points of the play."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from .board import Board
from .server import Server

_LONGEST_FREEZE_S: Final = 3.0
_JITTER_S: Final = 0.05


@dataclass(slots=True)
class Blow:
    """One of them, with seconds from its beginning.

    Attributes:
        what: "kill" or "freeze".
        acked: How many messages were acknowledged before.
        connected: How many devices were connected before.
        back_s: When the server served again.
        taken_s: When it had acknowledged the next message.
        reconnected_s: When as many devices were connected again; 0 if that did not happen before the end.
    """

    what: str
    acked: int
    connected: int
    back_s: float
    taken_s: float
    reconnected_s: float = 0.0


@dataclass(slots=True)
class Chaos:
    """Deals so many blows, one after the other. `connected` tells how many devices are."""

    server: Server
    board: Board
    rng: random.Random
    kills: int
    freezes: int
    connected: Callable[[], int]
    blows: list[Blow] = field(default_factory=list)
    now: str = ""
    _watching: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Returns after the last one."""
        plan = ["kill"] * self.kills + ["freeze"] * self.freezes
        self.rng.shuffle(plan)
        points = sorted(self.rng.uniform(0.05, 0.95) for _ in plan)
        for what, point in zip(plan, points, strict=True):
            await self.board.reached(int(self.board.total * point))
            # Not right after an acknowledgement: anywhere between two.
            await asyncio.sleep(self.rng.random() * _JITTER_S)
            await self._deal(what)

    async def _deal(self, what: str) -> None:
        loop = asyncio.get_running_loop()
        acked, connected, began = self.board.acked, self.connected(), loop.time()
        self.now = what
        if what == "kill":
            await self.server.kill()
            await self.server.start()
        else:
            self.server.freeze()
            await asyncio.sleep(0.2 + self.rng.random() * _LONGEST_FREEZE_S)
            self.server.thaw()
        back = loop.time() - began
        # The next blow may come before everybody is back, but not before the server took something.
        await self.board.reached(min(acked + 1, self.board.total))
        self.now = ""
        blow = Blow(what, acked, connected, back, loop.time() - began)
        self.blows.append(blow)
        watching = loop.create_task(self._watch(blow, began))
        self._watching.add(watching)

    async def _watch(self, blow: Blow, began: float) -> None:
        loop = asyncio.get_running_loop()
        # Devices come one by one: an event for each would say no more.
        while self.connected() < blow.connected:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        blow.reconnected_s = loop.time() - began

    def close(self) -> None:
        """Watches no longer."""
        for task in self._watching:
            task.cancel()
