"""A node: all of one server but its store, its bus and its transports. The simulator runs the
same.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from .admin.service import Admin, Ask
from .bus.base import Bus, PagePublished
from .codec.requests import RequestReader
from .codec.witness import answer, question, read_answer, read_question
from .core import admin as a
from .core import commands as c
from .core.clock import Clock
from .core.ids import node_tag, uuid7
from .core.limits import Limits
from .core.pages import Page
from .core.principal import Principal
from .delivery.acks import AckBook
from .delivery.hub import Hub
from .delivery.outbox import Sink
from .delivery.services import SessionServices
from .delivery.session import Session
from .delivery.sync import Synchroniser
from .errors import DomainError, Reason
from .messaging.conversations import Conversations
from .messaging.effect_writing import by_kind
from .messaging.effects import MembershipEffects
from .messaging.forwarding import Dial
from .messaging.handlers import Handlers
from .messaging.history import History
from .messaging.hosting import Host
from .messaging.intents import Intents
from .messaging.message_effects import MessageEffects
from .messaging.message_states import MessageStates
from .messaging.messages import Messages
from .messaging.receipts import Receipts
from .messaging.router import Router
from .messaging.sequencer import Sequencer
from .messaging.takeover import Takeover
from .presence.base import Leases, NodeInfo
from .presence.local import LocalLeases
from .presence.service import Presence
from .storage.base import Store
from .storage.tail_cache import TailCache
from .telemetry.counters import Counters
from .telemetry.tracing import NO_TRACER, Span, Tracer
from .telemetry.trail import Trail

log = structlog.get_logger(__name__)

_CATCH_UPS_AT_ONCE = 16


class Node:
    """Sessions and handlers over an open store and a bus.

    `verify` turns a token into a principal, raising DomainError. `dial` and `ask` reach other nodes; `ask` sends what
    their `witness` takes and raises OSError.
    """

    def __init__(
        self,
        store: Store,
        bus: Bus,
        clock: Clock,
        rng: random.Random,
        verify: Callable[[str], Awaitable[Principal]],
        *,
        limits: Limits | None = None,
        counters: Counters | None = None,
        tracer: Tracer = NO_TRACER,
        token_warning_ms: int = 60_000,
        leases: Leases | None = None,
        dial: Dial | None = None,
        ask: Callable[[NodeInfo, bytes], Awaitable[bytes]] | None = None,
    ) -> None:
        self.store = store
        self.bus = bus
        self.clock = clock
        self.limits = limits or Limits()
        self.counters = counters or Counters()
        self.tracer = tracer
        self.trail = Trail(clock)
        self.reader = RequestReader(self.limits)
        self._rng = rng
        self._verify = verify
        self._pages = TailCache(store)
        self.leases = leases or LocalLeases()
        self.leases.nodes_changed = self._nodes_changed
        self._address = self.leases.node.address
        self._nodes = frozenset(self.leases.nodes())
        self.presence = Presence(store, clock, self.leases)
        self.hub = Hub(
            bus,
            self._pages,
            clock,
            rng,
            self.limits.beacon_interval_ms,
            self.trail,
            self.counters,
            user_came=self.presence.user_came,
            user_left=self.presence.user_left,
        )
        self.draining = asyncio.Event()
        """Set when the node begins to send its devices away."""
        self._intents: Intents | None = None
        self._takeover: Takeover | None = None
        if store.shared:
            self._intents = Intents(store, bus, self.leases.node.node_id, self.counters)
        self.sequencer = Sequencer(
            store,
            clock,
            rng,
            self.counters,
            self._published,
            intents=self._intents,
            tracer=tracer,
            tag=node_tag(self.leases.node.node_id),
        )
        if store.shared:
            self._takeover = Takeover(store, bus, self.leases, self.sequencer, rng, self.counters)
        self.router = Router(self.sequencer, self.leases, dial, self.counters, tracer)
        self.host = Host(self.sequencer.submit, self.limits.max_members, self.counters, tracer)
        self.sequencer.set_effects(
            by_kind(MembershipEffects(store, self.router), MessageEffects(store, self._pages))
        )
        states = MessageStates(store, self.sequencer)
        receipts = Receipts(store, self._pages, self.sequencer, bus)
        self._acks = AckBook(store, self.sequencer, bus)
        self._admin = Admin(
            store,
            self.sequencer,
            self.router,
            self.leases,
            self.hub,
            self._acks,
            self.counters,
            self.trail,
            self.announce_drain,
            None if ask is None else _asking(ask),
        )
        self.handlers = Handlers(
            self.router,
            Conversations(store, self.sequencer, self.router, clock, rng, self.limits),
            Messages(self.router),
            History(store, self._pages, self.sequencer, states),
            receipts,
            self.counters,
            self.trail,
            others={
                c.GetPresence: self.presence.get,
                c.SetStatus: self.presence.set_status,
                **self._admin.handlers,
            },
        )
        self._tracing: set[asyncio.Task[None]] = set()
        self._services = SessionServices(
            store=store,
            pages=self._pages,
            sequencer=self.sequencer,
            states=states,
            handlers=self.handlers,
            hub=self.hub,
            sync=Synchroniser(store, self.sequencer, states, self._acks, self.limits),
            acks=self._acks,
            reader=self.reader,
            clock=clock,
            limits=self.limits,
            counters=self.counters,
            tracer=tracer,
            trail=self.trail,
            verify=verify,
            catch_up_slots=asyncio.Semaphore(_CATCH_UPS_AT_ONCE),
            token_warning_ms=token_warning_ms,
        )

    async def start(self) -> None:
        """Begins to serve sessions."""
        await self.leases.start()
        await self.bus.start()
        self.hub.start()
        self.router.nodes_changed()
        if self._intents is not None and self._takeover is not None:
            self._intents.start()
            self._takeover.start()

    def offer_home(self, willing: bool) -> None:
        """Whether this node is to be the home of logs, for others and for itself. It is at first, if it has an
        address.
        """
        if not willing:
            self.leases.announce(replace(self.leases.node, address=""))
        elif self._address and not self.hub.draining:
            self.leases.announce(replace(self.leases.node, address=self._address))
        self.router.nodes_changed()

    async def witness(self, frame: bytes) -> bytes:
        """What this node knows of a message that an operator has asked another node about. Raises ValueError when it is
        no question, DomainError and StoreUnavailable.
        """
        return answer(await self._admin.witness(read_question(frame, self.reader)))

    async def verify(self, token: str) -> Principal:
        """Who a token stands for. Raises DomainError."""
        return await self._verify(token)

    def open_session(self, principal: Principal, sink: Sink) -> Session:
        """A session for a connected device. It is live once the device has said hello."""
        session_id = uuid7(self.clock.now_ms(), self._rng)
        return Session(session_id, principal, sink, self._services)

    def announce_drain(self, spread_ms: int) -> None:
        """Takes no new sessions, and tells every device to connect again after a delay of its own,
        at most `spread_ms`.
        """
        self.hub.drain()
        self.draining.set()
        self.offer_home(False)
        for session in self.hub.sessions:
            session.going_away(self._rng.randint(0, max(spread_ms, 0)))

    async def stop(self, grace_s: float = 5.0) -> None:
        """Finishes the commands under way, ends the sessions and writes what is gathered.

        What is not finished within the grace period is told that its outcome is unknown.
        """
        problem = DomainError(Reason.DRAINING, "The server stops; connect again.")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self.handlers.close()
                await self.router.drain()
                await self.sequencer.drain()
        self.router.close()
        await self.sequencer.close()
        sessions = self.hub.sessions
        for session in sessions:
            session.end(problem, reconnect=True)
        if sessions:
            await asyncio.wait([s.ended for s in sessions], timeout=2)
        for session in sessions:
            session.close()
        await self._acks.close()
        await self.presence.close()
        if self._takeover is not None:
            await self._takeover.stop()
        await self.leases.stop()
        await self.hub.stop()
        await self.bus.stop()
        if self._intents is not None:
            await self._intents.stop()

    def _nodes_changed(self) -> None:
        self.router.nodes_changed()
        nodes = frozenset(self.leases.nodes())
        gone, self._nodes = self._nodes - nodes, nodes
        if gone:
            log.info("nodes_gone", nodes=sorted(gone))
            if self._takeover is not None:
                self._takeover.look_soon()

    def _published(self, name: str, page: Page, span: Span | None) -> None:
        self.trail.committed(name, page)
        if span is not None:
            step = self.tracer.child(span, "publish")
            self.bus.publish(PagePublished(name, page))
            self.tracer.end(step)
            delivery = self.tracer.child(span, "delivery")
            task = asyncio.get_running_loop().create_task(self._traced(name, delivery))
            self._tracing.add(task)
            task.add_done_callback(self._tracing.discard)
            return
        self.bus.publish(PagePublished(name, page))

    async def _traced(self, name: str, delivery: Span) -> None:
        """Ends the span of a delivery when the frames were written to those connected here."""
        sessions = self.hub.joined(name)
        self.tracer.set(delivery, "sessions", len(sessions))
        if sessions:
            await asyncio.wait(
                [asyncio.ensure_future(s.outbox.finish()) for s in sessions], timeout=10
            )
        self.tracer.end(delivery)


def _asking(ask: Callable[[NodeInfo, bytes], Awaitable[bytes]]) -> Ask:
    async def asked(node: NodeInfo, command: a.ExplainDelivery) -> a.DeliveryExplained:
        return read_answer(await ask(node, question(command)))

    return asked
