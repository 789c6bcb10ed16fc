"""Leases in a real Redis that is killed, stopped and flushed: who is online is told again, and who is not, is not."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.contract.leases_contract import until, until_online
from tidings_server.presence import redis as leases_in_redis
from tidings_server.presence.base import NodeInfo
from tidings_server.presence.redis import RedisLeases
from tidings_server.redis_options import RedisOptions
from tools.stack.redis import HOST, RedisServer

LEASE_S = 1.0
SILENCE_S = 1.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, that it may ruin."""
    server = RedisServer(tmp_path / "redis").start()
    yield server
    server.stop()


class Start(Protocol):
    async def __call__(self, name: str, *, lease_s: float = LEASE_S) -> RedisLeases: ...


@pytest.fixture
async def node(server: RedisServer) -> AsyncIterator[Start]:
    """Starts nodes."""
    started: list[RedisLeases] = []
    options = RedisOptions(hosts=((HOST, server.port),), silence_s=SILENCE_S, connect_s=SILENCE_S)

    async def start(name: str, *, lease_s: float = LEASE_S) -> RedisLeases:
        leases = RedisLeases(options, NodeInfo(name), random.Random(name), lease_s=lease_s)
        await leases.start()
        started.append(leases)
        return leases

    yield start
    for leases in started:
        await leases.stop()


async def flush(server: RedisServer) -> None:
    server.client.flushall()


async def restart(server: RedisServer) -> None:
    server.kill()
    await asyncio.sleep(0.3)
    await asyncio.to_thread(server.start)


async def freeze(server: RedisServer) -> None:
    server.signal(signal.SIGSTOP)
    await asyncio.sleep(2.5 * LEASE_S)
    server.signal(signal.SIGCONT)


async def cut(server: RedisServer) -> None:
    """Also those of the test itself."""
    for client in server.client.client_list():
        server.client.client_kill_filter(_id=client["id"], skipme=True)


@pytest.mark.parametrize("fault", [flush, restart, freeze, cut])
async def test_all_are_announced_again(
    server: RedisServer, node: Start, fault: Callable[[RedisServer], Awaitable[None]]
) -> None:
    # Nobody's lease is to run out while nothing but the content is gone.
    lease_s = 5 if fault is flush else LEASE_S
    one, two, three = [await node(name, lease_s=lease_s) for name in ("one", "two", "three")]
    users = {f"user-{i}" for i in range(700)}
    for user in users:
        two.came(user)
    two.came("leaves")
    await until_online(one, users | {"leaves"})
    await until(lambda: set(one.nodes()) == {"one", "two", "three"})
    seen: list[set[str]] = []
    one.nodes_changed = lambda: seen.append(set(one.nodes()))
    faulty = asyncio.ensure_future(fault(server))
    await asyncio.sleep(0.1)
    two.left("leaves")
    three.came("comes")
    await faulty
    await until_online(one, users | {"comes"}, *users, "comes", "leaves")
    await until_online(two, {"comes", "user-1"}, "comes", "leaves", "user-1")
    await until(lambda: set(one.nodes()) == {"one", "two", "three"})
    if fault is flush:
        assert all(nodes == {"one", "two", "three"} for nodes in seen), "they are kept for a lease"


async def test_what_was_saved_too_early_does_not_stick(server: RedisServer, node: Start) -> None:
    """A Redis that comes back with old content: who has left meanwhile is not online again.

    The leases are long: no lease has run out by then.
    """
    one, two = await node("one", lease_s=6), await node("two", lease_s=6)
    two.came("stays")
    two.came("leaves")
    await until_online(one, {"stays", "leaves"})
    server.client.save()
    two.left("leaves")
    await until_online(one, {"stays"}, "stays", "leaves")
    server.kill()
    await asyncio.to_thread(server.start)
    assert server.client.smembers("tidings:on:leaves"), "Redis holds it still"
    await until(lambda: one.counts.epochs == two.counts.epochs == 2)
    await until_online(one, {"stays"}, "stays", "leaves")
    renewals = one.counts.renewals
    await until(lambda: one.counts.renewals >= renewals + 3)
    assert await one.online(["stays", "leaves"]) == {"stays"}


async def test_a_node_that_dies_while_redis_is_flushed_is_gone_after_a_lease(
    server: RedisServer, node: Start
) -> None:
    one, two = await node("one"), await node("two")
    two.came("ann")
    await until_online(one, {"ann"})
    assert two._task is not None
    two._task.cancel()
    await flush(server)
    await until_online(one, set(), "ann")
    await until(lambda: set(one.nodes()) == {"one"})


