"""The composition root: chooses the implementations, starts them in order, drains and stops
them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version

import structlog

from tidings_server.auth import TokenVerifier
from tidings_server.bridge.local import LocalUpstream
from tidings_server.bridge.server import BridgeServer
from tidings_server.bridging import make_bridge
from tidings_server.buses import Between, make_between
from tidings_server.config import Address, Settings
from tidings_server.core.clock import SystemClock
from tidings_server.core.ids import uuid7
from tidings_server.node import Node
from tidings_server.presence.base import NodeInfo
from tidings_server.rpc.certificate import Certificate
from tidings_server.rpc.engine import one_wake_up
from tidings_server.rpc.nodes import NodeLinks, NodeSecurity, NodeServer
from tidings_server.rpc.server import RpcServer
from tidings_server.storage.base import Store, StoreUnavailable, Trouble
from tidings_server.store_readings import readings
from tidings_server.stores import make_store
from tidings_server.telemetry.counters import Counters
from tidings_server.telemetry.endpoint import Endpoint
from tidings_server.telemetry.metrics import Metrics
from tidings_server.telemetry.traces import OtelTracer, otlp_processor
from tidings_server.telemetry.tracing import NO_TRACER, Tracer

log = structlog.get_logger(__name__)

# The store's thread and the event loop hand the interpreter back and forth: the default of 5 ms
# would make each wait for the other.
_SWITCH_INTERVAL_S = 0.0005
# So many new objects make the collector look for cycles among the youngest.
_COLLECT_AT = 20_000
_CHECK_EVERY_S = 5.0
_CHECK_WITHIN_S = 10.0


@dataclass(slots=True)
class Readiness:
    """Why clients should not come here, or nothing when they should. Read by the metrics thread."""

    phase: str = "starting: the store is being opened"
    """What keeps the server from serving at all; empty while it serves."""
    store: str = "starting: the store was not tried yet"
    """What is wrong with the store; empty while it can be written to."""

    @property
    def why_not(self) -> str:
        """The reason in a line, without text of a driver; empty when everything that is needed works."""
        return self.phase or self.store


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs."""

    node: Node
    port: int
    http_port: int | None
    metrics_port: int | None


async def run(
    settings: Settings, *, started: Callable[[Running], Awaitable[None]] | None = None
) -> int:
    """Serves until SIGTERM or SIGINT, then drains. Returns the exit code.

    `started` is called once clients can connect. Raises OSError when an address can't be had,
    StoreUnavailable, StoreCorrupt, BusUnusable and KeysUnusable.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with one_wake_up():
        async with serving(settings) as running:
            if started is not None:
                await started(running)
            await stop.wait()
    return 0


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Running]:
    """A running server; leaving the context drains and stops it. See `run`."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    clock, rng = SystemClock(), random.SystemRandom()
    counters, readiness = Counters(), Readiness()
    async with AsyncExitStack() as stack:
        verifier = TokenVerifier(settings.auth.policy(), clock)
        await verifier.prepare()
        store = make_store(settings, lambda: uuid7(clock.now_ms(), rng))
        tracer = _tracer(settings, clock, rng, stack)
        others = _other_nodes(settings)
        between = make_between(settings, _this_node(settings, clock, rng, others), rng)
        # Before the store is opened, which may wait for a cluster: whoever asks meanwhile is told so.
        metrics_port = _metrics(settings, counters, store, between, clock, readiness, stack)
        await store.open()
        stack.push_async_callback(store.close)
        readiness.phase = "starting: the node joins the others"
        node = Node(
            store,
            between.bus,
            clock,
            random.Random(rng.getrandbits(128)),
            verifier.verify,
            limits=settings.limits.as_limits(),
            counters=counters,
            tracer=tracer,
            token_warning_ms=int(settings.auth.token_warning_s * 1000),
            leases=between.leases,
            dial=None if others is None else others.links,
            ask=None if others is None else others.links.ask,
        )
        server = RpcServer(node, settings.grpc.listen, _certificate(settings))
        bridge = None
        if settings.bridge.enabled:
            bridge = make_bridge(
                settings, LocalUpstream(node, server.operations), lambda: readiness.why_not
            )
        if others is not None:
            # Before others hear of it.
            await others.server.start(node.host, node.witness)
            stack.push_async_callback(others.server.stop)
        await node.start()
        await server.start()
        if bridge is not None:
            await bridge.start()
        readiness.phase = ""
        watching = (
            asyncio.create_task(_watch_store(store, node, server, readiness)),
            asyncio.create_task(_watch_drain(node, server, readiness)),
        )
        # What is there now stays: the collector needs not look at it again. What comes is seldom part of a cycle, and
        # one big account makes thousands of objects at once.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_AT)
        http_port = None if bridge is None else bridge.port
        log.info("serving", grpc_port=server.port, http_port=http_port, metrics_port=metrics_port)
        try:
            yield Running(node, server.port, http_port, metrics_port)
        finally:
            for watch in watching:
                watch.cancel()
            readiness.phase = "draining: this server is about to stop"
            await _drain(settings, node, server, bridge)


