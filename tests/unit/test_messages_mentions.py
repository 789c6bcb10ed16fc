"""Mentions: who may, who is told how many are unread, and that the count follows what becomes of messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.unit.world import World, refusal
from tidings.v1 import message_pb2
from tidings_server.core import commands as c
from tidings_server.core.entries import NewMember, Role
from tidings_server.errors import Reason
from tidings_server.messaging.batch import MAX_PENDING
from tidings_server.messaging.mentions import MAX_COUNTED
from tidings_server.storage.memory import Fate, Happens

pytestmark = pytest.mark.virtual_time

ALL = "everybody"


@pytest.fixture(params=[False, True], ids=["alone", "shared"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world = await World(shared=request.param).start()
    yield world
    await world.stop()


def saying(*whom: str) -> bytes:
    """A content that mentions users, or `ALL`."""
    content = message_pb2.MessageContent(text="x" * len(whom) or "x")
    for at, user in enumerate(whom):
        mention = content.mentions.add(start=at, end=at + 1)
        if user == ALL:
            mention.everybody = True
        else:
            mention.user_id = user
    return content.SerializeToString()


def post(world: World, log: str, *whom: str, change_id: str = "") -> c.SendMessage:
    return c.SendMessage(log, world.change_id(change_id), saying(*whom))


async def posted(world: World, user: str, log: str, *whom: str) -> int:
    got = await world.execute(user, post(world, log, *whom))
    assert isinstance(got, c.Sent)
    return got.seq


async def edited(world: World, user: str, log: str, seq: int, *whom: str) -> None:
    await world.execute(user, c.EditMessage(log, world.change_id(), seq, saying(*whom)))


async def unread(world: World, user: str, log: str) -> int:
    """The unread mentions of a user, which every way to ask for them tells alike."""
    got = await world.execute(user, c.GetUnread((log,)))
    assert isinstance(got, c.UnreadGot)
    count = sum(one.unread_mention_count for one in got.counts)
    one = await world.execute(user, c.GetConversation(log))
    assert isinstance(one, c.ConversationGot)
    assert one.view.unread_mention_count == count
    listed = await world.execute(user, c.ListConversations(50, ""))
    assert isinstance(listed, c.ConversationsListed)
    assert [v.unread_mention_count for v in listed.views if v.conversation_id == log] == [count]
    return count


async def test_whoever_is_mentioned_is_told_until_they_have_read(world: World) -> None:
    log = await world.group("alice", "bob", "carol")
    first = await posted(world, "alice", log, "bob", "nobody")
    await posted(world, "alice", log)
    second = await posted(world, "carol", log, "alice", "bob", "bob")
    assert await unread(world, "bob", log) == 2
    assert await unread(world, "alice", log) == 1
    assert await unread(world, "carol", log) == 0
    await world.execute("bob", c.MarkRead(log, first))
    assert await unread(world, "bob", log) == 1
    await world.restart()
    assert await unread(world, "bob", log) == 1
    await world.execute("bob", c.MarkRead(log, second))
    assert await unread(world, "bob", log) == 0


async def test_own_mentions_are_not_told(world: World) -> None:
    log = await world.group("alice", "bob")
    await posted(world, "alice", log, "alice", ALL)
    assert await unread(world, "alice", log) == 0
    assert await unread(world, "bob", log) == 1


async def test_one_message_counts_once(world: World) -> None:
    log = await world.group("alice", "bob")
    await posted(world, "alice", log, "bob", ALL)
    assert await unread(world, "bob", log) == 1


async def test_own_mentions_of_everybody_do_not_hide_those_of_others(world: World) -> None:
    log = await world.group("alice", "bob")
    await world.execute(
        "alice", c.AddMembers(log, world.change_id(), (NewMember("olga", Role.OWNER),))
    )
    for _ in range(MAX_COUNTED + 5):
        await posted(world, "alice", log, ALL)
    await posted(world, "olga", log, ALL)
    assert await unread(world, "alice", log) == 1
    assert await unread(world, "bob", log) == MAX_COUNTED


@pytest.mark.parametrize("user", ["bob", "gus", "mona", "ada"])
async def test_only_owners_mention_everybody(world: World, user: str) -> None:
    log = await world.group("alice", "bob")
    roles = {"gus": Role.GUEST, "mona": Role.MODERATOR, "ada": Role.ADMIN}
    members = tuple(NewMember(name, role) for name, role in roles.items())
    await world.execute("alice", c.AddMembers(log, world.change_id(), members))
    problem = await refusal(world, user, post(world, log, ALL))
    assert problem.reason is Reason.RIGHT_MISSING
    if user == "gus":
        return
    seq = await posted(world, user, log, "alice")
    edit = c.EditMessage(log, world.change_id(), seq, saying(ALL))
    assert (await refusal(world, user, edit)).reason is Reason.RIGHT_MISSING
    assert await unread(world, "alice", log) == 1
    direct = await world.direct("alice", "bob")
    problem = await refusal(world, "alice", post(world, direct, ALL))
    assert problem.reason is Reason.RIGHT_MISSING
    problem = await refusal(world, "stranger", post(world, log, ALL))
    assert problem.reason is Reason.CONVERSATION_NOT_FOUND


async def test_newcomers_are_told_of_what_they_can_read(world: World) -> None:
    log = await world.group("alice", "bob")
    await posted(world, "alice", log, "carol")
    await posted(world, "alice", log, ALL)
    await world.add(log, "alice", "carol")
    assert await unread(world, "carol", log) == 0
    await posted(world, "alice", log, "carol")
    await posted(world, "alice", log, ALL)
    assert await unread(world, "carol", log) == 2
    await world.remove(log, "alice", "carol")
    await posted(world, "alice", log, "carol")
    got = await world.execute("carol", c.GetUnread((log,)))
    assert got == c.UnreadGot(())
    one = await world.execute("carol", c.GetConversation(log))
    assert isinstance(one, c.ConversationGot)
    assert one.view.unread_mention_count == 0
    await world.add(log, "alice", "carol")
    assert await unread(world, "carol", log) == 0


@pytest.mark.parametrize("restarted", [False, True])
async def test_the_count_follows_edits_and_deletions(world: World, restarted: bool) -> None:
    log = await world.group("alice", "bob", "carol")
    seq = await posted(world, "alice", log, "bob")
    counts = []
    for whom in (["carol"], ["bob", "carol"], [], [ALL], ["bob"]):
        await edited(world, "alice", log, seq, *whom)
        if restarted:
            await world.restart()
        counts.append((await unread(world, "bob", log), await unread(world, "carol", log)))
    assert counts == [(0, 1), (1, 1), (0, 0), (1, 1), (1, 0)]
    await world.execute("alice", c.DeleteMessage(log, world.change_id(), seq))
    assert await unread(world, "bob", log) == 0


async def test_a_deletion_by_whom_it_mentions_takes_the_mention_back(world: World) -> None:
    log = await world.group("alice", "bob")
    seq = await posted(world, "bob", log, "alice")
    assert await unread(world, "alice", log) == 1
    await world.execute("alice", c.DeleteMessage(log, world.change_id(), seq))
    assert await unread(world, "alice", log) == 0


async def test_a_mention_whose_row_was_not_written_is_told_after_a_restart(world: World) -> None:
    log = await world.group("alice", "bob")
    world.script.always["put_mentions"] = Fate(Happens.REFUSED)
    seq = await posted(world, "alice", log, "bob")
    del world.script.always["put_mentions"]
    # The node dies before it could write.
    world.script.plan("put_mentions", *(Happens.REFUSED for _ in range(3)))
    await world.restart()
    assert world.entries(log)[-1].seq == seq
    assert world.disk.heads([log])[log].pending == (seq,)
    await asyncio.sleep(10)
    assert await unread(world, "bob", log) == 1


async def test_a_message_is_acknowledged_though_its_mentions_cannot_be_noted(world: World) -> None:
    log = await world.group("alice", "bob")
    world.script.always["put_mentions"] = Fate(Happens.REFUSED)
    # More of them than the head can name as pending: those wait.
    first = [await posted(world, "alice", log, "bob") for _ in range(MAX_PENDING)]
    assert first == [*range(2, 2 + MAX_PENDING)]
    last = asyncio.ensure_future(posted(world, "alice", log, "bob"))
    await asyncio.sleep(1)
    assert not last.done()
    del world.script.always["put_mentions"]
    assert await last == 2 + MAX_PENDING
    assert await unread(world, "bob", log) == MAX_PENDING + 1


async def test_many_mentions_go_together_into_a_commit(world: World) -> None:
    log = await world.group("alice", "bob")
    await world.post(log, "alice")
    before = len(world.pages(log))
    await asyncio.gather(*(posted(world, "alice", log, "bob") for _ in range(MAX_PENDING)))
    assert len(world.pages(log)) - before <= 2
    assert await unread(world, "bob", log) == MAX_PENDING


async def test_the_same_message_again_is_told_once(world: World) -> None:
    log = await world.group("alice", "bob")
    own = world.new_id()
    world.script.plan("append", Happens.UNSURE_DONE)
    first = await world.execute("alice", post(world, log, "bob", change_id=own))
    assert await world.execute("alice", post(world, log, "bob", change_id=own)) == first
    assert await unread(world, "bob", log) == 1


async def test_of_two_conversations_each_has_its_own_count(world: World) -> None:
    one, other = await world.group("alice", "bob"), await world.group("alice", "bob")
    await posted(world, "alice", one, "bob")
    await posted(world, "alice", one, "bob")
    await posted(world, "alice", other, "bob")
    assert (await unread(world, "bob", one), await unread(world, "bob", other)) == (2, 1)