async def test_a_dead_node_is_gone_after_a_lease_though_redis_clock_was_set_back(
    server: RedisServer, node: Start
) -> None:
    """What was written before that ends much later than a lease by the clock of now."""
    one, two = await node("one"), await node("two")
    two.came("ann")
    await until_online(one, {"ann"})
    assert two._task is not None
    two._task.cancel()
    await asyncio.wait([two._task])
    server.client.zincrby("{tidings}:nodes", 3_600_000, two._token)
    await until_online(one, set(), "ann")
    await until(lambda: set(one.nodes()) == {"one"})


async def test_a_node_that_stood_still_for_longer_than_its_lease(
    server: RedisServer, node: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await node("one"), await node("two")
    two.came("ann")
    await until_online(one, {"ann"})
    # As of a process that is stopped: its lease ends, and others strike it off.
    renew = RedisLeases._renew

    async def still(leases: RedisLeases) -> None:
        if leases is not two:
            await renew(leases)

    monkeypatch.setattr(RedisLeases, "_renew", still)
    await until_online(one, set(), "ann")
    await until(lambda: set(one.nodes()) == {"one"})
    monkeypatch.undo()
    await until_online(one, {"ann"})


async def test_a_node_knows_that_it_is_cut_off_before_others_end_for_it(
    server: RedisServer, node: Start
) -> None:
    one, two = await node("one"), await node("two")
    await until(lambda: set(one.nodes()) == set(two.nodes()) == {"one", "two"})
    assert one.informed
    gone: list[bool] = []
    one.nodes_changed = lambda: gone.append(one.informed)
    server.signal(signal.SIGSTOP)
    await until(lambda: set(one.nodes()) == {"one"})
    await until(lambda: gone)
    assert gone == [False]
    server.signal(signal.SIGCONT)
    await until(lambda: one.informed and set(one.nodes()) == {"one", "two"})


async def test_too_many_transitions_while_redis_is_away(
    server: RedisServer, node: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases_in_redis, "OWED_USERS", 100)
    one, two = await node("one"), await node("two")
    gone = [f"gone-{i}" for i in range(500)]
    for user in (*gone, "stays"):
        two.came(user)
    await until_online(one, {*gone, "stays"})
    server.signal(signal.SIGSTOP)
    for user in gone:
        two.left(user)
    assert two.owed_users < 400
    server.signal(signal.SIGCONT)
    await until_online(one, {"stays"}, *gone, "stays")


async def test_asking_ends_though_redis_is_away(server: RedisServer, node: Start) -> None:
    one = await node("one")
    one.came("mine")
    server.signal(signal.SIGSTOP)
    async with asyncio.timeout(10):
        assert await one.online(["mine", "other"]) == {"mine"}
    server.kill()
    await until(lambda: not one.connected)
    async with asyncio.timeout(10):
        assert await one.online(["mine", "other"]) == {"mine"}
        two = await node("two")
    assert set(two.nodes()) == {"two"}
    await asyncio.to_thread(server.start)
    await until(lambda: set(one.nodes()) == set(two.nodes()) == {"one", "two"})


async def test_a_lease_that_is_not_understood_is_passed_over(
    server: RedisServer, node: Start
) -> None:
    one = await node("one")
    for number, info in enumerate(("garbage", "[]", "\x00")):
        server.client.zadd("{tidings}:nodes", {f"token-{number}": 4e15})
        server.client.hset("{tidings}:info", f"token-{number}", info)
    renewals = one.counts.renewals
    await until(lambda: one.counts.renewals >= renewals + 3)
    two = await node("two")
    await until(lambda: set(one.nodes()) == set(two.nodes()) == {"one", "two"})


async def test_a_fault_of_this_node_ends_nothing(
    node: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await node("one")

    def deaf() -> None:
        raise KeyError("a bug")

    one.nodes_changed = deaf
    two = await node("two")
    await until(lambda: set(one.nodes()) == {"one", "two"})
    renew, faults = one._renew, 2

    async def broken() -> None:
        nonlocal faults
        if faults:
            faults -= 1
            raise KeyError("a bug")
        await renew()

    monkeypatch.setattr(one, "_renew", broken)
    renewals = one.counts.renewals
    await until(lambda: one.counts.renewals >= renewals + 3)
    one.came("ann")
    await until_online(two, {"ann"})


async def test_nothing_lasts_in_redis(server: RedisServer, node: Start) -> None:
    one = await node("one")
    one.came("ann")
    await until(lambda: server.client.exists("tidings:on:ann"))
    for key in server.client.keys("*"):
        assert server.client.ttl(key) > 0, key
