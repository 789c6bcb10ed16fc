"""The bus over a real Redis that is killed, stopped, flushed and cut off: receivers become level without another
publication, subscribing ends, memory stays bounded.
"""

from __future__ import annotations

import asyncio
import random
import re
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.bus_contract import until
from tests.contract.samples import page
from tidings_server.bus.base import (
    HeadPublished,
    NoticePublished,
    PagePublished,
    Publication,
)
from tidings_server.bus.redis import RedisBus, publisher
from tidings_server.presence.base import NodeInfo
from tidings_server.presence.redis import RedisLeases
from tidings_server.redis_options import RedisOptions
from tools.stack.proxy import Proxy
from tools.stack.redis import HOST, RedisCluster, RedisServer

SILENCE_S = 1.0
DOCUMENT = Path(__file__).parents[2] / "docs" / "redis.md"
LOGS = tuple(f"log-{i}" for i in range(30))


class Truth:
    """What is stored: how far each log goes."""

    def __init__(self) -> None:
        self.heads = dict.fromkeys(LOGS, 0)


class Receiver:
    """A node whose sessions go by the rules: what comes next is taken, a gap or a pointer is read from the log."""

    def __init__(self, options: RedisOptions, truth: Truth, seed: int) -> None:
        self.truth = truth
        self.bus = RedisBus(options, random.Random(seed))
        self.at = dict.fromkeys(LOGS, 0)
        self.pushed = self.read = self.resyncs = 0
        self.bus.on_publication = self._take
        self.bus.on_resync = self._resync

    @property
    def level(self) -> bool:
        return self.at == self.truth.heads

    def append(self, log: str, count: int = 1, body: bytes = b"text") -> None:
        """Stores a page and publishes it."""
        first = self.truth.heads[log] + 1
        self.truth.heads[log] += count
        self.bus.publish(PagePublished(log, page(first, count, body=body)))

    def _take(self, publication: Publication) -> None:
        if isinstance(publication, NoticePublished):
            return
        at = self.at[publication.log]
        if isinstance(publication, HeadPublished):
            if publication.seq > at:
                self._read(publication.log)
        elif publication.page.first_seq == at + 1:
            self.pushed += 1
            self.at[publication.log] = publication.page.last_seq
        elif publication.page.last_seq > at:
            self._read(publication.log)

    def _read(self, log: str) -> None:
        self.read += 1
        self.at[log] = self.truth.heads[log]

    def _resync(self) -> None:
        self.resyncs += 1
        for log in LOGS:
            self._read(log)


