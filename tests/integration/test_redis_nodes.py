"""Two whole nodes over one store and a real Redis, with real streams: messages cross, whatever becomes of Redis."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.integration.conftest import Serve, Served
from tests.integration.wire import POLICY, Caller, new_id
from tidings.v1 import presence_service_pb2
from tidings_server.app import Running
from tidings_server.auth import TokenVerifier
from tidings_server.bus.redis import RedisBus
from tidings_server.core.clock import SystemClock
from tidings_server.node import Node
from tidings_server.presence import service
from tidings_server.presence.base import NodeInfo
from tidings_server.presence.redis import RedisLeases
from tidings_server.redis_options import RedisOptions
from tidings_server.rpc.server import RpcServer
from tidings_server.storage.memory import MemoryDisk, MemoryStore
from tools.stack.redis import HOST, RedisServer


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, that it may ruin."""
    server = RedisServer(tmp_path / "redis").start()
    yield server
    server.stop()


@pytest.fixture
async def nodes(redis: RedisServer) -> AsyncIterator[list[Served]]:
    options = RedisOptions(hosts=((HOST, redis.port),), silence_s=1, connect_s=1)
    disk, clock = MemoryDisk(), SystemClock()
    async with AsyncExitStack() as stack:
        made = []
        for name in ("one", "two"):
            store = MemoryStore(disk, new_id=new_id, shared=True)
            await store.open()
            stack.push_async_callback(store.close)
            rng = random.Random(name)
            leases = RedisLeases(options, NodeInfo(name), rng, lease_s=1)
            node = Node(
                store,
                RedisBus(options, rng),
                clock,
                rng,
                TokenVerifier(POLICY, clock).verify,
                leases=leases,
            )
            server = RpcServer(node, "127.0.0.1:0")
            await node.start()
            await server.start()
            stack.push_async_callback(server.stop, 1)
            stack.push_async_callback(node.stop)
            clients = await stack.enter_async_context(AsyncExitStack())
            made.append(Served(Running(node, server.port, None, None), clients))
        yield made


async def kill(redis: RedisServer) -> None:
    redis.kill()
    await asyncio.sleep(0.3)
    await asyncio.to_thread(redis.start)


async def freeze(redis: RedisServer) -> None:
    redis.signal(signal.SIGSTOP)
    await asyncio.sleep(2.5)
    redis.signal(signal.SIGCONT)


async def flush(redis: RedisServer) -> None:
    redis.client.flushall()


async def cut(redis: RedisServer) -> None:
    for client in redis.client.client_list():
        redis.client.client_kill_filter(_id=client["id"], skipme=True)


async def nothing(redis: RedisServer) -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize("fault", [nothing, kill, freeze, flush, cut])
async def test_messages_cross(
    redis: RedisServer, nodes: list[Served], fault: Callable[[RedisServer], Awaitable[None]]
) -> None:
    one, two = nodes
    log = await one.caller("alice").group("bob", "carol")
    devices = [
        await one.device("alice"),
        await two.device("bob"),
        await two.device("carol"),
        await one.device("carol", "tablet"),
    ]
    texts = [f"message {i}" for i in range(60)]
    texts[20] = "x" * 12_000
    faulty: asyncio.Future[None] | None = None
    for i, text in enumerate(texts):
        if i == 15:
            faulty = asyncio.ensure_future(fault(redis))
        await devices[i % 2].post(log, text)
        await asyncio.sleep(0.005)
    for device in devices:
        await device.level(log, len(texts) + 1)
        assert device.texts(log) == texts
    assert faulty is not None
    await faulty


async def test_a_conversation_made_elsewhere_and_a_removal(nodes: list[Served]) -> None:
    one, two = nodes
    bob = await two.device("bob")
    alice = one.caller("alice")
    log = await alice.group("bob")
    await alice.post(log, "hello")
    await bob.level(log, 2)
    removed = await alice.remove(log, "bob")
    await bob.level(log, removed)
    await alice.post(log, "a secret")
    other = await alice.direct("bob")
    await alice.post(other, "bye")
    await bob.level(other, 2)
    assert bob.texts(log) == ["hello"]


async def test_who_is_online_elsewhere(
    nodes: list[Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "GRACE_S", 0.1)
    one, two = nodes
    alice = one.caller("alice")
    await alice.direct("bob")
    assert not await online(alice, "bob")
    bob = await two.device("bob")
    await until_presence(alice, "bob", expected=True)
    await bob.close()
    await until_presence(alice, "bob", expected=False)


@pytest.mark.parametrize("there", [True, False])
async def test_a_server_by_its_settings(serve: Serve, redis: RedisServer, there: bool) -> None:
    """With a Redis or without, it serves its own clients and says how it stands with the bus."""
    if not there:
        redis.kill()
    server = await serve(
        bus={"kind": "redis"},
        redis={"hosts": f"{HOST}:{redis.port}", "namespace": "settings"},
        metrics={"enabled": True, "listen": "127.0.0.1:0"},
    )
    alice, bob = await server.device("alice"), await server.device("bob")
    log = await server.caller("alice").group("bob")
    await alice.post(log, "hello")
    await bob.level(log, 2)
    (node,) = server.node.leases.nodes().values()
    assert node.version
    url = f"http://127.0.0.1:{server.running.metrics_port}/metrics"
    text = (await asyncio.to_thread(urllib.request.urlopen, url)).read().decode()
    for name in ("bus", "leases"):
        (line,) = re.findall(rf"^tidings_{name}_connected.* (\S+)$", text, re.MULTILINE)
        assert float(line) == there
    if there:
        assert int(redis.client.ttl("settings:on:bob")) > 0


async def online(caller: Caller, user: str) -> bool:
    request = presence_service_pb2.GetPresenceRequest(user_ids=[user])
    answer = await caller.presence.GetPresence(request, metadata=caller.metadata)
    (found,) = answer.presences
    return bool(found.online)


async def until_presence(caller: Caller, user: str, *, expected: bool) -> None:
    async with asyncio.timeout(20):
        while await online(caller, user) is not expected:  # noqa: ASYNC110  # it is polled
            await asyncio.sleep(0.02)
