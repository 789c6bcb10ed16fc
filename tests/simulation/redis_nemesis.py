"""What goes wrong with Redis: it is flushed, killed, has an old dump, stands still, is cut off, has a wrong clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from .world import World

_CLOCK_JUMPS_MS = (-3_600_000, -30_000, -2_000, 2_000, 30_000, 3_600_000)


class RedisNemesis:
    """Strikes Redis, one thing at a time. Whoever ends the faults lets it run again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._old = world.redis.dump()

    async def strike(self, rng: random.Random) -> None:
        """Something happens to it, and passes."""
        kinds: tuple[Callable[[random.Random], Awaitable[None]], ...] = (
            self._flush,
            self._kill,
            self._stand_still,
            self._cut,
            self._cut,
            self._stall,
            self._set_clock,
        )
        await rng.choice(kinds)(rng)

    async def _flush(self, _rng: random.Random) -> None:
        self._tell("is flushed")
        self._world.redis.flush()

    async def _kill(self, rng: random.Random) -> None:
        redis = self._world.redis
        dump, self._old = self._old, redis.dump()
        # It comes back with nothing, with what it held, or with what it held at an earlier time.
        found = rng.choice((None, self._old.copy(), dump))
        self._tell("is killed")
        redis.kill()
        await asyncio.sleep(rng.choice((0.1, 3.0, 15.0)))
        if not redis.up:
            redis.start(found)
            self._tell("is up again")

    async def _stand_still(self, rng: random.Random) -> None:
        redis = self._world.redis
        self._tell("stands still")
        redis.stand_still()
        await asyncio.sleep(rng.choice((0.5, 4.0, 12.0)))
        redis.go_on()

    async def _cut(self, rng: random.Random) -> None:
        sockets = list(self._world.redis.sockets)
        if sockets:
            socket = rng.choice(sockets)
            noticed = rng.choice((0.0, 0.1, None))
            self._tell(
                f"loses a connection of {socket.process.name}, which notices after {noticed}"
            )
            socket.cut(noticed)

    async def _stall(self, rng: random.Random) -> None:
        sockets = list(self._world.redis.sockets)
        if sockets:
            rng.choice(sockets).stall(self._world.loop.time() + rng.uniform(0.1, 8))

    async def _set_clock(self, rng: random.Random) -> None:
        clock = self._world.redis.clock
        clock.skew_ms += rng.choice(_CLOCK_JUMPS_MS)
        self._tell(f"has a clock that is off by {clock.skew_ms} ms")

    def _tell(self, what: str) -> None:
        self._world.tell("redis", what)
