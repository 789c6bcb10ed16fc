"""TLS to Redis: the bus and the leases over it, and servers that are not believed.

The server of the tests speaks no TLS itself: what it says goes through an end of TLS of the tests' own.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.bus_contract import Listener, until
from tests.contract.leases_contract import until_online
from tests.contract.samples import LOG, page
from tests.integration.certificates import Authority
from tidings_server.bus.base import PagePublished
from tidings_server.bus.redis import RedisBus
from tidings_server.presence.base import NodeInfo
from tidings_server.presence.redis import RedisLeases
from tidings_server.redis_options import RedisOptions
from tools.stack.redis import HOST, RedisServer


class TlsEnd:
    """Takes TLS of clients that have a certificate, and passes on what they say."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._to = port
        self._context = context
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> TlsEnd:
        self._server = await asyncio.start_server(self._accept, HOST, 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for pipe in list(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection(HOST, self._to)
        for source, target in ((reader, to_redis), (from_redis, writer)):
            pipe = asyncio.create_task(_pipe(source, target))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)


async def _pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()
    except (ConnectionError, ssl.SSLError):
        pass
    finally:
        target.transport.abort()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
async def end(
    tmp_path: Path, authority: Authority, redis_server: RedisServer
) -> AsyncIterator[TlsEnd]:
    """TLS 1.2 or newer, in front of a Redis."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("redis"))
    context.load_verify_locations(authority.path)
    context.verify_mode = ssl.CERT_REQUIRED
    end = await TlsEnd(redis_server.port, context).start()
    yield end
    await end.stop()


async def test_bus_and_leases_over_tls(end: TlsEnd, authority: Authority) -> None:
    certificate, key = authority.issue("node")
    options = RedisOptions(
        hosts=((HOST, end.port),),
        namespace="tls",
        tls=True,
        tls_ca_file=authority.path,
        tls_cert_file=certificate,
        tls_key_file=key,
    )
    nodes = [Listener(RedisBus(options, random.Random(seed))) for seed in range(2)]
    for node in nodes:
        await node.bus.start()
        await node.bus.subscribe([LOG])
    nodes[0].bus.publish(PagePublished(LOG, page(1)))
    await until(lambda: all(node.pages() == [1] for node in nodes))
    leases = [RedisLeases(options, NodeInfo(name), random.Random(name)) for name in ("a", "b")]
    for lease in leases:
        await lease.start()
    leases[0].came("ann")
    await until_online(leases[1], {"ann"})
    for node in nodes:
        await node.bus.stop()
    for lease in leases:
        await lease.stop()


@pytest.mark.parametrize("wrong", ["authority", "name", "no certificate"])
async def test_who_is_not_believed(
    tmp_path: Path, end: TlsEnd, authority: Authority, wrong: str
) -> None:
    certificate, key = authority.issue("node")
    believed = Authority(tmp_path, "another") if wrong == "authority" else authority
    options = RedisOptions(
        hosts=(("localhost" if wrong == "name" else HOST, end.port),),
        namespace="tls",
        tls=True,
        tls_ca_file=believed.path,
        tls_cert_file=None if wrong == "no certificate" else certificate,
        tls_key_file=None if wrong == "no certificate" else key,
        connect_s=1,
    )
    node = Listener(RedisBus(options, random.Random(1)))
    node.bus.on_resync = lambda: pytest.fail("it was believed")
    await node.bus.start()
    bus = node.bus
    assert isinstance(bus, RedisBus)
    assert not bus.connects
    await bus.stop()
    leases = RedisLeases(options, NodeInfo("a"), random.Random(1))
    await leases.start()
    assert not leases.connected
    await leases.stop()


async def test_a_name_need_not_be_checked(end: TlsEnd, authority: Authority) -> None:
    certificate, key = authority.issue("node")
    options = RedisOptions(
        hosts=(("localhost", end.port),),
        namespace="tls",
        tls=True,
        tls_ca_file=authority.path,
        tls_cert_file=certificate,
        tls_key_file=key,
        tls_check_hostname=False,
    )
    bus = RedisBus(options, random.Random(1))
    await bus.start()
    assert bus.connected
    await bus.stop()
