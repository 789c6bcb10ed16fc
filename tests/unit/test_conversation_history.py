"""What newcomers may read: from their joining, or all there is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.world import World, refusal, until
from tidings_server.codec.entries import decode_entries
from tidings_server.core import commands as c
from tidings_server.core.entries import Entry, MemberRemoved, MembersAdded, NewMember, Role
from tidings_server.core.memberships import Interval, Membership, fold_membership
from tidings_server.errors import Reason

pytestmark = pytest.mark.virtual_time


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World().start()
    yield world
    await world.stop()


async def show(world: World, log: str, *, all_of_it: bool) -> None:
    changes = (("history_for_newcomers", all_of_it),)
    await world.execute("alice", c.UpdateConversation(log, world.change_id(), changes))


async def listed(world: World, user: str, log: str, size: int = 3) -> list[int]:
    """The positions in the history that a user is given."""
    seqs: list[int] = []
    token = ""
    while True:
        got = await world.execute(user, c.ListHistory(log, 0, True, size, token))
        assert isinstance(got, c.HistoryListed)
        seqs += [entry.seq for entry in decode_entries(got.events)]
        token = got.next_page_token
        if not token:
            return seqs


@pytest.mark.parametrize("restart", [False, True])
async def test_newcomers_read_all_there_is(world: World, restart: bool) -> None:
    log = await world.group("alice")
    old = await world.post(log, "alice", "old")
    await world.add(log, "alice", "bob")
    await show(world, log, all_of_it=True)
    joined = await world.add(log, "alice", "carol")
    await world.post(log, "alice", "new")
    assert world.entries(log)[joined - 1].body == MembersAdded((NewMember("carol"),), True)
    if restart:
        await world.restart()
    assert await listed(world, "carol", log) == [1, 2, 3, 4, 5, 6]
    # Who was there before sees what they saw.
    assert await listed(world, "bob", log) == [3, 4, 5, 6]
    assert isinstance(await world.execute("carol", c.GetMessage(log, old, None)), c.MessageGot)
    await world.execute("carol", c.SetReaction(log, world.change_id(), old, "x"))
    got = await world.execute("carol", c.GetConversation(log))
    assert isinstance(got, c.ConversationGot)
    # What was said before is not unread.
    assert (got.view.join_seq, got.view.unread_count) == (1, 1)
    await show(world, log, all_of_it=False)
    await world.add(log, "alice", "dave")
    assert await listed(world, "dave", log) == [9]
    problem = await refusal(world, "dave", c.GetMessage(log, old, None))
    assert problem.reason is Reason.MESSAGE_NOT_FOUND


async def test_streams_begin_at_the_joining(world: World) -> None:
    log = await world.group("alice")
    for _ in range(5):
        await world.post(log, "alice")
    await show(world, log, all_of_it=True)
    early = world.device("bob")
    await early.hello()
    joined = await world.add(log, "alice", "bob")
    late = world.device("bob", "laptop")
    await late.hello()
    for device in (early, late):
        await until(lambda device=device: device.applied(log) == joined)  # type: ignore[misc]
        assert device.seqs(log) == [joined]


async def test_who_comes_back_and_leaves_reads_up_to_the_end(world: World) -> None:
    log = await world.group("alice", "bob")
    await world.remove(log, "bob", "bob")
    missed = await world.post(log, "alice")
    await show(world, log, all_of_it=True)
    await world.add(log, "alice", "bob")
    left = await world.remove(log, "bob", "bob")
    await world.post(log, "alice")
    await world.restart()
    assert await listed(world, "bob", log) == list(range(1, left + 1))
    assert missed in await listed(world, "bob", log, 1)


def test_ranges_that_overlap_are_one() -> None:
    membership = Membership(
        "bob", Role.MEMBER, 9, (Interval(2, 0, 4), Interval(6, 1, 7), Interval(9, 3, from_seq=1))
    )
    assert membership.ranges(1, 20) == [(1, 20)]
    assert membership.ranges(3, 5) == [(3, 5)]
    assert all(membership.visible(seq) for seq in range(1, 20))
    assert [seq for seq in range(1, 11) if membership.due(seq)] == [2, 3, 4, 6, 7, 9, 10]
    ended = fold_membership(
        membership, Entry("l", 12, 0, "i", "bob", 1, MemberRemoved("bob")), "bob"
    )
    assert ended is not None
    assert ended.ranges(1, 20) == [(1, 12)]
    apart = Membership("bob", Role.MEMBER, 9, (Interval(2, 0, 4), Interval(6, 1)))
    assert apart.ranges(1, 20) == [(2, 4), (6, 20)]
