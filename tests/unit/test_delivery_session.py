"""Sessions and the hub: every device gets every entry that its user may see, in order, once, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from tests.unit.world import HOUR_MS, Device, World, settled, until
from tidings.v1 import chat_service_pb2, error_pb2, event_pb2, receipt_service_pb2
from tidings_server.bus.base import PagePublished, Publication
from tidings_server.codec.events import digest_of
from tidings_server.core import commands as c
from tidings_server.core.ids import inbox_log
from tidings_server.core.limits import Limits
from tidings_server.errors import DomainError, Reason
from tidings_server.messaging.log_state import LogView
from tidings_server.storage.memory import Fate, Happens

pytestmark = pytest.mark.virtual_time

Command = chat_service_pb2.Command
Entries = list[event_pb2.Event]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World().start()
    yield world
    await world.stop()


@pytest.fixture
async def log(world: World) -> str:
    return await world.group("alice", "bob")


async def level(device: Device, log: str, head: int, start: int = 0) -> None:
    """Waits until a device has got everything up to a position, in order."""
    await until(lambda: device.applied(log, start) >= head)
    assert device.applied(log, start) == head


def reasons(device: Device) -> dict[int, str]:
    """The reasons of the commands that failed, by their numbers."""
    return {
        r.command_id: error_pb2.ErrorReason.Name(r.error.reason).removeprefix("ERROR_REASON_")
        for r in device.results()
        if r.WhichOneof("outcome") == "error"
    }


# Hello


async def test_hello(world: World, log: str) -> None:
    await world.post(log, "alice", "one")
    device = world.device("bob")
    await device.hello()
    kinds = [e.WhichOneof("event") for e in device.events]
    assert kinds[0] == "welcome"
    assert kinds[-1] == "sync_complete"
    assert device.results()[0].HasField("hello")
    welcome = device.events[0].welcome
    assert (welcome.user_id, welcome.device_id) == ("bob", "phone")
    assert welcome.session_id == device.session.id
    assert welcome.server_time.ToMilliseconds() <= world.clock.now_ms()
    assert welcome.incarnation == world.store.incarnation
    assert not welcome.incarnation_changed
    assert welcome.limits.window == Limits().window
    assert device.of("sync_complete")[0].sync_complete.conversations == 2
    assert device.applied(log) == 2
    assert device.applied(inbox_log("bob")) == 1


async def test_somebody_new_has_an_empty_inbox(world: World) -> None:
    device = world.device("nobody")
    await device.hello()
    assert device.of("sync_complete")[0].sync_complete.conversations == 1
    log = await world.direct("alice", "nobody")
    await level(device, log, 1)


async def test_a_command_before_hello(world: World, log: str) -> None:
    device = world.device("bob")
    number, _ = device.post(log, "too early")
    await device.hello()
    again, _ = device.post(log, "now")
    assert (await device.result(again)).send_message.seq == 2
    assert reasons(device) == {number: "HELLO_EXPECTED"}
    assert world.texts(log) == ["now"]


async def test_hello_is_said_once(world: World, log: str) -> None:
    device = world.device("bob")
    await device.hello()
    await device.hello()
    await until(lambda: reasons(device) == {2: "HELLO_EXPECTED"})
    assert len(device.of("welcome")) == 1
    await world.post(log, "alice")
    await level(device, log, 2)


async def test_a_hello_that_is_refused_may_be_said_again(world: World) -> None:
    device = world.device("bob")
    await device.hello(window=-1, synced=False)
    await until(lambda: reasons(device) == {1: "INVALID_FIELD"})
    assert device.results()[0].error.field == "hello.window"
    await device.hello()


async def test_garbage_is_answered_and_forgotten(world: World, log: str) -> None:
    device = world.device("bob")
    device.session.receive(b"\xff\xff\xff")
    await device.hello()
    device.session.receive(b"x" * (Limits().max_frame_bytes + 1))
    number, _ = device.post(log, "fine")
    await device.result(number)
    assert [r.error.reason for r in device.results() if r.HasField("error")] == [
        error_pb2.ERROR_REASON_MALFORMED_FRAME,
        error_pb2.ERROR_REASON_TOO_LARGE,
    ]


# Live


async def test_a_message_reaches_every_member_and_nobody_else(world: World, log: str) -> None:
    alice, bob, tablet = world.device("alice"), world.device("bob"), world.device("bob", "tablet")
    carol = world.device("carol")
    for device in (alice, bob, tablet, carol):
        await device.hello()
    number, change = alice.post(log, "hello")
    for device in (alice, bob, tablet):
        await level(device, log, 2)
        (event,) = [e for e in device.of("entry") if e.entry.id == change]
        assert (event.entry.user_id, event.entry.message.text) == ("alice", "hello")
    assert (await alice.result(number)).send_message.seq == 2
    await settled()
    assert not carol.of("entry")


async def test_the_bytes_of_a_page_are_sent_as_they_are_stored(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    await world.post(log, "alice", "hello")
    await level(bob, log, 2)
    assert world.pages(log)[-1].body in bob.frames


async def test_a_conversation_that_one_is_added_to(world: World) -> None:
    bob = world.device("bob")
    await bob.hello()
    log = await world.group("alice", "carol")
    await world.post(log, "alice", "before")
    await world.add(log, "alice", "bob")
    await world.post(log, "carol", "after")
    await level(bob, log, 4)
    assert bob.seqs(log) == [3, 4]
    assert [(s.skipped.from_seq, s.skipped.to_seq) for s in bob.of("skipped")] == [(1, 2)]
    assert not bob.of("gap")


@pytest.mark.parametrize("count", [34, 80])
async def test_large_groups_are_told_together(world: World, count: int) -> None:
    log = await world.group("alice", *(f"user-{i}" for i in range(1, count)))
    devices = [world.device(f"user-{i}") for i in range(1, count)]
    for device in devices:
        await device.hello()
    frames = [len(d.frames) for d in devices]
    for i in range(5):
        await world.post(log, "alice", str(i))
    for device, before in zip(devices, frames, strict=True):
        await level(device, log, 6)
        assert len(device.frames) == before + 1, "what follows within 2 ms is one frame"


async def test_a_publication_that_is_lost_is_made_up_for(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    lose = True
    on_publication = world.node.bus.on_publication

    def lossy(publication: Publication) -> None:
        if not (lose and isinstance(publication, PagePublished) and publication.log == log):
            on_publication(publication)

    world.node.bus.on_publication = lossy
    await world.post(log, "alice", "lost")
    lose = False
    await settled()
    assert bob.applied(log) == 1
    await world.post(log, "alice", "seen")
    await level(bob, log, 3)


async def test_a_bus_that_was_renewed(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    on_publication, world.node.bus.on_publication = (
        world.node.bus.on_publication,
        lambda _: None,
    )
    await world.post(log, "alice", "lost")
    world.node.bus.on_publication = on_publication
    world.node.bus.on_resync()
    await level(bob, log, 2)


async def test_a_bus_that_was_renewed_during_a_sync(world: World, log: str) -> None:
    await world.post(log, "alice", "clears what is pending")
    world.script.always["memberships_of"] = Fate(before=0.2)
    bob = world.device("bob")
    await bob.hello(synced=False)
    # By now the heads are read, and no log is brought anywhere yet.
    await asyncio.sleep(0.1)
    on_publication, world.node.bus.on_publication = (
        world.node.bus.on_publication,
        lambda _: None,
    )
    await world.post(log, "alice", "lost")
    world.node.bus.on_publication = on_publication
    world.node.bus.on_resync()
    await level(bob, log, 3)


async def test_a_second_session_waits_for_the_subscription_of_the_first(
    world: World, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe, confirmed = world.node.bus.subscribe, asyncio.Event()

    async def slowly(logs: Iterable[str]) -> None:
        await confirmed.wait()
        await subscribe(logs)

    monkeypatch.setattr(world.node.bus, "subscribe", slowly)
    first, second = world.device("bob"), world.device("bob", "tablet")
    await first.hello(synced=False)
    await settled()
    await second.hello(synced=False)
    await settled()
    # Whose wish it was ends while the other waits.
    first.session.close()
    await world.post(log, "alice", "before anything is subscribed")
    confirmed.set()
    await level(second, log, 2)


async def test_a_removal_that_a_renewed_bus_lost(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    world.node.bus.on_publication, on_publication = (
        lambda _: None,
        world.node.bus.on_publication,
    )
    await world.post(log, "alice", "lost")
    # The heads are read again before the removal is stored, the membership after it.
    world.script.always["heads"] = Fate(after=0.2)
    world.node.bus.on_resync()
    await asyncio.sleep(0.1)
    await world.remove(log, "alice", "bob")
    world.node.bus.on_publication = on_publication
    await level(bob, log, 3)


async def test_a_view_that_is_behind_a_head_is_waited_for(
    world: World, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = world.device("bob")
    await bob.hello()
    await world.post(log, "alice", "seen")
    view, calls = world.node.sequencer.view, 0
    old = await view(log, "bob")

    async def behind(name: str, user: str) -> LogView:
        nonlocal calls
        calls += 1
        return old if calls <= 3 else await view(name, user)

    monkeypatch.setattr(world.node.sequencer, "view", behind)
    on_publication, world.node.bus.on_publication = (
        world.node.bus.on_publication,
        lambda _: None,
    )
    await world.post(log, "alice", "lost")
    world.node.bus.on_publication = on_publication
    with capture_logs() as logs:
        world.node.bus.on_resync()
        await level(bob, log, 3)
    assert [line["event"] for line in logs] == ["catch_up_waits"] * 3


async def test_pages_that_come_twice_or_late(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    await world.post(log, "alice", "1")
    await world.post(log, "alice", "2")
    for page in (*world.pages(log), *reversed(world.pages(log))):
        world.node.bus.on_publication(PagePublished(log, page))
    await world.post(log, "alice", "3")
    await level(bob, log, 4)


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


# Removal


async def removed_at(world: World, log: str, *, more: int = 5) -> int:
    """Removes bob; others go on."""
    seq = await world.remove(log, "alice", "bob")
    for i in range(more):
        await world.post(log, "alice", f"not for bob {i}")
    return seq


async def test_nothing_comes_after_a_removal(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    await world.post(log, "alice", "for bob")
    seq = await removed_at(world, log)
    await level(bob, log, seq)
    await settled()
    assert bob.seqs(log) == [1, 2, 3]
    assert bob.of("entry")[-2].entry.HasField("member_removed") or bob.of("entry")[
        -1
    ].entry.HasField("conversation_left")


async def test_nothing_comes_after_a_removal_to_a_device_that_lags(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello({log: 1, inbox_log("bob"): 1}, window=2)
    for i in range(10):
        await world.post(log, "alice", f"for bob {i}")
    seq = await removed_at(world, log)
    await settled()
    assert bob.applied(log, 1) == 3
    while bob.applied(log, 1) < seq:
        bob.send(acks=[(log, bob.applied(log, 1)), (inbox_log("bob"), 2)])
        await settled()
    for _ in range(5):
        bob.send(acks=[(log, seq), (inbox_log("bob"), 2)])
        await settled()
    assert bob.applied(log, 1) == seq
    assert bob.seqs(log)[-1] == seq


async def test_nothing_comes_after_a_removal_while_synchronising(world: World, log: str) -> None:
    for method in ("heads", "memberships_of", "cursors"):
        world.script.always[method] = Fate(before=0.1)
    bob = world.device("bob")
    await bob.hello(synced=False)
    await asyncio.sleep(0.15)
    seq = await removed_at(world, log)
    await until(lambda: bob.of("sync_complete"))
    await level(bob, log, seq)
    await removed_at(world, log)
    await settled()
    assert bob.seqs(log)[-1] == seq


async def test_nothing_comes_after_a_removal_while_offline(world: World, log: str) -> None:
    seq = await removed_at(world, log)
    bob = world.device("bob")
    await bob.hello()
    assert bob.applied(log) == seq
    assert bob.seqs(log) == [1, 2]


async def test_a_removed_user_hears_of_nobodys_receipts(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    await world.post(log, "alice")
    await world.remove(log, "alice", "bob")
    await world.post(log, "alice")
    await world.execute("alice", c.MarkRead(log, 4))
    await settled()
    assert not bob.of("receipt")


async def test_a_device_that_looks_back_at_a_stay_hears_of_no_receipts(
    world: World, log: str
) -> None:
    """It follows the conversation for a moment, until it is known that the stay is over."""
    await world.remove(log, "alice", "bob")
    await world.restart()
    await world.post(log, "alice")
    bob = world.device("bob")
    await bob.hello({log: 2}, synced=False)
    world.script.always["memberships"] = Fate(before=0.2)
    await until(lambda: bob.of("sync_complete"))
    await world.execute("alice", c.MarkRead(log, 3))
    await asyncio.sleep(1)
    assert not bob.of("receipt")


@pytest.mark.parametrize("lagging", [False, True])
async def test_who_comes_back_skips_what_was_between(world: World, log: str, lagging: bool) -> None:
    bob = world.device("bob")
    await bob.hello({log: 1, inbox_log("bob"): 1}, window=2 if lagging else 100)
    await world.post(log, "alice", "one")
    await world.post(log, "alice", "two")
    removed = await removed_at(world, log)
    back = await world.add(log, "alice", "bob")
    await world.post(log, "alice", "three")
    for _ in range(10):
        bob.send(acks=[(log, bob.applied(log, 1)), (inbox_log("bob"), 3)])
        await settled()
    await level(bob, log, back + 1, start=1)
    assert [(s.skipped.from_seq, s.skipped.to_seq) for s in bob.of("skipped")] == [
        (removed + 1, back - 1)
    ]
    # And it is live.
    await world.post(log, "alice", "four")
    bob.send(acks=[(log, bob.applied(log, 1)), (inbox_log("bob"), 3)])
    await level(bob, log, back + 2, start=1)
    assert [e.entry.seq for e in bob.of("entry") if "not for bob" in e.entry.message.text] == []


async def test_who_comes_back_during_a_sync(world: World, log: str) -> None:
    for method in ("heads", "memberships_of", "cursors"):
        world.script.always[method] = Fate(before=0.1)
    bob = world.device("bob")
    await bob.hello(synced=False)
    await asyncio.sleep(0.15)
    await removed_at(world, log)
    back = await world.add(log, "alice", "bob")
    await until(lambda: bob.of("sync_complete"))
    await settled()
    await world.post(log, "alice", "live")
    await level(bob, log, back + 1)


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.01, 0.02, 0.03, 0.05])
async def test_coming_and_going_quickly(world: World, log: str, delay: float) -> None:
    """However the reads of the store and the changes interleave, the device ends up level."""
    for method in ("memberships", "heads", "read", "user_logs", "memberships_of"):
        world.script.always[method] = Fate(before=0.013, after=0.007)
    bob = world.device("bob")
    await bob.hello(window=4, synced=False)

    async def change() -> None:
        for _ in range(6):
            await world.remove(log, "alice", "bob")
            await world.post(log, "alice", "hidden")
            await asyncio.sleep(delay)
            await world.add(log, "alice", "bob")
            await world.post(log, "alice", "shown")

    changing = asyncio.get_running_loop().create_task(change())
    while not changing.done():
        bob.send(acks=[(log, bob.applied(log)), (inbox_log("bob"), bob.applied("inbox:bob"))])
        await asyncio.sleep(0.01)
    await changing
    for _ in range(100):
        bob.send(acks=[(log, bob.applied(log)), (inbox_log("bob"), bob.applied("inbox:bob"))])
        await asyncio.sleep(0.05)
    seq = await world.post(log, "alice", "shown")
    await level(bob, log, seq)
    assert all(e.entry.message.text != "hidden" for e in bob.of("entry"))


# Receipts


async def test_receipts_of_small_groups_are_told(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    await world.post(log, "alice")
    await world.execute("alice", c.MarkRead(log, 2))
    await until(lambda: bob.of("receipt"))
    receipt = bob.of("receipt")[0].receipt
    assert (receipt.user_id, receipt.delivered_seq, receipt.read_seq) == ("alice", 2, 2)


async def test_acknowledging_marks_as_delivered(world: World, log: str) -> None:
    alice, bob = world.device("alice"), world.device("bob")
    await alice.hello()
    await bob.hello()
    await world.post(log, "alice")
    await level(bob, log, 2)
    bob.send(acks=[(log, 2)])
    await until(lambda: alice.of("receipt"))
    receipt = alice.of("receipt")[0].receipt
    assert (receipt.user_id, receipt.delivered_seq, receipt.read_seq) == ("bob", 2, 0)
    listed = await world.execute("alice", c.ListReceipts(log, 10, ""))
    assert isinstance(listed, c.ReceiptsListed)
    assert listed.marks == (c.ReceiptMarks("bob", 2, 0),)


async def test_acknowledging_marks_as_delivered_after_a_restart(world: World, log: str) -> None:
    await world.post(log, "alice")
    await world.restart()
    bob = world.device("bob")
    await bob.hello()
    bob.send(acks=[(log, 2)])
    await asyncio.sleep(2)
    listed = await world.execute("alice", c.ListReceipts(log, 10, ""))
    assert isinstance(listed, c.ReceiptsListed)
    assert listed.marks == (c.ReceiptMarks("bob", 2, 0),)


async def test_acknowledgements_are_gathered(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    before = world.script.calls["put_cursors"]
    for i in range(20):
        seq = await world.post(log, "alice", str(i))
        await level(bob, log, seq)
        bob.send(acks=[(log, seq)])
    await asyncio.sleep(2)
    assert world.script.calls["put_cursors"] == before + 1
    assert world.disk.cursors("bob", "phone")[log] == 21


async def test_acknowledgements_that_can_not_be_written_cost_nothing(
    world: World, log: str
) -> None:
    world.script.plan("put_cursors", Happens.REFUSED)
    bob = world.device("bob")
    await bob.hello()
    bob.send(acks=[(log, 1)])
    with capture_logs() as logs:
        await asyncio.sleep(2)
    assert [line["event"] for line in logs] == ["acks_not_written"]
    again = world.device("bob", "phone")
    await again.hello()
    assert again.applied(log) == 1


@pytest.mark.parametrize("refused", ["put_cursors", "put_receipts", "heads"])
async def test_a_delivered_mark_outlives_a_refusal_of_the_store(
    world: World, log: str, refused: str
) -> None:
    await world.post(log, "alice")
    await world.restart()
    bob = world.device("bob")
    await bob.hello()
    world.script.plan(refused, Happens.REFUSED)
    bob.send(acks=[(log, 2)])
    # The device has it, names it when it comes again, and so never acknowledges it again.
    await asyncio.sleep(10)
    listed = await world.execute("alice", c.ListReceipts(log, 10, ""))
    assert isinstance(listed, c.ReceiptsListed)
    assert listed.marks == (c.ReceiptMarks("bob", 2, 0),)
    assert world.disk.cursors("bob", "phone")[log] == 2


# Commands


async def test_too_many_commands_under_way() -> None:
    world = await World(limits=Limits(max_commands_in_flight=20)).start()
    log = await world.group("alice", "bob")
    alice = world.device("alice")
    await alice.hello()
    world.script.always["append"] = Fate(before=1)
    numbers = [alice.post(log, str(i))[0] for i in range(50)]
    await until(lambda: len(alice.results()) == 51)
    assert reasons(alice) == dict.fromkeys(numbers[20:], "TOO_MANY_IN_FLIGHT")
    assert world.texts(log) == [str(i) for i in range(20)]
    number, _ = alice.post(log, "there is room again")
    assert (await alice.result(number)).send_message.seq == 22
    await world.stop()


async def test_every_kind_of_command_has_its_result(world: World, log: str) -> None:
    alice = world.device("alice")
    await alice.hello()
    await world.post(log, "bob")
    new, other = world.new_id(), world.new_id()
    commands = {
        "mark_delivered": Command(
            mark_delivered=receipt_service_pb2.MarkDeliveredRequest(conversation_id=log, seq=2)
        ),
        "mark_read": Command(
            mark_read=receipt_service_pb2.MarkReadRequest(conversation_id=log, seq=2)
        ),
        "create_conversation": Command(),
        "add_members": Command(),
        "remove_member": Command(),
        "set_status": Command(),
        "refresh_token": Command(refresh_token=chat_service_pb2.RefreshToken(token="alice/phone")),
        "leave_conversation": Command(),
    }
    commands["create_conversation"].create_conversation.kind = 1  # type: ignore[assignment]
    commands["create_conversation"].create_conversation.user_ids.append("carol")
    commands["add_members"].add_members.conversation_id = log
    commands["add_members"].add_members.request_id = world.new_id()
    commands["add_members"].add_members.members.add(user_id="carol")
    commands["remove_member"].remove_member.conversation_id = log
    commands["remove_member"].remove_member.request_id = new
    commands["remove_member"].remove_member.user_id = "carol"
    commands["leave_conversation"].leave_conversation.conversation_id = log
    commands["leave_conversation"].leave_conversation.request_id = other
    commands["set_status"].set_status.status_text = "here"
    known = {f.name for f in Command.DESCRIPTOR.oneofs_by_name["command"].fields}
    assert set(commands) | {"hello", "send_message"} == known
    for name, command in commands.items():
        command.command_id = alice.number()
        alice.send(command)
        result = await alice.result(command.command_id)
        assert result.WhichOneof("outcome") == name


# Tokens


async def test_a_token_that_expires(world: World, log: str) -> None:
    bob = world.device("bob", good_for_ms=100_000)
    await bob.hello()
    assert not bob.of("token_expiring")
    expires = bob.session.principal.expires_at_ms
    await until(lambda: bob.of("token_expiring"), seconds=200)
    assert world.clock.now_ms() < expires
    warning = bob.of("token_expiring")[0].token_expiring
    assert warning.token_expire_time.ToMilliseconds() == expires
    await bob.session.ended
    assert world.clock.now_ms() - expires < 100
    assert len(bob.of("token_expiring")) == 1
    last = bob.events[-1].session_ended
    assert last.error.reason == error_pb2.ERROR_REASON_TOKEN_EXPIRED
    assert last.error.code == 16
    assert last.reconnect
    problem = bob.session.ended.result()
    assert problem is not None
    assert problem.reason is Reason.TOKEN_EXPIRED


async def test_a_token_that_is_refreshed(world: World, log: str) -> None:
    bob = world.device("bob", good_for_ms=50_000)
    await bob.hello()
    assert bob.of("token_expiring"), "warned at once when there is less than a minute"
    token = f"bob/phone/{HOUR_MS}"
    command = Command(command_id=9, refresh_token=chat_service_pb2.RefreshToken(token=token))
    bob.send(command)
    result = await bob.result(9)
    expires = result.refresh_token.token_expire_time.ToMilliseconds()
    assert expires == bob.session.principal.expires_at_ms
    await asyncio.sleep(HOUR_MS / 1000 - 70)
    assert not bob.session.ended.done()
    assert len(bob.of("token_expiring")) == 1
    await bob.session.ended
    assert len(bob.of("token_expiring")) == 2
    assert abs(world.clock.now_ms() - expires) < 100


@pytest.mark.parametrize("token", ["alice/phone", "bob/tablet", "/nobody"])
async def test_a_token_of_somebody_else(world: World, log: str, token: str) -> None:
    bob = world.device("bob", good_for_ms=50_000)
    await bob.hello()
    bob.send(Command(command_id=9, refresh_token=chat_service_pb2.RefreshToken(token=token)))
    error = (await bob.result(9)).error
    assert (error.code, error.reason) == (16, error_pb2.ERROR_REASON_TOKEN_INVALID)
    assert bob.session.principal.user_id == "bob"
    await world.post(log, "alice")
    await level(bob, log, 2)
    await bob.session.ended


async def test_a_clock_that_goes_back_does_not_end_a_session_early_or_never(world: World) -> None:
    bob = world.device("bob", good_for_ms=20_000)
    await bob.hello()
    await asyncio.sleep(10)
    world.clock.step(-15_000)
    await asyncio.sleep(20)
    assert not bob.session.ended.done()
    await bob.session.ended
    assert abs(world.clock.now_ms() - bob.session.principal.expires_at_ms) < 100


async def test_a_warning_comes_however_rare_beacons_are() -> None:
    world = await World(limits=Limits(beacon_interval_ms=600_000)).start()
    bob = world.device("bob", good_for_ms=700_000)
    await bob.hello()
    await bob.session.ended
    kinds = [e.WhichOneof("event") for e in bob.events]
    assert kinds.count("token_expiring") == 1
    assert kinds[-1] == "session_ended"
    await world.stop()


# Beacons


async def test_beacons_tell_the_positions(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    await world.post(log, "alice")
    await level(bob, log, 2)
    beacons = len(bob.of("beacon"))
    await until(lambda: len(bob.of("beacon")) > beacons + 3, seconds=200)
    beacon = bob.of("beacon")[-1].beacon
    digest, count = digest_of([(log, 2), (inbox_log("bob"), 1)])
    assert (beacon.level, beacon.digest, beacon.conversations) == (True, digest, count)
    times = [b.beacon.server_time.ToMilliseconds() for b in bob.of("beacon")[beacons:]]
    assert all(abs(b - a - 30_000) < 100 for a, b in pairwise(times))


async def test_no_digest_while_something_is_on_its_way(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello({log: 1, inbox_log("bob"): 1}, window=1)
    for _ in range(3):
        await world.post(log, "alice")
    await until(lambda: bob.of("beacon"), seconds=100)
    assert not bob.of("beacon")[-1].beacon.level
    for seq in (2, 3, 4):
        await level(bob, log, seq, start=1)
        bob.send(acks=[(log, seq)])
    await settled()
    before = len(bob.of("beacon"))
    await until(lambda: len(bob.of("beacon")) > before, seconds=100)
    assert bob.of("beacon")[-1].beacon.level


# Ends


async def test_a_newer_session_of_the_device(world: World, log: str) -> None:
    older = world.device("bob")
    await older.hello()
    other = world.device("bob", "tablet")
    await other.hello()
    newer = world.device("bob")
    await newer.hello()
    await older.session.ended
    last = older.events[-1].session_ended
    assert (last.error.reason, last.error.code) == (error_pb2.ERROR_REASON_SESSION_REPLACED, 10)
    assert not last.reconnect
    await world.post(log, "alice")
    await level(newer, log, 2)
    await level(other, log, 2)
    assert older.applied(log) == 1
    assert world.node.counters.sessions_ended == {"SESSION_REPLACED": 1}
    older.session.close()
    assert world.node.counters.sessions == 2
    assert world.node.hub.joined(log) == [other.session, newer.session]


async def test_nothing_follows_the_end_of_a_session(world: World, log: str) -> None:
    older = world.device("bob")
    await older.hello()
    world.script.always["append"] = Fate(before=0.5)
    older.post(log, "on its way")
    await settled()
    older.stop_reading()
    newer = world.device("bob")
    await newer.hello()
    await asyncio.sleep(1)
    older.read_on()
    await older.session.ended
    assert older.events[-1].WhichOneof("event") == "session_ended"
    assert world.texts(log) == ["on its way"]


async def test_a_device_that_does_not_read_is_not_waited_for(world: World, log: str) -> None:
    older = world.device("bob")
    await older.hello()
    older.stop_reading()
    newer = world.device("bob")
    await newer.hello()
    began = world.clock.now_ms()
    await older.session.ended
    assert world.clock.now_ms() - began < 5_000


async def test_a_device_that_vanishes(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    bob.vanish()
    await world.post(log, "alice")
    await bob.session.ended
    assert bob.session.ended.result() is None
    assert world.node.counters.sessions == 0
    assert not world.node.hub.joined(log)
    assert not world.node.hub.is_online("bob")
    assert world.node.counters.outbox_bytes == 0


@pytest.mark.parametrize("after", [0.0, 0.05, 0.11, 0.15, 0.2, 0.25, 0.31, 0.35, 0.5])
async def test_nothing_is_left_of_a_session_whenever_it_ends(
    world: World, log: str, after: float
) -> None:
    for method in ("user_logs", "heads", "memberships_of", "cursors", "memberships", "read"):
        world.script.always[method] = Fate(before=0.05)
    bob = world.device("bob")
    await bob.hello(synced=False)
    other = await world.group("alice", "bob")
    await asyncio.sleep(after)
    if after != 0.2:
        bob.session.end(DomainError(Reason.INTERNAL, "a fault"), reconnect=True)
        await asyncio.sleep(0.01)
    bob.session.close()
    await asyncio.sleep(2)
    hub = world.node.hub
    assert [hub.joined(name) for name in (log, other, inbox_log("bob"))] == [[], [], []]
    assert hub.sessions == []
    assert not hub.is_online("bob")
    assert world.node.counters.sessions == 0


async def test_draining(world: World, log: str) -> None:
    devices = [world.device(f"user-{i}") for i in range(20)]
    for device in devices:
        await device.hello()
    alice = world.device("alice")
    await alice.hello()
    world.script.always["append"] = Fate(before=0.5)
    number, _ = alice.post(log, "in the last moment")
    world.node.announce_drain(1000)
    await settled()
    delays = [d.of("going_away")[0].going_away.reconnect_delay_ms for d in devices]
    assert len(set(delays)) > 10
    assert all(0 <= delay <= 1000 for delay in delays)
    late = world.device("late")
    await late.hello(synced=False)
    await late.session.ended
    assert reasons(late) == {1: "DRAINING"}
    assert late.events[-1].session_ended.reconnect
    await world.node.stop()
    assert alice.session.ended.done()
    kinds = [e.WhichOneof("event") for e in alice.events]
    assert kinds[-1] == "session_ended"
    assert (await alice.result(number)).send_message.seq == 2
    assert alice.events[-1].session_ended.error.reason == error_pb2.ERROR_REASON_DRAINING
    assert alice.applied(log) == 2


async def test_stopping_does_not_wait_for_ever(world: World, log: str) -> None:
    alice = world.device("alice")
    await alice.hello()
    world.script.always["append"] = Fate(Happens.UNSURE_LOST)
    number, _ = alice.post(log, "x")
    await settled()
    began = world.clock.now_ms()
    await world.node.stop(grace_s=2)
    assert world.clock.now_ms() - began < 5_000
    assert reasons(alice) == {number: "OUTCOME_UNKNOWN"}
    assert alice.events[-1].WhichOneof("event") == "session_ended"
