"""Chaos: what the replay plays against is killed, stands still, or is cut off, at points of the play."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from tools.stack.server import Server

from .board import Board

_LONGEST_FREEZE_S: Final = 3.0
_JITTER_S: Final = 0.05

Plan = list[tuple[str, Callable[[], Awaitable[None]]]]
"""What is done, by name. Each returns when it is healed."""


@dataclass(slots=True)
class Blow:
    """One of them, with seconds from its beginning.

    Attributes:
        what: Its name.
        acked: How many messages were acknowledged before.
        connected: How many devices were connected before.
        back_s: When it was healed.
        taken_s: When it was healed and the next message was acknowledged.
        silence_s: The longest time in which no message at all was acknowledged.
        reconnected_s: When as many devices were connected again; 0 if that did not happen before the end.
    """

    what: str
    acked: int
    connected: int
    back_s: float
    taken_s: float
    silence_s: float
    reconnected_s: float = 0.0


@dataclass(slots=True)
class Chaos:
    """Deals the blows of a plan, one after the other.

    `connected` tells how many devices are; `dealt` is called after each, with the moment when it began. `within` is the
    part of the play in which they begin.
    """

    board: Board
    rng: random.Random
    plan: Plan
    connected: Callable[[], int]
    dealt: Callable[[float], None]
    within: tuple[float, float] = (0.05, 0.95)
    blows: list[Blow] = field(default_factory=list)
    now: str = ""
    _watching: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Returns after the last one."""
        first, last = self.within
        points = sorted(self.rng.uniform(first, last) for _ in self.plan)
        for (what, deal), point in zip(self.plan, points, strict=True):
            await self.board.reached(int(self.board.total * point))
            # Not right after an acknowledgement: anywhere between two.
            await asyncio.sleep(self.rng.random() * _JITTER_S)
            await self._deal(what, deal)

    async def _deal(self, what: str, deal: Callable[[], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        acked, connected, began = self.board.acked, self.connected(), loop.time()
        self.now = what
        self.board.longest_silence_s = 0.0
        await deal()
        back = loop.time() - began
        # The next blow may come before everybody is back, but not before the server took something.
        await self.board.reached(min(self.board.acked + 1, self.board.total))
        self.now = ""
        silence = self.board.longest_silence_s
        blow = Blow(what, acked, connected, back, loop.time() - began, silence)
        self.blows.append(blow)
        self.dealt(began)
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


def plan_of(server: Server, rng: random.Random, kills: int, freezes: int) -> Plan:
    """What happens to a server that is alone: so often it is killed, and stopped for a while, in any order."""

    async def kill() -> None:
        await server.kill()
        await server.start()

    async def freeze() -> None:
        server.freeze()
        await asyncio.sleep(0.2 + rng.random() * _LONGEST_FREEZE_S)
        server.thaw()

    plan: Plan = [*[("kill -9", kill)] * kills, *[("SIGSTOP, SIGCONT", freeze)] * freezes]
    rng.shuffle(plan)
    return plan