async def _drain(
    settings: Settings, node: Node, server: RpcServer, bridge: BridgeServer | None
) -> None:
    """Sends the clients away, finishes what was begun, and stops."""
    log.info("draining", sessions=node.counters.sessions)
    await server.set_serving(False)
    # Whoever sends clients here is to know before they leave, or they would come again.
    await asyncio.sleep(settings.drain.notice_s)
    spread, grace = settings.drain.delay_spread_s, settings.drain.grace_s
    node.announce_drain(int(spread * 1000))
    loop = asyncio.get_running_loop()
    deadline = loop.time() + spread
    # Only at the end of a process: not worth an event that sessions would have to set.
    while node.counters.sessions and loop.time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await node.stop()
    if bridge is not None:
        await bridge.stop()
    await server.stop(grace)
    log.info("stopped")


async def _watch_drain(node: Node, server: RpcServer, readiness: Readiness) -> None:
    """Nobody is to come here once an operator drains the node, which goes on for whoever stays."""
    await node.draining.wait()
    log.info("draining", sessions=node.counters.sessions)
    readiness.phase = "draining: an operator has taken this server out of service"
    await server.set_serving(False)


async def _watch_store(store: Store, node: Node, server: RpcServer, readiness: Readiness) -> None:
    """Keeps readiness true: a node that can't write is no place to go to, nor the home of any log."""
    told = True
    while True:
        try:
            async with asyncio.timeout(_CHECK_WITHIN_S):
                await store.check()
            trouble = None
        except StoreUnavailable as problem:
            trouble = problem.trouble
            log.warning("store_not_usable", cause=str(problem))
        except TimeoutError:
            trouble = Trouble.SLOW
            log.warning("store_not_usable", cause="a check was not answered")
        except Exception:
            # Looking must go on: what is told of readiness would never change again.
            trouble = Trouble.OTHER
            log.exception("store_check_failed")
        readiness.store = "" if trouble is None else f"store: {trouble.value}"
        if told != (trouble is None):
            told = trouble is None
            node.offer_home(told)
            await server.set_serving(told and not node.draining.is_set())
        await asyncio.sleep(_CHECK_EVERY_S)


def _certificate(settings: Settings) -> Certificate | None:
    cert_file, key_file = settings.grpc.tls_cert_file, settings.grpc.tls_key_file
    if cert_file is None or key_file is None:
        return None
    return Certificate(cert_file, key_file)


@dataclass(frozen=True, slots=True)
class _OtherNodes:
    """How other nodes reach this one, and this one them."""

    server: NodeServer
    links: NodeLinks


def _other_nodes(settings: Settings) -> _OtherNodes | None:
    """None for a node that is alone, or that could not know others from strangers."""
    nodes = settings.nodes
    if settings.bus.kind == "local":
        return None
    if not nodes.trusted:
        log.warning(
            "nodes_append_by_themselves", cause="neither nodes.key nor certificates are set"
        )
        return None
    security = NodeSecurity(
        key=nodes.key.get_secret_value() if nodes.key is not None else "",
        ca_file=nodes.tls_ca_file,
        cert_file=nodes.tls_cert_file,
        key_file=nodes.tls_key_file,
        server_name=nodes.tls_server_name or "",
    )
    return _OtherNodes(NodeServer(nodes.listen, security), NodeLinks(security))


def _this_node(
    settings: Settings, clock: SystemClock, rng: random.Random, others: _OtherNodes | None
) -> NodeInfo:
    address = ""
    if others is not None:
        host = Address.parse(settings.nodes.listen).host
        address = settings.nodes.advertise or str(Address(host, others.server.port))
    return NodeInfo(uuid7(clock.now_ms(), rng), address, version("tidings-server"))


def _tracer(
    settings: Settings, clock: SystemClock, rng: random.Random, stack: AsyncExitStack
) -> Tracer:
    otel = settings.otel
    if otel.otlp_endpoint is None:
        return NO_TRACER
    tracer = OtelTracer(
        otlp_processor(otel.otlp_endpoint),
        ratio=otel.sample_ratio,
        rng=rng,
        clock=clock,
        service_name=otel.service_name,
    )
    stack.callback(tracer.stop)
    return tracer


def _metrics(
    settings: Settings,
    counters: Counters,
    store: Store,
    between: Between,
    clock: SystemClock,
    readiness: Readiness,
    stack: AsyncExitStack,
) -> int | None:
    metrics = Metrics(
        counters,
        clock,
        service_name=settings.otel.service_name,
        readings=[*readings(store), *between.readings],
        otlp_endpoint=settings.otel.otlp_endpoint,
        otlp_interval_s=settings.otel.metrics_interval_s,
    )
    stack.callback(metrics.stop)
    if not settings.metrics.enabled:
        return None
    address = Address.parse(settings.metrics.listen)
    endpoint = Endpoint(
        address.host,
        address.port,
        metrics.registry,
        healthy=lambda: True,
        not_ready=lambda: readiness.why_not,
    )
    stack.callback(endpoint.stop)
    return endpoint.port
