"""Two server processes on one Cassandra and one Redis: people on both, while nodes and Redis die and come back."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.faults.check import invariants
from tests.faults.person import Person
from tests.integration.processes import ServerProcess
from tests.integration.test_admin import Operator
from tests.integration.wire import PATIENCE_S, new_id, until
from tidings.v1 import admin_service_pb2 as pb
from tidings_server.core.principal import ADMIN_SCOPE
from tools.stack.cassandra import CassandraNodes
from tools.stack.proxy import Proxy
from tools.stack.redis import RedisServer

LEASE_S = 2


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of Redis of its own, that may be killed."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    yield server.start()
    server.stop()


def settings_of(cassandra: CassandraNodes, redis_port: int) -> dict[str, str]:
    return {
        "STORE__KIND": "scylla",
        "SCYLLA__HOSTS": cassandra.hosts[0],
        "SCYLLA__PORT": str(cassandra.port),
        "SCYLLA__KEYSPACE": "two_nodes",
        "SCYLLA__REPLICATION": "1",
        "SCYLLA__REQUEST_TIMEOUT_S": "30",
        "BUS__KIND": "redis",
        "REDIS__HOSTS": f"127.0.0.1:{redis_port}",
        "REDIS__LEASE_S": str(LEASE_S),
        "REDIS__SILENCE_S": "1",
        "NODES__KEY": "a key that all nodes of the tests share",
    }


@pytest.fixture
async def nodes(
    tmp_path: Path, cassandra: CassandraNodes, redis: RedisServer
) -> AsyncIterator[list[ServerProcess]]:
    settings = settings_of(cassandra, redis.port)
    both = [ServerProcess(tmp_path, prefix=(), **settings) for _ in range(2)]
    for node in both:
        await node.start()
    yield both
    for node in both:
        await node.close()


async def test_what_is_said_on_one_node_is_heard_on_the_other(nodes: list[ServerProcess]) -> None:
    one, other = nodes
    bob = await other.connect("bob").open()
    # A conversation that begins while he is connected elsewhere.
    log = await one.caller("alice").group("bob")
    alice = await one.connect("alice").open()
    await bob.until(lambda: bob.applied(log) == 1)
    await one.caller("alice").post(log, "from here")
    await bob.until(lambda: bob.applied(log) == 2)
    await other.caller("bob").post(log, "from there")
    await alice.until(lambda: alice.applied(log) == 3)
    # Who is removed there hears no more here.
    await one.caller("alice").remove(log, "bob")
    await one.caller("alice").post(log, "behind his back")
    await alice.until(lambda: alice.applied(log) == 5)
    await bob.until(lambda: bob.applied(log) == 4)
    assert bob.ended is None


async def test_an_operator_asks_one_node_what_became_of_a_message_at_the_other(
    nodes: list[ServerProcess],
) -> None:
    one, other = nodes
    bob = await other.connect("bob").open()
    log = await one.caller("alice").group("bob")
    message_id = new_id()
    await one.caller("alice").post(log, "from here", change_id=message_id)
    await bob.until(lambda: bob.applied(log) == 2)
    asked = pb.ExplainDeliveryRequest(conversation_id=log, message_id=message_id, user_id="bob")
    operators = [Operator(node.address, ADMIN_SCOPE) for node in nodes]

    async def explained(operator: Operator) -> pb.ExplainDeliveryResponse:
        # On a busy machine a node may take longer than is waited for.
        async with asyncio.timeout(PATIENCE_S):
            while True:
                told: pb.ExplainDeliveryResponse = await operator.ask("ExplainDelivery", asked)
                if not [f for f in told.facts if f.cause == pb.FACT_CAUSE_OTHER_NODE]:
                    return told

    named = [await explained(operator) for operator in operators]
    (session,) = (await operators[1].ask("ListSessions", pb.ListSessionsRequest())).sessions
    for told in named:
        # Whichever is asked, it tells what both remember.
        assert told.outcome in (pb.DELIVERY_OUTCOME_SENT, pb.DELIVERY_OUTCOME_DELIVERED)
        facts = {f.step: f for f in told.facts}
        assert facts[pb.DELIVERY_STEP_COMMITTED].state == pb.FACT_STATE_YES
        assert facts[pb.DELIVERY_STEP_WRITTEN].state == pb.FACT_STATE_YES
        assert session.node_id == facts[pb.DELIVERY_STEP_WRITTEN].node_id
    assert {told.node_id for told in named} > {session.node_id}
    await one.kill()
    # Of what the dead one alone remembered it says that it doesn't know.
    told = await operators[1].ask("ExplainDelivery", asked)
    assert told.outcome in (pb.DELIVERY_OUTCOME_SENT, pb.DELIVERY_OUTCOME_DELIVERED)
    assert {f.step: f for f in told.facts}[pb.DELIVERY_STEP_COMMITTED].state == pb.FACT_STATE_YES
    for operator in operators:
        await operator.channel.close()


@pytest.fixture
async def between(redis: RedisServer) -> AsyncIterator[Proxy]:
    """What one node reaches Redis through."""
    proxy = Proxy(redis.port)
    await proxy.start()
    yield proxy
    await proxy.stop()


@pytest.fixture
async def one_behind(
    tmp_path: Path, cassandra: CassandraNodes, redis: RedisServer, between: Proxy
) -> AsyncIterator[list[ServerProcess]]:
    """Two nodes, of which the first reaches Redis through a proxy. Each appends by itself."""
    both = []
    for port in (between.port, redis.port):
        settings = settings_of(cassandra, port)
        del settings["NODES__KEY"]
        both.append(ServerProcess(tmp_path, prefix=(), **settings))
    for node in both:
        await node.start()
    yield both
    for node in both:
        await node.close()


async def test_a_node_dies_between_a_commit_and_its_publication_and_nobody_says_more(
    one_behind: list[ServerProcess], between: Proxy
) -> None:
    one, other = one_behind
    tag = new_id()[-8:]
    bob = await other.connect(f"bob-{tag}").open()
    log = await one.caller(f"alice-{tag}").group(f"bob-{tag}")
    await one.caller(f"alice-{tag}").post(log, "published")
    await bob.until(lambda: bob.applied(log) == 2)
    # From now on nothing of the first node reaches Redis.
    between.passing = False
    assert await one.caller(f"alice-{tag}").post(log, "acknowledged, and nobody knows") == 3
    await one.kill()
    assert bob.applied(log) == 2
    await bob.until(lambda: bob.applied(log) == 3)
    # He was told of this log, and did not have to look at all of his.
    await other.logged("node_taken_over")
    assert bob.ended is None


async def test_a_node_that_redis_has_lost_goes_on_and_dies_and_nobody_says_more(
    one_behind: list[ServerProcess], between: Proxy
) -> None:
    one, other = one_behind
    tag = new_id()[-8:]
    bob = await other.connect(f"bob-{tag}").open()
    alice = one.caller(f"alice-{tag}")
    log = await alice.group(f"bob-{tag}")
    await bob.until(lambda: bob.applied(log) == 1)
    # Only its link to Redis is cut, for longer than its lease: for the other it has died.
    between.passing = False
    between.cut()
    await other.logged("node_taken_over")
    assert await alice.post(log, "cut off, and at work") == 2
    await bob.until(lambda: bob.applied(log) == 2)
    # Somebody who never was in a conversation with anybody here.
    carol = await other.connect(f"carol-{tag}").open()
    room = await alice.group(f"carol-{tag}")
    assert await alice.post(room, "the first that she hears of") == 2
    assert await alice.post(log, "acknowledged, and nobody knows") == 3
    await one.kill()
    await bob.until(lambda: bob.applied(log) == 3)
    await carol.until(lambda: carol.applied(room) == 2)
    assert (bob.ended, carol.ended) == (None, None)


class Crowd:
    """People on two nodes who talk in shared conversations."""

    def __init__(self, nodes: list[ServerProcess]) -> None:
        self.nodes = nodes
        self.people: list[Person] = []
        self.logs: list[str] = []
        self.up = [True, True]

    async def gather(self) -> None:
        # The store is shared by the tests: everybody is somebody new.
        tag = new_id()[-8:]
        users = [f"{name}-{tag}" for name in ("alice", "bob", "carol", "dave")]
        caller = self.nodes[0].caller(users[0])
        self.logs = [await caller.group(*users[1:]) for _ in range(2)]
        self.people = [
            Person(user, lambda at=at: self._address(at), self.logs)  # type: ignore[misc]
            for at, user in enumerate(users)
        ]
        # A device that is new gets the newest messages only.
        await until(lambda: all(p.level(dict.fromkeys(self.logs, 1)) for p in self.people))

    def _address(self, at: int) -> str:
        """Everybody's own node, or the other while that is down."""
        first = at % 2
        for number in (first, 1 - first):
            if self.up[number]:
                return self.nodes[number].address
        return ""

    def talk(self, rng: random.Random, count: int) -> None:
        for _ in range(count):
            rng.choice(self.people).post(rng.choice(self.logs))

    async def settled(self) -> None:
        """Everything is sent, everybody has all: without anybody having to write once more."""
        await until(lambda: not any(p.waiting for p in self.people), 60)
        heads = {
            log: 1 + sum(post.log == log for p in self.people for post in p.posts)
            for log in self.logs
        }
        await until(lambda: all(p.level(heads) for p in self.people), 60)
        node = self.nodes[self.up.index(True)]
        await invariants(self.people, node.caller(self.people[0].user), self.logs)

    async def stop(self) -> None:
        for person in self.people:
            await person.stop()


