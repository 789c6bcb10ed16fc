"""Sessions and the hub: every device gets every entry that its user may see, in order, once, and nothing else."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from tests.unit.devices import level, reasons
from tests.unit.world import World, settled, until
from tidings.v1 import chat_service_pb2, error_pb2, event_pb2, message_pb2, receipt_service_pb2
from tidings_server.codec.events import digest_of
from tidings_server.core import commands as c
from tidings_server.core.ids import inbox_log
from tidings_server.core.limits import Limits
from tidings_server.errors import DomainError, Reason
from tidings_server.storage.memory import Fate, Happens

pytestmark = pytest.mark.virtual_time

Command = chat_service_pb2.Command
Entries = list[event_pb2.Event]


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
        "edit_message": Command(),
        "set_reaction": Command(
            set_reaction=message_pb2.SetReactionRequest(
                conversation_id=log, request_id=world.new_id(), seq=3, reaction="x"
            )
        ),
        "set_pin": Command(
            set_pin=message_pb2.SetPinRequest(
                conversation_id=log, request_id=world.new_id(), seq=3, pinned=True
            )
        ),
        "delete_message": Command(
            delete_message=message_pb2.DeleteMessageRequest(
                conversation_id=log, request_id=world.new_id(), seq=3
            )
        ),
        "create_conversation": Command(),
        "add_members": Command(),
        "remove_member": Command(),
        "set_status": Command(),
        "refresh_token": Command(refresh_token=chat_service_pb2.RefreshToken(token="alice/phone")),
        "update_conversation": Command(),
        "set_mute": Command(),
        "set_role": Command(),
        "set_ban": Command(),
        "set_invitation": Command(),
        "join_conversation": Command(),
        "transfer_ownership": Command(),
        "leave_conversation": Command(),
    }
    own = await world.post(log, "alice")
    commands["edit_message"].edit_message.MergeFrom(
        message_pb2.EditMessageRequest(
            conversation_id=log,
            request_id=world.new_id(),
            seq=own,
            content=message_pb2.MessageContent(text="y"),
        )
    )
    commands["create_conversation"].create_conversation.kind = 1  # type: ignore[assignment]
    commands["create_conversation"].create_conversation.user_ids.append("carol")
    commands["add_members"].add_members.conversation_id = log
    commands["add_members"].add_members.request_id = world.new_id()
    commands["add_members"].add_members.members.add(user_id="carol")
    commands["remove_member"].remove_member.conversation_id = log
    commands["remove_member"].remove_member.request_id = new
    commands["remove_member"].remove_member.user_id = "carol"
    update = commands["update_conversation"].update_conversation
    update.conversation_id, update.request_id = log, world.new_id()
    update.update_mask.paths.append("title")
    for name, role in (("set_mute", 0), ("set_role", 3), ("set_ban", 0), ("transfer_ownership", 0)):
        request = getattr(commands[name], name)
        request.conversation_id, request.request_id, request.user_id = log, world.new_id(), "bob"
        if role:
            request.role = role
    for name in ("set_invitation", "join_conversation"):
        request = getattr(commands[name], name)
        request.conversation_id, request.request_id, request.code = log, world.new_id(), "c" * 16
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


# Faults of the server's own


async def test_a_fault_in_one_session_is_none_of_the_others(
    world: World, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever fails is sent away to come back, whatever was being handed out."""
    await world.add(log, "alice", *(f"user-{i}" for i in range(3)))
    devices = [world.device(user) for user in ("user-0", "user-1", "user-2", "bob")]
    for device in devices:
        await device.hello()
    healthy = devices.pop()

    def broken(*_: object, **__: object) -> bool:
        raise RuntimeError("a bug")

    for device, method in zip(devices, ("offer", "notice", "beat"), strict=True):
        monkeypatch.setattr(device.session, method, broken)
    alice = world.device("alice")
    await alice.hello()
    with capture_logs() as lines:
        assert await world.post(log, "alice") == 3
        await level(healthy, log, 3)
        await world.execute("alice", c.MarkRead(log, 3))
        await until(lambda: healthy.of("beacon"))
        await until(lambda: all(device.of("session_ended") for device in devices))
    assert {line["event"] for line in lines} == {"session_failed"}
    for device in devices:
        assert device.of("session_ended")[-1].session_ended.reconnect
    beats = len(healthy.of("beacon"))
    await until(lambda: len(healthy.of("beacon")) > beats)
    monkeypatch.undo()
    again = world.device("user-0")
    await again.hello({log: 2})
    assert again.applied(log, 2) == 3


async def test_a_fault_while_catching_up(
    world: World, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.post(log, "alice")
    read = world.store.read

    async def broken(*_: object, **__: object) -> object:
        raise RuntimeError("a bug")

    monkeypatch.setattr(world.store, "read", broken)
    world.node._pages.forget(log)
    with capture_logs() as lines:
        bob = world.device("bob")
        await bob.hello(synced=False)
        await until(lambda: bob.of("session_ended"))
    assert "catch_up_failed" in [line["event"] for line in lines]
    assert bob.of("session_ended")[0].session_ended.reconnect
    monkeypatch.setattr(world.store, "read", read)
    again = world.device("bob")
    await again.hello()
    assert again.applied(log) == 2


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
    # Another server is likely to answer, and who is sent here once more asks soon again.
    assert late.events[-1].session_ended.error.retry_delay.ToMilliseconds() == 200
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
