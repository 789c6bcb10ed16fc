"""Synchronising and the window: nothing falls between what is caught up and what is live, and what waits is bounded."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from tests.unit.devices import level
from tests.unit.world import HOUR_MS, World, settled, until
from tidings.v1 import chat_service_pb2, error_pb2, event_pb2
from tidings_server.core.ids import inbox_log
from tidings_server.core.limits import Limits
from tidings_server.storage.memory import Fate, Happens

pytestmark = pytest.mark.virtual_time

Command = chat_service_pb2.Command
Entries = list[event_pb2.Event]


# Synchronising


async def test_what_happens_during_a_sync_is_not_lost(world: World, log: str) -> None:
    for method in ("user_logs", "heads", "memberships_of", "cursors"):
        world.script.always[method] = Fate(before=0.05, after=0.05)
    bob = world.device("bob")
    await bob.hello(synced=False)
    made: list[str] = []
    for i in range(30):
        await world.post(log, "alice", str(i))
        if i % 10 == 5:
            made.append(await world.group("alice", "bob"))
        await asyncio.sleep(0.02)
    await until(lambda: bob.of("sync_complete"))
    await level(bob, log, 31)
    for other in made:
        await world.post(other, "alice")
        await level(bob, other, 2)


async def test_a_store_that_fails_only_delays_a_sync(world: World, log: str) -> None:
    world.script.plan("user_logs", Happens.REFUSED)
    world.script.plan("memberships_of", Happens.REFUSED, Happens.REFUSED)
    bob = world.device("bob")
    with capture_logs() as logs:
        await bob.hello()
    assert [line["event"] for line in logs] == ["sync_waits"] * 3
    await level(bob, log, 1)


async def test_a_store_that_fails_only_delays_catching_up(world: World, log: str) -> None:
    for i in range(5):
        await world.post(log, "alice", str(i))
    await world.restart()
    world.script.plan("read", Happens.REFUSED, Happens.REFUSED)
    bob = world.device("bob")
    with capture_logs() as logs:
        await bob.hello()
    assert {line["event"] for line in logs} == {"catch_up_waits"}
    await level(bob, log, 6)


async def test_a_new_device_gets_the_newest_of_the_most_recent() -> None:
    world = await World(
        limits=Limits(new_device_messages=5, new_device_conversations=2, catch_up_limit=1000)
    ).start()
    logs = [await world.group("alice", "bob") for _ in range(4)]
    for log in logs:
        for i in range(10):
            await world.post(log, "alice", str(i))
        world.clock.step(1000)
    bob = world.device("bob")
    await bob.hello()
    for log in logs:
        assert bob.applied(log) == 11
    assert [bob.seqs(log) for log in logs] == [[], [], [7, 8, 9, 10, 11], [7, 8, 9, 10, 11]]
    assert bob.applied(inbox_log("bob")) == 4
    assert len(bob.seqs(inbox_log("bob"))) == 4
    # What was left out can be had, and what comes is live.
    await world.post(logs[0], "alice", "new")
    await level(bob, logs[0], 12)
    await world.stop()


async def test_a_backlog_over_the_limit_is_a_gap(world: World, log: str) -> None:
    for i in range(30):
        await world.post(log, "alice", str(i))
    bob = world.device("bob")
    await bob.hello({log: 5}, catch_up_limit=10)
    assert bob.applied(log, 5) == 31
    assert [(g.gap.from_seq, g.gap.to_seq) for g in bob.of("gap")] == [(6, 21)]
    assert bob.seqs(log) == list(range(22, 32))


async def test_the_acknowledgement_of_a_gap_is_remembered(world: World, log: str) -> None:
    for i in range(30):
        await world.post(log, "alice", str(i))
    bob = world.device("bob")
    await bob.hello({log: 5}, catch_up_limit=10)
    bob.send(acks=[(log, 21)])
    bob.session.close()
    again = world.device("bob")
    await again.hello()
    assert again.seqs(log) == list(range(22, 32))


async def test_cursors_that_a_device_names(world: World, log: str) -> None:
    for i in range(5):
        await world.post(log, "alice", str(i))
    bob = world.device("bob")
    await bob.hello({log: 4, inbox_log("bob"): 1})
    assert bob.seqs(log) == [5, 6]
    assert not bob.seqs(inbox_log("bob"))


@pytest.mark.parametrize("restart", [False, True])
async def test_cursors_that_the_server_remembers(world: World, log: str, restart: bool) -> None:
    for i in range(5):
        await world.post(log, "alice", str(i))
    bob = world.device("bob")
    await bob.hello()
    bob.send(acks=[(log, 4), (inbox_log("bob"), 1)])
    bob.session.close()
    if restart:
        await world.restart()
    again = world.device("bob")
    await again.hello()
    assert again.seqs(log) == [5, 6]
    other = world.device("bob", "tablet")
    await other.hello()
    assert other.seqs(log) == [1, 2, 3, 4, 5, 6]


async def test_cursors_that_are_refused(world: World, log: str) -> None:
    foreign = await world.group("carol", "dave")
    await world.remove(log, "bob", "bob")
    mine = await world.group("alice", "bob")
    await world.post(log, "alice", "bob does not see it")
    bob = world.device("bob")
    nowhere = world.new_id()
    cursors = {foreign: 1, log: 4, mine: 9, "x": 1, inbox_log("alice"): 1, nowhere: 4}
    await bob.hello({**cursors, inbox_log("bob"): 1})
    (result,) = bob.results()
    refused = {
        r.conversation_id: (r.seq, error_pb2.ErrorReason.Name(r.error.reason)[13:], r.error.field)
        for r in result.hello.refused_cursors
    }
    absent = (0, "CONVERSATION_NOT_FOUND", "hello.cursors.conversation_id")
    assert refused == {
        foreign: absent,
        nowhere: absent,
        # What a removed user may not see is not there.
        log: (2, "POSITION_AHEAD", "hello.cursors.seq"),
        mine: (1, "POSITION_AHEAD", "hello.cursors.seq"),
        "x": (0, "INVALID_FIELD", "hello.cursors.conversation_id"),
        inbox_log("alice"): (0, "INVALID_FIELD", "hello.cursors.conversation_id"),
    }
    await world.post(mine, "alice", "live")
    await level(bob, mine, 2, start=1)


async def test_a_restored_store(world: World, log: str) -> None:
    """What was lost is not skipped: positions are given anew, and the device starts where both histories agree."""
    await world.post(log, "alice", "kept")
    backup = world.disk.backup()
    before = world.store.incarnation
    for i in range(5):
        await world.post(log, "alice", f"lost {i}")
    restored = await World(disk=backup).start()
    restored.clock.step(HOUR_MS)
    for i in range(3):
        await restored.post(log, "alice", f"new {i}")
    bob = restored.device("bob")
    await bob.hello({log: 7, inbox_log("bob"): 1}, incarnation=before)
    assert bob.events[0].welcome.incarnation_changed
    (refused,) = bob.results()[0].hello.refused_cursors
    assert (refused.conversation_id, refused.seq) == (log, 2)
    assert bob.applied(log, 2) == 5
    assert [e.entry.message.text for e in bob.of("entry")] == ["new 0", "new 1", "new 2"]
    # A history that this one shares nothing with.
    carol = restored.device("alice")
    await carol.hello({log: 3}, incarnation="another")
    (refused,) = carol.results()[0].hello.refused_cursors
    assert (refused.conversation_id, refused.seq) == (log, 0)
    assert carol.applied(log) == 5
    await restored.stop()


# The window


async def test_a_device_that_does_not_acknowledge(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello(window=10)
    entries = len(bob.of("entry"))
    for i in range(30):
        await world.post(log, "alice", str(i))
    await settled()
    assert len(bob.of("entry")) == 10
    assert entries == 2
    bob.send(acks=[(log, 4)])
    await settled()
    assert len(bob.of("entry")) == 14
    bob.send(acks=[(log, 1000), ("unknown", 7), (log, -5), (log, 2)])
    await settled()
    # Beyond what was sent counts as what was sent.
    assert bob.applied(log) == 22
    bob.send(acks=[(log, bob.applied(log)), (inbox_log("bob"), 1)])
    await level(bob, log, 31)


async def test_a_page_larger_than_the_window_is_cut(world: World, log: str) -> None:
    alice, bob = world.device("alice"), world.device("bob")
    await alice.hello()
    await bob.hello({log: 1, inbox_log("bob"): 1}, window=3)
    for i in range(20):
        alice.post(log, str(i))
    await level(alice, log, 21)
    got = 1
    while got < 21:
        await settled()
        assert bob.applied(log, 1) == min(got + 3, 21)
        got = bob.applied(log, 1)
        bob.send(acks=[(log, got)])


async def test_a_window_shared_by_many_logs(world: World) -> None:
    logs = [await world.group("alice", "bob") for _ in range(5)]
    bob = world.device("bob")
    await bob.hello({inbox_log("bob"): 5, **dict.fromkeys(logs, 1)}, window=7)
    for i in range(20):
        for log in logs:
            await world.post(log, "alice", str(i))
    done = dict.fromkeys(logs, 1)
    while min(done.values()) < 21:
        await settled()
        flying = [bob.applied(log, 1) - done[log] for log in logs]
        assert 0 < sum(flying) <= 7
        # Acknowledged in whatever order.
        done = {log: bob.applied(log, 1) for log in logs}
        bob.send(acks=list(reversed(done.items())))


async def test_a_device_that_does_not_read_does_not_grow_the_server() -> None:
    limits = Limits(outbox_bytes=262_144)
    world = await World(limits=limits).start()
    log = await world.group("alice", "bob")
    bob = world.device("bob")
    await bob.hello(window=8192)
    bob.stop_reading()
    largest = 0
    for i in range(200):
        await world.post(log, "alice", f"{i:05}" + "x" * 10_000)
        largest = max(largest, bob.session.outbox.bytes)
    assert 200_000 < largest <= limits.outbox_bytes
    assert world.node.counters.outbox_bytes == bob.session.outbox.bytes
    bob.read_on()
    await level(bob, log, 201)
    assert world.node.counters.outbox_overflows >= 1
    assert world.node.counters.outbox_bytes == 0
    await world.stop()


async def test_answers_that_are_not_read_stop_the_reading_of_commands(
    world: World, log: str
) -> None:
    bob = world.device("bob")
    await bob.hello()
    bob.stop_reading()
    frame = chat_service_pb2.ChatRequest(commands=[Command(command_id=7)] * 1000)
    raw = frame.SerializeToString()
    taken = 0
    while not bob.session.outbox.congested:
        bob.session.receive(raw)
        taken += 1
        await settled()
        assert taken < 100
    ready = asyncio.get_running_loop().create_task(bob.session.ready())
    await settled()
    assert not ready.done()
    assert bob.session.outbox.bytes < 2 * Limits().outbox_bytes
    bob.read_on()
    await until(ready.done)
    assert len(bob.results()) == 1 + 1000 * taken
