"""The composition root of the bridge: the one in a server, and the one that is a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable

import structlog

from tidings_server.bridge.certificate import ServerCertificate
from tidings_server.bridge.remote import RemoteUpstream
from tidings_server.bridge.server import BridgeOptions, BridgeServer
from tidings_server.bridge.upstream import Upstream
from tidings_server.config import Address, Settings
from tidings_server.rpc.engine import one_wake_up

log = structlog.get_logger(__name__)


def make_bridge(
    settings: Settings, upstream: Upstream, not_ready: Callable[[], str]
) -> BridgeServer:
    """A bridge that listens, and does not serve yet. Raises OSError when the address can't be had."""
    given = settings.bridge
    certificate = None
    if given.tls_cert_file is not None and given.tls_key_file is not None:
        certificate = ServerCertificate(given.tls_cert_file, given.tls_key_file)
    address = Address.parse(given.listen)
    return BridgeServer(
        address.host,
        address.port,
        upstream,
        BridgeOptions(
            max_frame_bytes=settings.limits.max_frame_bytes,
            allowed_origins=given.origin_list(),
            ping_interval_s=given.ping_interval_s,
            max_connections=given.max_connections,
            connects_a_second=given.connects_a_second,
            connects_at_once=given.connects_at_once,
            behind_proxy=given.behind_proxy,
        ),
        not_ready=not_ready,
        certificate=certificate,
    )


async def run(settings: Settings) -> int:
    """A bridge as a process of its own, until SIGTERM or SIGINT. Returns the exit code. Raises OSError."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with one_wake_up():
        async with bridging(settings):
            await stop.wait()
    return 0


@contextlib.asynccontextmanager
async def bridging(settings: Settings) -> AsyncIterator[BridgeServer]:
    """A bridge to the servers of `bridge.servers`; leaving the context sends the clients away. Raises OSError."""
    given = settings.bridge
    authorities = None
    if given.servers_tls_ca_file is not None:
        authorities = given.servers_tls_ca_file.read_bytes()
    upstream = RemoteUpstream(given.server_list(), tls=given.servers_tls, authorities=authorities)
    draining = False

    def not_ready() -> str:
        if draining:
            return "draining: this bridge is about to stop"
        return "" if upstream.reachable else "no server can be reached"

    bridge = make_bridge(settings, upstream, not_ready)
    await bridge.start()
    log.info("bridging", http_port=bridge.port, servers=list(given.server_list()))
    try:
        yield bridge
    finally:
        draining = True
        await asyncio.sleep(settings.drain.notice_s)
        await bridge.stop(settings.drain.delay_spread_s)
        await upstream.close()
        log.info("stopped")