Start = Callable[[], Awaitable[Receiver]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, that it may ruin."""
    server = RedisServer(tmp_path / "redis").start()
    yield server
    server.stop()


@pytest.fixture
async def node(server: RedisServer) -> AsyncIterator[Start]:
    """Starts nodes."""
    truth, started = Truth(), list[Receiver]()
    options = RedisOptions(hosts=((HOST, server.port),), silence_s=SILENCE_S, connect_s=SILENCE_S)

    async def start() -> Receiver:
        receiver = Receiver(options, truth, len(started))
        await receiver.bus.start()
        started.append(receiver)
        await receiver.bus.subscribe(LOGS)
        return receiver

    yield start
    for receiver in started:
        await receiver.bus.stop()


async def restart(server: RedisServer) -> None:
    server.kill()
    await asyncio.sleep(0.3)
    await asyncio.to_thread(server.start)


async def freeze_for_long(server: RedisServer) -> None:
    server.signal(signal.SIGSTOP)
    await asyncio.sleep(2.5 * SILENCE_S)
    server.signal(signal.SIGCONT)


async def freeze_for_a_moment(server: RedisServer) -> None:
    server.signal(signal.SIGSTOP)
    await asyncio.sleep(SILENCE_S / 4)
    server.signal(signal.SIGCONT)


async def flush(server: RedisServer) -> None:
    server.client.flushall()
    await asyncio.sleep(0.1)


def kill_clients(server: RedisServer, *, subscribers: bool) -> int:
    killed = 0
    for client in server.client.client_list():
        if client["name"].endswith("-bus") and subscribers == (client["sub"] != "0"):
            killed += server.client.client_kill_filter(_id=client["id"])
    return killed


async def cut_subscribers(server: RedisServer) -> None:
    for _ in range(3):
        await asyncio.to_thread(kill_clients, server, subscribers=True)
        await asyncio.sleep(0.1)


async def cut_publishers(server: RedisServer) -> None:
    killed = 0
    async with asyncio.timeout(20):
        while killed < 6:
            killed += await asyncio.to_thread(kill_clients, server, subscribers=False)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "fault",
    [restart, freeze_for_long, freeze_for_a_moment, flush, cut_subscribers, cut_publishers],
)
async def test_receivers_become_level(
    server: RedisServer, node: Start, fault: Callable[[RedisServer], Awaitable[None]]
) -> None:
    nodes = [await node(), await node(), await node()]
    rng = random.Random(1)
    done = False

    async def write() -> None:
        while not done:
            for _ in range(20):
                body = b"x" * (20_000 if rng.random() < 0.05 else 200)
                nodes[rng.randrange(2)].append(rng.choice(LOGS), rng.randint(1, 3), body)
            await asyncio.sleep(0.002)

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.2)
    before = [n.resyncs for n in nodes]
    await fault(server)
    await asyncio.sleep(0.05)
    done = True
    await writing
    # Nothing is published any more.
    await until(lambda: all(n.level for n in nodes))
    assert all(n.pushed > 20 for n in nodes)
    if fault in {restart, freeze_for_long, cut_subscribers}:
        assert all(n.resyncs > b for n, b in zip(nodes, before, strict=True))
    if fault in {flush, cut_publishers}:
        assert [n.resyncs for n in nodes] == before, "nobody's subscriptions were lost"
    # And it is as before.
    for log in LOGS:
        nodes[0].append(log)
    await until(lambda: all(n.level for n in nodes))


async def test_a_last_page_before_silence_is_made_good(server: RedisServer, node: Start) -> None:
    """Only the writer's link is cut, with a page under way that never arrives, and nothing else is published."""
    reader = await node()
    proxy = Proxy(server.port)
    await proxy.start()
    options = RedisOptions(hosts=((HOST, proxy.port),), silence_s=SILENCE_S)
    writer = Receiver(options, reader.truth, 9)
    await writer.bus.start()
    await writer.bus.subscribe(LOGS)
    proxy.passing = False
    writer.append(LOGS[3])
    await until(lambda: proxy.holding)
    proxy.passing = True
    proxy.cut()
    await until(lambda: reader.level)
    assert (reader.pushed, reader.read, reader.resyncs) == (0, 1, 0)
    # A link over which answers don't come any more is given up.
    proxy.answering = False
    writer.append(LOGS[4])
    await until(lambda: writer.bus.counts.sent.owed == 2)
    proxy.answering = True
    await until(lambda: writer.bus.connected and not writer.bus.owed_logs)
    await writer.bus.stop()
    await proxy.stop()


async def test_what_redis_has_not_taken_is_known(server: RedisServer, node: Start) -> None:
    """Over a link that carries nothing, then over none, then over one that loses answers, and at the end."""
    reader = await node()
    proxy = Proxy(server.port)
    await proxy.start()
    options = RedisOptions(hosts=((HOST, proxy.port),), silence_s=SILENCE_S, connect_s=SILENCE_S)
    writer = Receiver(options, reader.truth, 9)
    bus = writer.bus
    await bus.start()
    writer.append(LOGS[0])
    first = bus.mark()
    await until(lambda: bus.taken(first))
    proxy.passing = False
    writer.append(LOGS[1])
    held = bus.mark()
    await until(lambda: proxy.holding)
    assert bus.taken(first)
    assert not bus.taken(held)
    # The link is given up, and the pages that were on it are owed, with what comes later to the same log.
    await until(lambda: bus.owed_logs)
    writer.append(LOGS[1])
    later = bus.mark()
    assert not bus.taken(held)
    proxy.passing = True
    proxy.cut()
    await until(lambda: bus.taken(later))
    await until(lambda: reader.level)
    assert bus.taken(held)
    # Redis has it and can't say so: it goes out again.
    proxy.answering = False
    writer.append(LOGS[2])
    unsure = bus.mark()
    await until(lambda: reader.level)
    assert not bus.taken(unsure)
    proxy.answering = True
    await until(lambda: bus.taken(unsure))
    # At the end of the node it is too late for what can't be sent, and for what comes after.
    proxy.passing = False
    writer.append(LOGS[3])
    last = bus.mark()
    await bus.stop()
    assert not bus.taken(last)
    assert bus.taken(unsure)
    writer.append(LOGS[4])
    assert not bus.taken(unsure), "a page came when nothing was carried any more"
    await proxy.stop()


async def test_subscribing_ends_though_redis_is_away(server: RedisServer, node: Start) -> None:
    writer, reader = await node(), await node()
    reader.bus.unsubscribe(LOGS)
    await asyncio.sleep(0.1)
    server.signal(signal.SIGSTOP)
    async with asyncio.timeout(10):
        await reader.bus.subscribe(LOGS)
    assert reader.bus.counts.unconfirmed == 1
    for log in LOGS:
        writer.append(log)
    assert not reader.level
    server.signal(signal.SIGCONT)
    await until(lambda: reader.level)
    server.kill()
    async with asyncio.timeout(10):
        await reader.bus.subscribe(["another"])
    await until(lambda: not reader.bus.connected)
    writer.append(LOGS[0])
    await asyncio.to_thread(server.start)
    await until(lambda: reader.level)


async def test_a_node_starts_without_redis(server: RedisServer, node: Start) -> None:
    server.kill()
    async with asyncio.timeout(10):
        nodes = [await node(), await node()]
    nodes[0].append(LOGS[0])
    assert nodes[0].level, "those at this node need no Redis"
    await asyncio.to_thread(server.start)
    await until(lambda: all(n.level for n in nodes))


@pytest.mark.parametrize("away", ["frozen", "killed"])
async def test_memory_stays_bounded(server: RedisServer, node: Start, away: str) -> None:
    writer, reader = await node(), await node()
    if away == "frozen":
        server.signal(signal.SIGSTOP)
    else:
        server.kill()
    largest = 0
    for i in range(20_000):
        writer.append(LOGS[i % len(LOGS)], body=b"x" * 4000)
        writer.bus.publish(NoticePublished(LOGS[0], b"x" * 4000))
        if i % 100 == 0:
            await asyncio.sleep(0)
        largest = max(largest, writer.bus.waiting_bytes)
    assert largest < publisher.WAITING_BYTES + publisher.UNDER_WAY_BYTES + 10_000
    assert writer.bus.owed_logs <= len(LOGS)
    assert writer.bus.counts.sent.dropped > 10_000
    if away == "frozen":
        server.signal(signal.SIGCONT)
    else:
        await asyncio.to_thread(server.start)
    await until(lambda: reader.level)
    await until(lambda: not writer.bus.waiting_bytes)


async def test_owing_too_much_makes_all_nodes_look(
    server: RedisServer, node: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "OWED_LOGS", 10)
    nodes = [await node(), await node(), await node()]
    await asyncio.to_thread(kill_clients, server, subscribers=False)
    await until(lambda: not nodes[0].bus.connected)
    for log in LOGS:
        nodes[0].append(log)
    assert nodes[0].bus.owed_logs <= 11
    assert not nodes[0].bus.taken(1)
    await until(lambda: all(n.level for n in nodes))
    await until(lambda: nodes[0].bus.taken(nodes[0].bus.mark()))
    assert nodes[1].resyncs == nodes[2].resyncs == 1


async def test_frames_of_other_versions_are_passed_over(server: RedisServer, node: Start) -> None:
    reader = await node()
    channel = f"tidings:{LOGS[0]}"
    strange = [
        b"",
        b"\x01",
        b"\x02\x01\x00\x0c" + b"o" * 8 + b"newer",
        b"\x01\x63\x00\x0c" + b"o" * 8,
    ]
    for frame in strange:
        server.client.publish(channel, frame)
    await until(lambda: reader.bus.counts.unknown_frames == len(strange))
    # A page of a newer node, whose head has grown by two bytes.
    head = b"\x01\x03\x00\x16" + b"o" * 8 + (7).to_bytes(8, "big") + b"??"
    reader.truth.heads[LOGS[0]] = 7
    server.client.publish(channel, head)
    await until(lambda: reader.level)
    assert reader.bus.connected


async def test_passwords_and_rights(tmp_path: Path) -> None:
    """A login with no more rights than the documentation asks for will do."""
    server = RedisServer(tmp_path, password="right").start()
    try:
        (rights,) = re.findall(r"^\+hello .*$", DOCUMENT.read_text("utf-8"), re.MULTILINE)
        keys = ("~{tidings}:*", "~tidings:on:*", "~tidings:at:*", "&tidings:*")
        acl = ("SETUSER", "node", "on", ">of", *keys, *rights.split())
        server.client.execute_command("ACL", *acl)
        for user, password in ((None, "right"), ("node", "of")):
            options = RedisOptions(hosts=((HOST, server.port),), username=user, password=password)
            truth = Truth()
            one, two = Receiver(options, truth, 1), Receiver(options, truth, 2)
            leases = RedisLeases(options, NodeInfo("one"), random.Random(3))
            server.client.zadd("{tidings}:nodes", {"gone": 1})
            server.client.sadd("tidings:at:gone", "bob")
            await leases.start()
            assert leases.connected
            leases.came("ann")
            await until(lambda: not server.client.exists("tidings:at:gone", "{tidings}:ended"))
            await until(lambda: server.client.exists("tidings:on:ann"))
            for receiver in (one, two):
                await receiver.bus.start()
                await receiver.bus.subscribe(LOGS)
            one.append(LOGS[0])
            await until(lambda: two.level)  # noqa: B023  # it is waited for within the turn
            assert await leases.online(["ann", "bob"]) == {"ann"}
            for receiver in (one, two):
                await receiver.bus.stop()
            await leases.stop()
            server.client.flushall()
        wrong = Receiver(RedisOptions(hosts=((HOST, server.port),), password="wrong"), Truth(), 3)
        await wrong.bus.start()
        assert not wrong.bus.connected
        await wrong.bus.stop()
        refused = server.client.acl_log()
        assert {entry["reason"] for entry in refused} == {"auth"}, refused
    finally:
        server.stop()


async def test_a_slot_that_moves_takes_its_channels_along(tmp_path: Path) -> None:
    cluster = RedisCluster(tmp_path).start()
    try:
        truth = Truth()
        options = RedisOptions(hosts=((HOST, cluster.servers[0].port),), cluster=True)
        one, two = Receiver(options, truth, 1), Receiver(options, truth, 2)
        for receiver in (one, two):
            await receiver.bus.start()
            await receiver.bus.subscribe(LOGS)
        client = cluster.servers[0].client
        slot = client.execute_command("CLUSTER", "KEYSLOT", f"tidings:{LOGS[0]}")
        at = slot * 3 // 16384
        await asyncio.to_thread(
            cluster.move_slot, slot, cluster.servers[at], cluster.servers[(at + 1) % 3]
        )
        for _ in range(5):
            for log in LOGS:
                one.append(log)
            await asyncio.sleep(0.02)
        await until(lambda: one.level and two.level)
        await until(lambda: one.bus.connected and two.bus.connected)
        pushed = two.pushed
        # It settles: then pages come as they are again.
        async with asyncio.timeout(20):
            while two.pushed < pushed + 2:
                one.append(LOGS[0])
                await asyncio.sleep(0.1)
        for receiver in (one, two):
            await receiver.bus.stop()
    finally:
        cluster.stop()


async def test_what_waits_for_a_server_that_is_none_goes_to_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the nodes knew of the cluster is old, and where they look, something takes connections and is silent."""
    cluster = RedisCluster(tmp_path).start()
    silent = socket.create_server((HOST, 0))
    try:
        truth = Truth()
        options = RedisOptions(hosts=((HOST, cluster.servers[0].port),), cluster=True)
        one, two = Receiver(options, truth, 1), Receiver(options, truth, 2)
        for receiver in (one, two):
            await receiver.bus.start()
        await two.bus.subscribe(LOGS)
        address = (HOST, silent.getsockname()[1])
        with monkeypatch.context() as patch:
            patch.setattr(one.bus._topology, "address_of", lambda _: address)
            one.append(LOGS[0])
        assert not two.level
        assert not one.bus.taken(one.bus.mark())
        one.bus._move()
        await until(lambda: two.level)
        await until(lambda: one.bus.taken(one.bus.mark()))
        for receiver in (one, two):
            await receiver.bus.stop()
    finally:
        silent.close()
        cluster.stop()


async def test_a_server_of_a_cluster_that_dies_and_comes_back(tmp_path: Path) -> None:
    cluster = RedisCluster(tmp_path).start()
    try:
        truth = Truth()
        options = RedisOptions(hosts=((HOST, cluster.servers[0].port),), cluster=True)
        one, two = Receiver(options, truth, 1), Receiver(options, truth, 2)
        for receiver in (one, two):
            await receiver.bus.start()
            await receiver.bus.subscribe(LOGS)
        cluster.servers[1].kill()
        for log in LOGS:
            one.append(log)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(cluster.servers[1].start)
        await until(lambda: one.level and two.level)
        for receiver in (one, two):
            await receiver.bus.stop()
    finally:
        cluster.stop()


async def test_a_fault_of_the_node_ends_no_link(
    node: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await node(), await node()
    faults = 2
    links = (*one.bus._subscribers.values(), *one.bus._publishers.values())
    for link in links:
        up = link.up

        def broken(up: Callable[[], None] = up) -> None:
            nonlocal faults
            if faults:
                faults -= 1
                raise KeyError("a bug")
            up()

        monkeypatch.setattr(link, "up", broken)
        assert link.connection is not None
        link.connection.abort()
    await until(lambda: not faults and one.bus.connected)
    two.append(LOGS[0])
    one.append(LOGS[1])
    await until(lambda: one.level and two.level)
