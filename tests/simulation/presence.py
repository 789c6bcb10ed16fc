"""Presence when all is quiet: I8. A user is online at every node just when a session of theirs lives on any."""

from __future__ import annotations

import asyncio

from tidings_server.presence.service import GRACE_S

from .rude import RudeDevice
from .sdk_device import SdkDevice
from .server import Server
from .violation import Violation
from .world import World

_KEEPALIVE_S = 42.0
"""Within this time a server notices that a device is gone for good."""
_SLACK_S = 8.0
_UPSETS = (
    "flushed",
    "away",
    "loaded with what it held",
    "cut off",
    "cut off",
    "of an earlier time",
)
_UPSET_S = 6.0
"""How long Redis may be away while users leave."""


class PresenceAtTheEnd:
    """Looks at who is online where, lets users leave and come back. It raises Violation."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.rng("presence")

    async def check(self) -> None:
        """All are online, some leave, and come back."""
        world, rng = self._world, self._rng
        everybody = set(world.users)
        lease = 1.25 * world.config.lease_s + _SLACK_S
        await self._becomes(everybody, 2 * lease)
        leaving = rng.choice(world.users)
        devices = [device for device in world.devices if device.user == leaving]
        left_ms = min(server.clock.now_ms() for server in world.servers)
        crashed = await self._leave(devices)
        upset = world.uses_redis and rng.random() < 0.5
        if upset:
            await self._upset_redis(leaving)
        within = GRACE_S + lease + _KEEPALIVE_S
        await self._becomes(everybody - {leaving}, within)
        # It is written at that moment: give it the store's time.
        await asyncio.sleep(1.0)
        if not crashed:
            self._seen(leaving, left_ms)
        elif world.uses_redis and not upset:
            # Another node finds that the lease has ended, two leases after it was renewed.
            await asyncio.sleep(2 * lease)
            self._seen(leaving, left_ms)
        for device in devices:
            device.start()
        await self._becomes(everybody, lease + 20)

    async def _leave(self, devices: list[SdkDevice | RudeDevice]) -> bool:
        """Ends the programs of all devices of a user; returns whether a server died with them."""
        world, rng = self._world, self._rng
        world.tell("presence", f"{devices[0].user} leaves")
        links = list(world.network.links)
        at = [link.server for device in devices for link in links if link.device is device.process]
        for device in devices:
            if isinstance(device, SdkDevice) and rng.random() < 0.5:
                await device.close()
            device.crash(power=False)
        crash = [server for server in world.servers if server.running in at]
        if not crash or rng.random() < 0.6:
            return False
        server: Server = rng.choice(crash)
        server.crash()
        world.tell("presence", f"{server.name} dies with them")
        await asyncio.sleep(rng.choice((0.0, 5.0)))
        await server.start()
        return True

    async def _upset_redis(self, leaving: str) -> None:
        """Something happens to Redis just before a node would tell it that a user is gone, or soon after they left."""
        world, rng = self._world, self._rng
        redis = world.redis
        given_up = world.loop.time() + _KEEPALIVE_S
        while (  # noqa: ASYNC110 - timers tell nobody that they were made
            due := self._told_at(leaving)
        ) is None and world.loop.time() < given_up:
            await asyncio.sleep(0.05)
        kind = rng.choice(_UPSETS)
        early = rng.choice((0.001, 0.1) if kind == "cut off" else (0.001, 0.3, 1.0, 10.0))
        await asyncio.sleep(max((due or 0.0) - early - world.loop.time(), 0.0))
        world.tell("redis", f"is {kind}")
        if kind == "flushed":
            redis.flush()
        elif kind == "of an earlier time":
            redis.clock.skew_ms -= 3_600_000
        elif kind == "cut off":
            for socket in list(redis.sockets):
                # What the node says next is lost, and it does not know for a while.
                socket.cut(None)
        else:
            dump = redis.dump() if kind != "away" else None
            redis.kill()
            await asyncio.sleep(rng.choice((0.5, _UPSET_S)))
            redis.start(dump)

    def _told_at(self, user: str) -> float | None:
        """When the last node would tell that a user is gone, if one waits to."""
        nodes = [server.node for server in self._world.servers if server.node is not None]
        timers = [node.presence._leaving.get(user) for node in nodes]
        return max((timer.when() for timer in timers if timer is not None), default=None)

    async def _becomes(self, online: set[str], within: float) -> None:
        """Waits until just these users are online at every node."""
        world = self._world
        deadline = world.loop.time() + within
        while wrong := await self._wrong(online):
            if world.loop.time() > deadline:
                raise Violation("I8", f"after {within:g} quiet s: {'; '.join(wrong)}")
            await asyncio.sleep(2.0)

    async def _wrong(self, online: set[str]) -> list[str]:
        found = []
        for server in self._world.servers:
            node = server.node
            if node is None:
                found.append(f"{server.name} is down")
                continue
            task = self._world.loop.spawn(server.process, node.leases.online(self._world.users))
            told = await task
            if told != online:
                found.append(f"{server.name} says {sorted(told)}, online are {sorted(online)}")
        return found

    def _seen(self, user: str, left_ms: int) -> None:
        row = self._world.disk.presence([user]).get(user)
        if row is None or row.last_seen_ms < left_ms:
            seen = row.last_seen_ms if row else 0
            raise Violation("I8", f"{user} was last seen at {seen}, left at {left_ms}")
