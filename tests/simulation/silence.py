"""A publication is lost, by the death of its node or of a link to Redis, and then nothing more is said: I13.

Whoever is connected elsewhere is brought level within the lease time, without connecting again.
"""

from __future__ import annotations

import asyncio

from .config import BusKind
from .sdk_device import SdkDevice
from .server import Server
from .socket import SimSocket
from .violation import Violation
from .world import World

_SAID_WITHIN_S = 10.0
_TRIES = 3
_SLACK_S = 3.0
"""Beyond that: until it is noticed by all, and read."""
_NOTICED_S = 9.0
"""Within this time a link that is silent is given up, and there is another."""


class Silence:
    """Has something said that nobody may hear of, when all is level. It raises Violation."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.rng("silence")

    async def falls(self) -> None:
        """Somebody says something, and the others hear of it all the same."""
        if self._world.config.bus is BusKind.REDIS and self._rng.random() < 0.5:
            await self._without_links()
        else:
            await self._at_a_death()

    async def _without_links(self) -> None:
        """The links of the bus to Redis, of one kind, are cut just before something is said."""
        world, rng = self._world, self._rng
        found = self._somebody()
        if found is None:
            return
        speaker, name = found
        kind = rng.choice(("_publishers", "_subscribers"))
        noticed = rng.choice((0.05, 0.5, None))
        told = "only by the silence" if noticed is None else f"after {noticed} s"
        world.tell("silence", f"all {kind[1:]} are cut off from Redis, which they notice {told}")
        for server in world.servers:
            for link in getattr(server.bus, kind).values():
                transport = link.connection and link.connection._transport
                if isinstance(transport, SimSocket):
                    transport.cut(noticed)
        connected = self._connected()
        speaker.say(name, 1)
        await self._become_level(connected, name, _NOTICED_S)

    async def _at_a_death(self) -> None:
        """A node dies when it has committed and not published."""
        world, rng = self._world, self._rng
        for _ in range(_TRIES):
            found = self._somebody()
            if found is None:
                return
            speaker, name = found
            dead = await self._killed_at_commit(speaker, name)
            if dead is None:
                continue
            down = rng.choice((0.0, 1.0, 2 * world.config.lease_s))
            world.tell("silence", f"{dead.name} died of {name}, and stays away for {down:g} s")
            connected = self._connected()
            restarting = world.loop.spawn(None, self._restart(dead, down))
            await self._become_level(connected, name, 1.25 * world.config.lease_s)
            await restarting
            return

    def _somebody(self) -> tuple[SdkDevice, str] | None:
        """A device, and a conversation of its user with somebody else."""
        world, truth = self._world, self._world.truth
        found = [
            (device, name)
            for device in world.sdk
            for name in truth.conversations_of(device.user)
            if truth.log(name).is_member(device.user) and len(truth.log(name).members()) > 1
        ]
        return self._rng.choice(found) if found else None

    async def _killed_at_commit(self, speaker: SdkDevice, name: str) -> Server | None:
        """The server that died when what a device said was committed."""
        world = self._world
        before = {server: server.running for server in world.servers}
        for server in world.servers:
            server.die_at_commit(name)
        speaker.say(name, 1)
        deadline = world.loop.time() + _SAID_WITHIN_S
        try:
            while world.loop.time() < deadline:
                for server, process in before.items():
                    if server.running is not process:
                        return server
                await asyncio.sleep(0.0005)
            return None
        finally:
            for server in world.servers:
                server.die_at_commit(None)

    def _connected(self) -> list[tuple[SdkDevice, int]]:
        """The devices that are connected to a node that lives, and how often each has connected."""
        links = [link for link in self._world.network.links if link.server.alive]
        # A node may not know yet that a device has let go of an earlier connection.
        watches = [link.watch for link in links]
        return [(d, d.connects) for d in self._world.sdk if d.watch in watches]

    async def _become_level(
        self, connected: list[tuple[SdkDevice, int]], name: str, within: float
    ) -> None:
        world = self._world
        within += _SLACK_S + 10 * world.config.delay + 40 * world.config.store_delay
        await asyncio.sleep(within)
        for device, connects in connected:
            if device.connects != connects:
                raise Violation("I13", f"{device.name} connected again, though its node lives")
            end = world.truth.log(name).visible_end(device.user)
            have = device.watch.positions.get(name, 0) if device.watch is not None else 0
            if have < end:
                raise Violation(
                    "I13", f"{within:.1f} s after it {device.name} has {name}:{have} of {end}"
                )

    async def _restart(self, server: Server, down: float) -> None:
        await asyncio.sleep(down)
        await server.start()