@pytest.fixture
async def crowd(nodes: list[ServerProcess]) -> AsyncIterator[Crowd]:
    crowd = Crowd(nodes)
    await crowd.gather()
    yield crowd
    await crowd.stop()


async def test_all_write_to_the_same_conversations_from_both_nodes(crowd: Crowd) -> None:
    rng = random.Random(1)
    for _ in range(10):
        crowd.talk(rng, 20)
        await asyncio.sleep(0.05)
    await crowd.settled()


async def test_a_node_is_killed_and_comes_back(crowd: Crowd) -> None:
    rng = random.Random(2)
    crowd.talk(rng, 60)
    await asyncio.sleep(0.2)
    await crowd.nodes[0].kill()
    crowd.up[0] = False
    crowd.talk(rng, 60)
    await crowd.settled()
    await crowd.nodes[0].start()
    crowd.up[0] = True
    crowd.talk(rng, 60)
    await crowd.settled()


async def test_a_node_drains_under_load(crowd: Crowd) -> None:
    rng = random.Random(3)
    crowd.talk(rng, 60)
    await asyncio.sleep(0.2)
    crowd.nodes[1].signal(signal.SIGTERM)
    crowd.up[1] = False
    crowd.talk(rng, 60)
    assert await crowd.nodes[1].ended() == 0
    await crowd.settled()


async def test_redis_is_killed_and_comes_back(crowd: Crowd, redis: RedisServer) -> None:
    rng = random.Random(4)
    crowd.talk(rng, 40)
    await asyncio.sleep(0.1)
    redis.kill()
    # What is written now is durable, and heard on the own node only.
    crowd.talk(rng, 40)
    await until(lambda: not any(p.waiting for p in crowd.people), 60)
    redis.start()
    # Nobody says anything more: the nodes look at the heads by themselves.
    await crowd.settled()
    crowd.talk(rng, 40)
    await crowd.settled()


async def test_a_node_stands_still(crowd: Crowd) -> None:
    rng = random.Random(5)
    crowd.talk(rng, 40)
    await asyncio.sleep(0.1)
    crowd.nodes[0].signal(signal.SIGSTOP)
    crowd.talk(rng, 40)
    # For longer than its lease, and until the other knows of that.
    await crowd.nodes[1].logged("nodes_gone")
    crowd.nodes[0].signal(signal.SIGCONT)
    await crowd.settled()
