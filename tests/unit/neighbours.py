"""Nodes that know of each other and forward changes, on links that a test can cut and silence."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from tests.unit.world import World
from tidings_server.bus.base import Bus
from tidings_server.bus.local import LocalBus
from tidings_server.core.homes import home_of
from tidings_server.core.ids import group_conversation_id
from tidings_server.messaging.forwarding import Dial, Link, Listener
from tidings_server.messaging.hosting import Guest
from tidings_server.presence.base import Leases, NodeInfo
from tidings_server.storage.memory import MemoryDisk
from tidings_server.telemetry.tracing import NO_TRACER, Tracer


class Town:
    """Which nodes live, and the links between them.

    `silent` nodes hear nothing and are heard by nobody, and nobody is told. `unreachable` ones can't be dialled.
    `deaf` are told nothing of who lives; `uninformed` ones know it.
    """

    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self.worlds: dict[str, World] = {}
        self.nodes: dict[str, NodeInfo] = {}
        self.leases: dict[str, TownLeases] = {}
        self.links: list[TownLink] = []
        self.silent: set[str] = set()
        self.unreachable: set[str] = set()
        self.deaf: set[str] = set()
        self.uninformed: set[str] = set()

    async def node(self, name: str, tracer: Tracer = NO_TRACER, bus: Bus | None = None) -> World:
        node = NodeInfo(name, f"{name}:1")
        leases = self.leases[name] = TownLeases(self, node)
        world = World(
            disk=self.disk,
            shared=True,
            bus=bus or LocalBus(),
            leases=leases,
            dial=self._dial(name),
            ask=self._ask,
            tracer=tracer,
        )
        self.worlds[name] = world
        self.nodes[name] = node
        await world.start()
        self.tell()
        return world

    def tell(self) -> None:
        for name, leases in self.leases.items():
            if name not in self.deaf:
                leases.seen = dict(self.nodes)
                leases.nodes_changed()

    def gone(self, name: str) -> None:
        """Its lease has ended."""
        del self.nodes[name]
        self.tell()

    def cut(self, name: str) -> None:
        """All links of a node break; they can be made anew."""
        for link in [link for link in self.links if name in (link.caller, link.to)]:
            link.cut()

    async def stop(self) -> None:
        for world in self.worlds.values():
            await world.stop()

    def log_at(self, name: str, world: World, user: str) -> tuple[str, str]:
        """The id of a request for a group, and of the group, whose home is this node."""
        while True:
            request = world.new_id()
            log = group_conversation_id(user, request)
            if home_of(log, self.nodes) == name:
                return request, log

    async def _ask(self, node: NodeInfo, frame: bytes) -> bytes:
        if node.node_id in self.unreachable:
            raise ConnectionError("nobody is there")
        if node.node_id in self.silent:
            await asyncio.Event().wait()
        return await self.worlds[node.node_id].node.witness(frame)

    def _dial(self, caller: str) -> Dial:
        def dial(node: NodeInfo, listener: Listener) -> Link:
            link = TownLink(self, caller, node.node_id, listener)
            self.links.append(link)
            asyncio.get_running_loop().call_soon(link.connect)
            return link

        return dial


class TownLink:
    """See `Link`. Frames take a turn of the loop."""

    def __init__(self, town: Town, caller: str, to: str, listener: Listener) -> None:
        self.town = town
        self.caller = caller
        self.to = to
        self._listener: Listener | None = listener
        self._guest: Guest | None = None

    def connect(self) -> None:
        if self.to in self.town.unreachable:
            self.cut()
        elif self._listener is not None:
            self._guest = self.town.worlds[self.to].node.host.open(self._answer)

    def send(self, frame: bytes) -> None:
        asyncio.get_running_loop().call_soon(self._arrive, frame)

    def close(self) -> None:
        self._listener = None
        if self in self.town.links:
            self.town.links.remove(self)
        if self._guest is not None:
            self._guest.close()

    def cut(self) -> None:
        listener = self._listener
        self.close()
        if listener is not None:
            listener.broken("cut")

    @property
    def _dead(self) -> bool:
        return bool({self.caller, self.to} & self.town.silent)

    def _arrive(self, frame: bytes) -> None:
        if self._guest is not None and self._listener is not None and not self._dead:
            try:
                self._guest.receive(frame)
            except ValueError:
                self.cut()

    def _answer(self, frame: bytes) -> None:
        asyncio.get_running_loop().call_soon(self._hear, frame)

    def _hear(self, frame: bytes) -> None:
        if self._listener is not None and not self._dead:
            self._listener.heard(frame)


class TownLeases(Leases):
    """The leases of a town, as one node sees them."""

    def __init__(self, town: Town, node: NodeInfo) -> None:
        self._town = town
        self._node = node
        self.seen: dict[str, NodeInfo] = {}

    @property
    def node(self) -> NodeInfo:
        return self._node

    @property
    def informed(self) -> bool:
        return self._node.node_id not in self._town.uninformed

    def announce(self, node: NodeInfo) -> None:
        self._node = node
        if node.node_id in self._town.nodes:
            self._town.nodes[node.node_id] = node
            self._town.tell()

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def came(self, user_id: str) -> None:
        pass

    def left(self, user_id: str) -> None:
        pass

    async def online(self, user_ids: Iterable[str]) -> set[str]:
        return set()

    def nodes(self) -> Mapping[str, NodeInfo]:
        return {**self.seen, self._node.node_id: self._node}
