"""Replies: to what a message may reply, and what its readers find there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.unit.world import World, refusal, until
from tidings.v1 import chat_service_pb2, message_pb2
from tidings_server.core import commands as c
from tidings_server.core.entries import NewMember
from tidings_server.errors import Reason
from tidings_server.storage.memory import Happens

pytestmark = pytest.mark.virtual_time


@pytest.fixture(params=[False, True], ids=["alone", "shared"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world = await World(shared=request.param).start()
    yield world
    await world.stop()


def reply(
    world: World, log: str, to: str, *, change_id: str = "", after: str = ""
) -> c.SendMessage:
    content = message_pb2.MessageContent(text="a reply", reply_to_message_id=to)
    return c.SendMessage(
        log,
        world.change_id(change_id),
        content.SerializeToString(),
        world.change_id(after) if after else None,
    )


async def replied(world: World, user: str, log: str, to: str) -> int:
    got = await world.execute(user, reply(world, log, to))
    assert isinstance(got, c.Sent)
    return got.seq


@pytest.mark.parametrize("restarted", [False, True])
async def test_whoever_can_read_a_message_can_reply_to_it(world: World, restarted: bool) -> None:
    log = await world.group("alice", "bob")
    message = world.new_id()
    await world.post(log, "alice", change_id=message)
    if restarted:
        # So long ago that its id has to be looked up in the store.
        await asyncio.sleep(3600)
        await world.restart()
    seq = await replied(world, "bob", log, message)
    body = world.entries(log)[seq - 1].body
    assert message_pb2.MessageContent.FromString(body.content).reply_to_message_id == message  # type: ignore[union-attr]


async def test_what_cannot_be_read_cannot_be_replied_to(world: World) -> None:
    log, other = await world.group("alice", "bob"), await world.group("alice", "bob")
    before, elsewhere, own = world.new_id(), world.new_id(), world.new_id()
    await world.post(log, "alice", change_id=before)
    await world.post(other, "alice", change_id=elsewhere)
    added = world.change_id()
    await world.execute("alice", c.AddMembers(log, added, (NewMember("carol"),)))
    asked = {
        "there is none": ("alice", world.new_id()),
        "it is in another conversation": ("bob", elsewhere),
        "it lies before the joining": ("carol", before),
        "it is no message": ("alice", added.text),
        "it is itself": ("alice", own),
    }
    head = len(world.entries(log))
    for user, to in asked.values():
        problem = await refusal(world, user, reply(world, log, to, change_id=own))
        assert problem.reason is Reason.MESSAGE_NOT_FOUND
        assert problem.field == "content.reply_to_message_id"
    assert len(world.entries(log)) == head
    problem = await refusal(world, "dave", reply(world, log, before))
    assert problem.reason is Reason.CONVERSATION_NOT_FOUND


async def test_a_message_from_before_the_joining_stays_hidden(world: World) -> None:
    log = await world.group("alice", "bob")
    message = world.new_id()
    await world.post(log, "alice", change_id=message)
    await world.add(log, "alice", "carol")
    seq = await replied(world, "bob", log, message)
    got = await world.execute("carol", c.GetMessage(log, seq, None))
    assert isinstance(got, c.MessageGot)
    problem = await refusal(world, "carol", c.GetMessage(log, 0, world.change_id(message)))
    assert problem.reason is Reason.MESSAGE_NOT_FOUND


async def test_a_reply_to_a_deleted_message_is_taken_and_shows_nothing_of_it(world: World) -> None:
    log = await world.group("alice", "bob")
    message = world.new_id()
    seq = await world.post(log, "alice", "secret", change_id=message)
    await world.execute("alice", c.DeleteMessage(log, world.change_id(), seq))
    await replied(world, "bob", log, message)
    got = await world.execute("bob", c.GetMessage(log, 0, world.change_id(message)))
    assert isinstance(got, c.MessageGot)
    entry, state = chat_service_pb2.ChatResponse.FromString(got.event + got.state).events
    assert entry.entry.erased
    assert state.message_state.deleted
    assert b"secret" not in got.event + got.state


async def test_a_reply_may_follow_its_message_at_once(world: World) -> None:
    log = await world.group("alice", "bob")
    device = world.device("alice")
    await device.hello()
    ids = [world.new_id() for _ in range(6)]
    commands = []
    for at, change_id in enumerate(ids):
        content = message_pb2.MessageContent(text=str(at))
        content.reply_to_message_id = ids[at - 1] if at else ""
        request = message_pb2.SendMessageRequest(
            conversation_id=log,
            message_id=change_id,
            content=content,
            after_message_id=ids[at - 1] if at else "",
        )
        commands.append(chat_service_pb2.Command(command_id=device.number(), send_message=request))
    device.send(*commands)
    await until(lambda: len(world.texts(log)) == len(ids))
    assert world.texts(log) == ["0", "1", "2", "3", "4", "5"]


async def test_a_missing_predecessor_is_told_before_a_missing_message(world: World) -> None:
    log = await world.group("alice", "bob")
    missing = world.new_id()
    problem = await refusal(world, "alice", reply(world, log, missing, after=missing))
    assert problem.reason is Reason.PREDECESSOR_MISSING


async def test_many_replies_go_together_into_a_commit(world: World) -> None:
    log = await world.group("alice", "bob")
    message = world.new_id()
    await world.post(log, "alice", change_id=message)
    before = len(world.pages(log))
    await asyncio.gather(*(replied(world, "bob", log, message) for _ in range(50)))
    assert len(world.pages(log)) - before <= 2


async def test_a_reply_sent_again_has_its_position_for_ever(world: World) -> None:
    log = await world.group("alice", "bob")
    message, own = world.new_id(), world.new_id()
    await world.post(log, "alice", change_id=message)
    world.script.plan("append", Happens.UNSURE_DONE)
    first = await world.execute("bob", reply(world, log, message, change_id=own))
    again = await world.execute("bob", reply(world, log, message, change_id=own))
    assert first == again
    await world.restart()
    assert await world.execute("bob", reply(world, log, message, change_id=own)) == first


async def test_an_edit_replies_to_what_can_be_read(world: World) -> None:
    log, other = await world.group("alice", "bob"), await world.group("alice", "bob")
    message, elsewhere = world.new_id(), world.new_id()
    await world.post(log, "alice", change_id=message)
    await world.post(other, "alice", change_id=elsewhere)
    seq = await world.post(log, "bob")

    def edit(to: str) -> c.EditMessage:
        content = message_pb2.MessageContent(text="now", reply_to_message_id=to)
        return c.EditMessage(log, world.change_id(), seq, content.SerializeToString())

    got = await world.execute("bob", edit(message))
    assert isinstance(got, c.MessageChanged)
    problem = await refusal(world, "bob", edit(elsewhere))
    assert problem.reason is Reason.MESSAGE_NOT_FOUND
    assert problem.field == "content.reply_to_message_id"
