"""What goes wrong: each kind of fault comes at random moments, as often as the world's settings say."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from .config import LATE_S
from .network import Weather
from .redis_nemesis import RedisNemesis
from .sdk_device import SdkDevice
from .server import Server
from .truth import WatchedDisk
from .world import World

_CLOCK_JUMPS_MS = (-400_000, -280_000, -60_000, -1_000, 1_000, 60_000, 280_000, 400_000)
_SLEEPS_MS = (60_000, 310_000, 650_000, 7_200_000)


class Nemesis:
    """Brings the faults of a world, until it is told to stop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tasks: list[asyncio.Task[None]] = []
        self._busy = {server: asyncio.Lock() for server in world.servers}
        self._backup: WatchedDisk | None = None

    def begin(self) -> None:
        """From now on faults may come."""
        world = self._world
        faults = world.config.faults
        kinds: tuple[tuple[str, float, Callable[[random.Random], Awaitable[None]]], ...] = (
            ("cut", faults.cut, self._cut),
            ("stall", faults.stall, self._stall),
            ("crash", faults.crash, self._crash),
            ("drain", faults.drain, self._drain),
            ("pause", faults.pause, self._pause),
            ("device crash", faults.device_crash, self._device_crash),
            ("clock", faults.clock, self._clock),
            ("sleep", faults.sleep, self._sleep),
            ("restore", faults.restore, self._restore),
            ("peers", faults.peers, self._peers),
            ("redis", faults.redis if world.uses_redis else 0.0, RedisNemesis(world).strike),
        )
        world.network.weather = Weather(
            delay=world.config.delay,
            refuse=faults.refuse,
            lose_request=faults.lose_calls,
            lose_answer=faults.lose_calls,
            duplicate=faults.duplicate_calls,
        )
        max_late = world.rng("late").choice((0.1, 2.0, LATE_S))
        for server in world.servers:
            store = server.faults
            store.refused, store.unsure = faults.store / 3, faults.store
            store.max_late = max_late
        for device in world.sdk:
            device.failing = faults.store / 3
        for name, rate, bring in kinds:
            if rate:
                rng = world.rng(f"nemesis {name}")
                self._tasks.append(
                    world.loop.spawn(None, self._again_and_again(name, rate, rng, bring))
                )

    async def end(self) -> None:
        """No more faults; what is down comes up. Returns when the servers run."""
        world = self._world
        world.tell("calm", "no more faults")
        world.network.calm()
        for server in world.servers:
            server.faults.calm()
        async with AsyncExitStack() as stack:
            for busy in self._busy.values():
                await stack.enter_async_context(busy)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            world.redis.calm()
            for server in world.servers:
                if server.running is None:
                    await server.start()
                elif server.running.paused:
                    world.loop.resume(server.running)
        world.bus_loss = 0.0
        world.calm_bus()
        for device in world.devices:
            device.calm = True
            if device.process is None:
                device.start()

    async def _again_and_again(
        self,
        name: str,
        rate: float,
        rng: random.Random,
        bring: Callable[[random.Random], Awaitable[None]],
    ) -> None:
        while True:
            await asyncio.sleep(rng.expovariate(rate))
            await bring(rng)

    # The network

    async def _cut(self, rng: random.Random) -> None:
        links = list(self._world.network.links)
        if not links:
            return
        link = rng.choice(links)
        soon = rng.random() * 0.2
        device: float | None
        device, server = rng.choice(
            ((soon, soon), (soon, rng.uniform(1, 40)), (rng.uniform(1, 40), soon), (None, 30.0))
        )
        self._world.tell("cut", f"{link.device.name}, it notices after {device}")
        link.cut(device, server)

    async def _stall(self, rng: random.Random) -> None:
        links = list(self._world.network.links)
        if links:
            link = rng.choice(links)
            pipe = rng.choice((link.up, link.down))
            pipe.stall(self._world.loop.time() + rng.uniform(0.1, 8))

    async def _peers(self, rng: random.Random) -> None:
        links = list(self._world.peers.links)
        if not links:
            return
        link = rng.choice(links)
        if rng.random() < 0.4:
            link.stall(self._world.loop.time() + rng.uniform(0.1, 8))
        else:
            noticed = rng.choice((0.0, 0.1, None))
            called = link.called.name if link.called else ""
            self._world.tell(
                "peers", f"{link.caller.name} to {called} is cut, noticed after {noticed}"
            )
            link.cut(noticed)

    async def _device_crash(self, rng: random.Random) -> None:
        world = self._world
        device = rng.choice(world.devices)
        power = rng.random() < 0.4
        if device.process is None:
            return
        world.tell("device", f"{device.name} {'loses power' if power else 'crashes'}")
        try:
            if isinstance(device, SdkDevice) and rng.random() < 0.25:
                await device.close()
        finally:
            # Also when the faults end while it closes.
            device.crash(power=power)
        world.loop.later(rng.choice((0.0, 1.0, 8.0)), self._device_start, device)

    def _device_start(self, device: object) -> None:
        for known in self._world.devices:
            if known is device and known.process is None:
                known.start()

    # The servers

    def _server(self, rng: random.Random) -> Server:
        servers = self._world.servers
        return servers[0] if len(servers) == 1 else rng.choice(servers)

    async def _crash(self, rng: random.Random) -> None:
        world, server = self._world, self._server(rng)
        async with self._busy[server]:
            process = server.running
            if process is None:
                return
            # At any of its steps: soon after something happened, when most is under way.
            fallen = asyncio.get_running_loop().create_future()
            world.loop.after_steps(rng.randint(1, 150), process, lambda: fallen.set_result(None))
            await fallen
            world.tell("server", f"{process.name} crashes")
            server.crash()
            await asyncio.sleep(rng.choice((0.0, 0.5, 3.0)))
            self._set_clock(rng, 0.3)
            await server.start()
            world.tell("server", f"{server.name} is up again")

    async def _drain(self, rng: random.Random) -> None:
        world, server = self._world, self._server(rng)
        async with self._busy[server]:
            world.tell("server", f"{server.name} drains")
            await server.drain(rng.choice((0, 2_000)), rng.choice((0.5, 5.0)))
            world.tell("server", f"{server.name} has stopped")
            # Some stay away for longer: others know that they are gone.
            await asyncio.sleep(rng.choice((rng.random(), rng.random(), 20.0)))
            if server.running is None:
                await server.start()
                world.tell("server", f"{server.name} is up again")

    async def _pause(self, rng: random.Random) -> None:
        world, server = self._world, self._server(rng)
        async with self._busy[server]:
            process = server.running
            if process is not None:
                world.tell("server", f"{server.name} pauses")
                world.loop.pause(process)
                await asyncio.sleep(rng.choice((0.5, 4.0, 12.0)))
                world.loop.resume(process)

    async def _restore(self, rng: random.Random) -> None:
        world = self._world
        async with AsyncExitStack() as stack:
            for busy in self._busy.values():
                await stack.enter_async_context(busy)
            if self._backup is None:
                self._backup = world.disk.backup()  # type: ignore[assignment]
                world.tell("server", "is backed up")
                return
            for server in world.servers:
                server.crash()
            world.replace_disk(self._backup)
            self._backup = None
            world.tell("server", "is restored from the backup")
            await asyncio.sleep(rng.random())
            for server in world.servers:
                await server.start()

    # Time

    async def _clock(self, rng: random.Random) -> None:
        self._set_clock(rng, 1.0)

    def _set_clock(self, rng: random.Random, chance: float) -> None:
        if rng.random() < chance:
            parts = (*self._world.servers, *self._world.devices)
            clock = rng.choice([part.clock for part in parts])
            clock.skew_ms += rng.choice(_CLOCK_JUMPS_MS)
            self._world.tell("clock", f"one is off by {clock.skew_ms} ms")

    async def _sleep(self, rng: random.Random) -> None:
        slept = rng.choice(_SLEEPS_MS)
        self._world.true.slept_ms += slept
        self._world.tell("clock", f"{slept} ms go by unnoticed")
