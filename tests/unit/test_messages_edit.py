"""Edits: who may, what readers get, and that nothing is lost or done twice, whatever fails."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator

import pytest

from tests.unit.made import content
from tests.unit.world import Device, World, refusal, until
from tidings.v1 import chat_service_pb2, event_pb2, message_pb2
from tidings_server.codec.overlays import load_overlay
from tidings_server.core import commands as c
from tidings_server.core.overlays import MAX_EDITS
from tidings_server.core.pages import PageFlag
from tidings_server.errors import Reason
from tidings_server.storage.memory import Fate, Happens

pytestmark = pytest.mark.virtual_time


@pytest.fixture(params=[False, True], ids=["alone", "shared"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world = await World(shared=request.param).start()
    yield world
    await world.stop()


def edit(world: World, log: str, seq: int, text: str, *, change_id: str = "") -> c.EditMessage:
    return c.EditMessage(log, world.change_id(change_id), seq, content(text))


async def edited(world: World, user: str, log: str, seq: int, text: str) -> int:
    got = await world.execute(user, edit(world, log, seq, text))
    assert isinstance(got, c.MessageChanged)
    return got.seq


def reached(device: Device, log: str, seq: int) -> bool:
    return device.applied(log) == seq


async def history(world: World, user: str, log: str) -> list[event_pb2.Event]:
    """Everything that a user may see, as it is listed."""
    got = await world.execute(user, c.ListHistory(log, 0, True, 1000, ""))
    assert isinstance(got, c.HistoryListed)
    return list(chat_service_pb2.ChatResponse.FromString(got.events).events)


async def states(world: World, user: str, log: str) -> dict[int, message_pb2.MessageState]:
    found = await history(world, user, log)
    listed = {e.message_state.seq: e.message_state for e in found if e.HasField("message_state")}
    for seq, state in listed.items():
        got = await world.execute(user, c.GetMessage(log, seq, None))
        assert isinstance(got, c.MessageGot)
        (event,) = chat_service_pb2.ChatResponse.FromString(got.state).events
        assert event.message_state == state
    return listed


async def test_the_sender_edits_and_everybody_is_given_what_it_says_now(world: World) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "bob", "helo")
    other = await world.post(log, "bob", "another")
    first = await edited(world, "bob", log, seq, "hello")
    second = await edited(world, "bob", log, seq, "hello!")
    assert (first, second) == (other + 1, other + 2)
    for user in ("alice", "bob"):
        found = await states(world, user, log)
        assert found.keys() == {seq}
        state = found[seq]
        assert (state.conversation_id, state.as_of) == (log, second)
        assert state.content.text == "hello!"
        assert state.edit_seqs == [first, second]
        entries = [e.entry for e in await history(world, user, log) if e.HasField("entry")]
        assert [e.seq for e in entries] == list(range(1, second + 1))
        assert entries[seq - 1].message.text == "helo", "its own entry is the first of its history"
        assert entries[first - 1].message_edited.seq == seq
        assert entries[first - 1].message_edited.content.text == "hello"
        assert state.edit_time == entries[second - 1].create_time
    assert world.entries(log)[-1].ordinal == 2, "edits don't count as messages"


async def test_a_state_follows_its_message_in_both_directions(world: World) -> None:
    log = await world.group("alice", "bob")
    seqs = [await world.post(log, "bob", str(n)) for n in range(5)]
    for seq in seqs[1::2]:
        await edited(world, "bob", log, seq, "new")
    for ascending in (True, False):
        token = ""
        found: list[event_pb2.Event] = []
        while True:
            got = await world.execute("alice", c.ListHistory(log, 0, ascending, 2, token))
            assert isinstance(got, c.HistoryListed)
            page = chat_service_pb2.ChatResponse.FromString(got.events).events
            assert sum(e.HasField("entry") for e in page) <= 2
            found += page
            token = got.next_page_token
            if not token:
                break
        at = [e.entry.seq if e.HasField("entry") else -e.message_state.seq for e in found]
        there = list(range(1, 9)) if ascending else list(range(8, 0, -1))
        assert [seq for seq in at if seq > 0] == there
        for seq in seqs[1::2]:
            assert at[at.index(seq) + 1] == -seq


async def test_an_edit_reaches_devices_as_an_entry(world: World) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "bob", "helo")
    device = world.device("alice")
    await device.hello()
    number = device.number()
    sender = world.device("bob")
    await sender.hello()
    request = message_pb2.EditMessageRequest(
        conversation_id=log,
        request_id=world.new_id(),
        seq=seq,
        content=message_pb2.MessageContent(text="hello"),
    )
    sender.send(chat_service_pb2.Command(command_id=number, edit_message=request))
    result = await sender.result(number)
    assert result.edit_message.seq == seq + 1
    assert result.edit_message.HasField("create_time")
    for got in (device, sender):
        await until(functools.partial(reached, got, log, seq + 1))
        entry = got.of("entry")[-1].entry
        assert (entry.message_edited.seq, entry.message_edited.content.text) == (seq, "hello")
        assert not got.of("message_state"), "whoever gets the entry needs no state"


async def test_the_same_id_is_the_same_edit_for_ever(world: World) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "bob", "helo")
    change = world.new_id()
    first = await world.execute("bob", edit(world, log, seq, "hello", change_id=change))
    await edited(world, "bob", log, seq, "later")
    again = await world.execute("bob", edit(world, log, seq, "hello", change_id=change))
    assert again == first
    await world.restart()
    assert await world.execute("bob", edit(world, log, seq, "hello", change_id=change)) == first
    for command in (
        edit(world, log, seq, "other", change_id=change),
        edit(world, log, seq + 1, "hello", change_id=change),
        world.message(log, "hello", change_id=change),
    ):
        assert (await refusal(world, "bob", command)).reason is Reason.ID_REUSED
    (state,) = (await states(world, "bob", log)).values()
    assert state.content.text == "later"


async def test_who_may_not(world: World) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "bob", "bob's")
    await world.add(log, "alice", "late")
    await world.remove(log, "alice", "bob")
    head = len(world.entries(log))
    late = await world.post(log, "late", "mine")
    cases = [
        ("alice", seq, Reason.RIGHT_MISSING, ""),
        ("bob", seq, Reason.CONVERSATION_NOT_FOUND, "conversation_id"),
        ("stranger", seq, Reason.CONVERSATION_NOT_FOUND, "conversation_id"),
        ("stranger", 99, Reason.CONVERSATION_NOT_FOUND, "conversation_id"),
        # What was there before they joined is no more to them than what never was.
        ("late", seq, Reason.MESSAGE_NOT_FOUND, "seq"),
        ("late", 1, Reason.MESSAGE_NOT_FOUND, "seq"),
        ("late", 99, Reason.MESSAGE_NOT_FOUND, "seq"),
        ("late", head, Reason.MESSAGE_NOT_FOUND, "seq"),
    ]
    for user, about, expected, field in cases:
        problem = await refusal(world, user, edit(world, log, about, "x"))
        assert (user, about, problem.reason) == (user, about, expected)
        assert problem.field == field or not field
    assert len(world.entries(log)) == late, "nothing was appended"
    nowhere = edit(world, world.new_id(), 1, "x")
    assert (await refusal(world, "alice", nowhere)).reason is Reason.CONVERSATION_NOT_FOUND


async def test_a_message_is_edited_so_often_and_no_more(world: World) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "bob", "0")
    for n in range(MAX_EDITS):
        await edited(world, "bob", log, seq, str(n + 1))
    problem = await refusal(world, "bob", edit(world, log, seq, "x"))
    assert problem.reason is Reason.EDIT_LIMIT
    (state,) = (await states(world, "alice", log)).values()
    assert state.content.text == str(MAX_EDITS)
    assert len(state.edit_seqs) == MAX_EDITS


async def test_an_ex_member_sees_what_it_said_when_they_left(world: World) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "alice", "one")
    untouched = await world.post(log, "alice", "two")
    first = await edited(world, "alice", log, seq, "one!")
    end = await world.remove(log, "alice", "bob")
    await edited(world, "alice", log, seq, "secret")
    await edited(world, "alice", log, untouched, "secret")
    found = await states(world, "bob", log)
    assert (found[seq].content.text, found[seq].as_of) == ("one!", end)
    assert found[seq].edit_seqs == [first]
    assert not found[untouched].HasField("content")
    assert not any(b"secret" in e.SerializeToString() for e in await history(world, "bob", log))


@pytest.mark.parametrize("happens", [Happens.REFUSED, Happens.UNSURE_LOST, Happens.UNSURE_DONE])
async def test_an_overlay_is_written_until_it_is(world: World, happens: Happens) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "bob", "helo")
    world.script.plan("put_overlays", happens, happens, happens)
    await edited(world, "bob", log, seq, "hello")
    (state,) = (await states(world, "alice", log)).values()
    assert state.content.text == "hello"


async def test_a_crash_before_the_overlay_is_written_loses_nothing(world: World) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "bob", "helo")
    world.script.plan("put_overlays", *[Happens.REFUSED] * 50)
    assert await edited(world, "bob", log, seq, "hello") == seq + 1
    world.store.crash(lambda: False)
    world.script.calls.clear()
    world.node = world._make()
    world.script._planned.clear()
    await world.start()
    assert not world.disk.overlays(log, 1, 99)
    (state,) = (await states(world, "alice", log)).values()
    assert (state.content.text, state.as_of) == ("hello", seq + 1)
    (row,) = world.disk.overlays(log, 1, 99)
    assert load_overlay(row.body).edits == (seq + 1,)


async def test_history_waits_for_what_it_would_miss(world: World) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "bob", "helo")
    world.script.plan("put_overlays", *[Happens.REFUSED] * 3)
    await edited(world, "bob", log, seq, "hello")
    assert not world.disk.overlays(log, 1, 99), "the sender was told that it will be"
    (state,) = (await states(world, "alice", log)).values()
    assert state.content.text == "hello"
    world.script.plan("put_overlays", *[Happens.REFUSED] * 1000)
    await edited(world, "bob", log, seq, "hello!")
    problem = await refusal(world, "alice", c.ListHistory(log, 0, True, 10, ""))
    assert problem.reason is Reason.STORE_UNAVAILABLE
    world.script._planned.clear()
    (state,) = (await states(world, "alice", log)).values()
    assert state.content.text == "hello!"


async def test_one_page_of_a_bucket_tells_older_nodes(world: World) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "bob", "helo")
    for n in range(3):
        await edited(world, "bob", log, seq, str(n))
    await world.restart()
    await edited(world, "bob", log, seq, "again")
    flags = [page.flags for page in world.pages(log) if page.first_seq > seq]
    first, *others = flags
    assert first == PageFlag.CHANGE | PageFlag.STATE
    assert others == [PageFlag.CHANGE] * 3


async def test_a_device_is_told_what_became_of_its_messages_while_it_was_no_member(
    world: World,
) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "alice", "one")
    end = await world.remove(log, "alice", "bob")
    await edited(world, "alice", log, seq, "two")
    hidden = await world.post(log, "alice", "not for bob")
    last = await edited(world, "alice", log, hidden, "nor this")
    back = await world.add(log, "alice", "bob")
    device = world.device("bob")
    await device.hello({log: end})
    assert device.applied(log, end) == back
    (event,) = device.of("message_state")
    assert (event.message_state.seq, event.message_state.content.text) == (seq, "two")
    skipped = next(e for e in device.events if e.HasField("skipped"))
    assert (skipped.skipped.from_seq, skipped.skipped.to_seq) == (end + 1, last)
    assert device.events.index(event) < device.events.index(skipped), "or a crash would lose it"


async def test_a_device_is_told_what_became_of_its_messages_within_a_gap(world: World) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "alice", "one")
    other = await world.post(log, "alice", "other")
    await edited(world, "alice", log, seq, "two")
    for n in range(30):
        await world.post(log, "alice", str(n))
    last = await edited(world, "alice", log, other, "in time")
    device = world.device("bob")
    await device.hello({log: other}, catch_up_limit=4)
    assert device.applied(log, other) == last
    (event,) = device.of("message_state")
    assert (event.message_state.seq, event.message_state.content.text) == (seq, "two")
    gap = next(e for e in device.events if e.HasField("gap"))
    assert device.events.index(event) < device.events.index(gap)
    new = world.device("bob", "another")
    await new.hello()
    assert not new.of("message_state"), "it holds nothing"


async def test_edits_of_many_at_once_are_all_there(world: World) -> None:
    log = await world.group("alice", "bob")
    seqs = {user: await world.post(log, user, "0") for user in ("alice", "bob")}
    await asyncio.gather(
        *(
            world.execute(user, edit(world, log, seq, f"{user} {n}"))
            for n in range(20)
            for user, seq in seqs.items()
        ),
        *(world.post(log, "alice", "between") for _ in range(20)),
    )
    found = await states(world, "alice", log)
    entries = world.entries(log)
    for user, seq in seqs.items():
        edits = [
            e for e in entries if e.user_id == user and type(e.body).__name__ == "MessageEdited"
        ]
        assert list(found[seq].edit_seqs) == [e.seq for e in edits]
        assert len(edits) == 20
        assert found[seq].content.SerializeToString() == edits[-1].body.content  # type: ignore[union-attr]


@pytest.mark.parametrize("while_away", [False, True])
async def test_nobody_is_told_what_became_of_messages_after_their_removal(
    world: World, while_away: bool
) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "alice", "one")
    end = await world.remove(log, "alice", "bob")
    await edited(world, "alice", log, seq, "two")
    back = await world.add(log, "alice", "bob")
    device = world.device("bob")
    if while_away:
        await world.remove(log, "alice", "bob")
        await edited(world, "alice", log, seq, "secret")
        await device.hello({log: end})
    else:
        # Removed between the moment when the membership is read and that in which the overlays are.
        world.script.plan("overlays", Fate(before=5.0))
        hello = asyncio.ensure_future(device.hello({log: end}))
        await until(lambda: world.script.calls["overlays"] > 0)
        await world.remove(log, "alice", "bob")
        await edited(world, "alice", log, seq, "secret")
        await hello
    await until(lambda: device.applied(log, end) == back + 1)
    states = [event.message_state for event in device.of("message_state")]
    assert [state.content.text for state in states] == ["two"]
    assert all(state.as_of <= back + 1 for state in states)
