"""The server of a simulation: the real node and servicers in a process that can crash, pause, drain and come back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import grpc

from tidings_server.bus.base import Bus
from tidings_server.core.ids import uuid7
from tidings_server.core.limits import Limits
from tidings_server.core.principal import Principal
from tidings_server.errors import DomainError, Reason
from tidings_server.node import Node
from tidings_server.operations.unary import Operations
from tidings_server.presence.base import Leases
from tidings_server.rpc.chat import chat_service
from tidings_server.rpc.unary import unary_services
from tidings_server.storage.base import APPLIED
from tidings_server.storage.memory import Call, MemoryDisk, MemoryStore, RandomFaults

from .clock import SimClock
from .loop import Process, SimLoop
from .network import Aborted, Link, Network, ServerContext, Status, frames_of
from .peers import PeerNet

T = TypeVar("T")

CHAT = "/tidings.v1.ChatService/Chat"


def _nobody_cares(_process: Process) -> None:
    pass


class SimStore(MemoryStore):
    """A memory store that is a database of its own: what it was asked goes on when its caller's process dies.

    `committed` is told of the log of each append, the moment it has taken effect.
    """

    def __init__(
        self,
        disk: MemoryDisk,
        loop: SimLoop,
        new_id: Callable[[], str],
        faults: RandomFaults,
        committed: Callable[[str], None],
        *,
        shared: bool,
    ) -> None:
        super().__init__(disk, new_id=new_id, faults=faults, shared=shared)
        self._loop = loop
        self._committed = committed

    def _begin(
        self, call: Call, apply: Callable[[], T], lost: T | None = None
    ) -> asyncio.Future[T]:
        if call.method == "append":
            apply = partial(self._append, call.about, apply)
        return self._loop.context.copy().run(super()._begin, call, apply, lost)

    def _append(self, log: str, apply: Callable[[], T]) -> T:
        outcome = apply()
        if outcome is APPLIED:
            self._committed(log)
        return outcome


class Server:
    """One server, now running or not, over a disk that others may share."""

    def __init__(
        self,
        name: str,
        loop: SimLoop,
        rng: random.Random,
        disk: MemoryDisk,
        clock: SimClock,
        limits: Limits,
        make_bus: Callable[[Process], Bus],
        make_leases: Callable[[Process], Leases],
        peers: PeerNet,
        prepare: Callable[[Node], None],
        *,
        shared: bool,
    ) -> None:
        self.name = name
        self.shared = shared
        self.loop = loop
        self.rng = rng
        self.disk = disk
        self.clock = clock
        self.limits = limits
        self.faults = RandomFaults(random.Random(rng.random()), max_delay=0.003)
        self.network: Network | None = None
        self.died: Callable[[Process], None] = _nobody_cares
        """Told of the process that ended."""
        self.node: Node | None = None
        self.bus: Bus | None = None
        self.starts = 0
        self.running: Process | None = None
        self._make_bus = make_bus
        self._make_leases = make_leases
        self._peers = peers
        self._dies_at: str | None = None
        self._prepare = prepare
        self._store: SimStore | None = None
        self._methods: dict[str, Any] = {}

    @property
    def process(self) -> Process | None:
        """The process that listens, or None."""
        return self.running if self.node is not None else None

    async def start(self) -> None:
        """Starts a process; returns when it listens."""
        assert self.running is None
        self.starts += 1
        process = self.running = Process(f"{self.name}-{self.starts}")
        await self.loop.spawn(process, self._boot(process))

    async def _boot(self, process: Process) -> None:
        rng = random.Random(self.rng.random())
        self._store = SimStore(
            self.disk,
            self.loop,
            lambda: uuid7(self.clock.now_ms(), rng),
            self.faults,
            lambda log: self._committed(process, log),
            shared=self.shared,
        )
        await self._store.open()
        self.bus = self._make_bus(process)
        node = Node(
            self._store,
            self.bus,
            self.clock,
            rng,
            self._verify,
            limits=self.limits,
            leases=self._make_leases(process),
            dial=self._peers.dial(process),
        )
        self._prepare(node)
        self._peers.listen(process, node)
        await node.start()
        self._methods = {}
        for generic in (chat_service(node), *unary_services(Operations(node))):
            self._methods.update(generic._method_handlers)  # type: ignore[attr-defined]
        self.node = node

    async def _verify(self, token: str) -> Principal:
        user, device, expires = token.split("/")
        if int(expires) <= self.clock.now_ms():
            raise DomainError(Reason.TOKEN_EXPIRED, "The token has expired.")
        return Principal(user, device, int(expires))

    # Ending

    def crash(self) -> None:
        """Kills the process between two of its steps. Of writes on their way to the disk each may arrive or not."""
        process = self.running
        if process is None:
            return
        self.loop.kill(process)
        if self._store is not None:
            self._store.crash(lambda: self.rng.random() < 0.5)
        self._gone(process)

    def die_at_commit(self, log: str | None) -> None:
        """The next append to a log that takes effect is the last thing that this server did; with None, no more."""
        self._dies_at = log

    def _committed(self, process: Process, log: str) -> None:
        if process is self.running and log == self._dies_at:
            self._dies_at = None
            # Before it hears of it, mostly.
            self.loop.soon(None, self._die, process)

    def _die(self, process: Process) -> None:
        if process is self.running:
            self.crash()

    async def drain(self, spread_ms: int, grace_s: float) -> None:
        """Stops as SIGTERM does: sends the devices away, finishes, and exits."""
        process, node, store = self.running, self.node, self._store
        if process is None or node is None or store is None:
            return

        async def stop() -> None:
            node.announce_drain(spread_ms)
            deadline = self.loop.time() + min(spread_ms / 1000, grace_s)
            while node.counters.sessions and self.loop.time() < deadline:  # noqa: ASYNC110 - as in app.py
                await asyncio.sleep(0.05)
            await node.stop(grace_s)
            await store.close()

        task = self.loop.spawn(process, stop())
        while process.alive and not task.done():  # noqa: ASYNC110 - a killed process ends nothing
            await asyncio.sleep(0.05)
        if process.alive:
            task.result()
            self.loop.kill(process)
            self._gone(process)

    def _gone(self, process: Process) -> None:
        self.running = self.node = self._store = self.bus = None
        self._peers.died(process, self._noticed_after)
        self.died(process)
        assert self.network is not None
        self.network.server_died(process)

    def _noticed_after(self) -> float | None:
        return None if self.rng.random() < 0.2 else self.rng.random() * 0.2

    # Serving

    def accept(self, link: Link, token: str) -> None:
        """See `Endpoint`."""
        link.handler = self.loop.spawn(link.server, self._chat(link, token))

    async def _chat(self, link: Link, token: str) -> None:
        context = ServerContext(token, link)
        frames = frames_of(link)
        try:
            await self._methods[CHAT].stream_stream(frames, context)
        except Aborted:
            pass
        except asyncio.CancelledError:
            context.status = Status(grpc.StatusCode.CANCELLED)
        finally:
            link.ended(context.status)
            context.done()

    def serve(
        self, method: str, request: bytes, token: str, answer: Callable[[bytes | Status], None]
    ) -> None:
        """See `Endpoint`."""
        self.loop.spawn(self.process, self._call(f"/{method}", request, token, answer))

    async def _call(
        self, method: str, request: bytes, token: str, answer: Callable[[bytes | Status], None]
    ) -> None:
        context = ServerContext(token)
        handler = self._methods[method]
        parse = handler.request_deserializer or bytes
        try:
            response = await handler.unary_unary(parse(request), context)
        except Aborted:
            answer(context.status)
        else:
            answer(handler.response_serializer(response))
        finally:
            context.done()
