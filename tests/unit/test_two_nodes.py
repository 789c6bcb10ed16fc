"""Two nodes that append to the same logs and hear nothing of each other: each decides on what both have done."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from tests.unit.world import World, settled, until
from tidings_server.bus.base import HeadPublished, PagePublished
from tidings_server.codec.entries import decode_entries
from tidings_server.core import commands as c
from tidings_server.core.entries import NewMember
from tidings_server.errors import DomainError, Reason
from tidings_server.storage.memory import Fate, MemoryDisk

pytestmark = pytest.mark.virtual_time


@pytest.fixture
async def nodes() -> AsyncIterator[tuple[World, World]]:
    disk = MemoryDisk()
    one = await World(disk=disk, shared=True).start()
    other = await World(disk=disk, shared=True).start()
    yield one, other
    await one.stop()
    await other.stop()


async def reason(world: World, user: str, command: c.Command) -> Reason:
    with pytest.raises(DomainError) as caught:
        await world.execute(user, command)
    return caught.value.reason


async def test_both_append_to_one_log(nodes: tuple[World, World]) -> None:
    one, other = nodes
    log = await one.group("alice", "bob")
    for i in range(10):
        assert await nodes[i % 2].post(log, "alice", str(i)) == i + 2
    assert one.texts(log) == [str(i) for i in range(10)]
    assert other.texts(log) == one.texts(log)


async def test_who_was_added_elsewhere_may_write_at_once(nodes: tuple[World, World]) -> None:
    one, other = nodes
    log = await one.group("alice", "bob")
    assert await reason(other, "carol", other.message(log)) is Reason.CONVERSATION_NOT_FOUND
    await one.add(log, "alice", "carol")
    assert await other.post(log, "carol") == 3


async def test_who_was_removed_elsewhere_neither_writes_nor_reads(
    nodes: tuple[World, World],
) -> None:
    one, other = nodes
    log = await one.group("alice", "bob")
    await other.post(log, "bob", "before")
    await one.remove(log, "alice", "bob")
    await one.post(log, "alice", "behind his back")
    assert await reason(other, "bob", other.message(log)) is Reason.CONVERSATION_NOT_FOUND
    got = await other.execute("bob", c.ListHistory(log, 0, True, 100, ""))
    assert isinstance(got, c.HistoryListed)
    assert [entry.seq for entry in decode_entries(got.events)] == [1, 2, 3]


async def test_a_change_is_not_taken_for_done_on_what_was(nodes: tuple[World, World]) -> None:
    one, other = nodes
    log = await one.group("alice", "bob")
    await other.post(log, "bob")
    await one.remove(log, "alice", "bob")
    add = c.AddMembers(log, other.change_id(), (NewMember("bob"),))
    assert await other.execute("alice", add) == c.ConversationChanged(c.AddMembers, 4)
    assert await one.post(log, "bob") == 5


async def test_a_retry_by_another_way_is_the_same_message(nodes: tuple[World, World]) -> None:
    one, other = nodes
    log = await one.group("alice", "bob")
    await other.post(log, "bob", "makes the log known there")
    change = one.new_id()
    seq = await one.post(log, "alice", "once", change_id=change)
    assert await other.post(log, "alice", "once", change_id=change) == seq
    problem = await reason(other, "alice", other.message(log, "else", change_id=change))
    assert problem is Reason.ID_REUSED


async def test_a_predecessor_that_went_another_way(nodes: tuple[World, World]) -> None:
    one, other = nodes
    log = await one.group("alice", "bob")
    await other.post(log, "bob", "makes the log known there")
    change = one.new_id()
    await one.post(log, "alice", "first", change_id=change)
    assert await other.post(log, "alice", "second", after=change) == 4


async def test_a_view_is_never_older_than_the_question(nodes: tuple[World, World]) -> None:
    one, other = nodes
    log = await one.group("alice", "bob")
    await other.node.sequencer.view(log, "carol")
    await one.add(log, "alice", "carol")
    view = await other.node.sequencer.view(log, "carol")
    assert view.head == 2
    assert view.membership is not None
    # Also while a commit of its own is under way there.
    other.script.plan("append", Fate(before=0.5))
    posting = asyncio.ensure_future(other.post(log, "bob"))
    await settled()
    await one.remove(log, "alice", "carol")
    view = await other.node.sequencer.view(log, "carol")
    assert view.membership is not None
    assert not view.membership.current
    assert await posting == 4


async def test_a_row_that_was_read_before_a_removal_elsewhere_is_read_again(
    nodes: tuple[World, World],
) -> None:
    one, other = nodes
    log = await one.group("alice", "bob")
    await other.post(log, "alice", "makes the log known there")
    other.script.plan("memberships", Fate(after=0.5))
    viewing = asyncio.ensure_future(other.node.sequencer.view(log, "bob"))
    await settled()
    await one.remove(log, "alice", "bob")
    # The log moves on there before the row comes.
    assert (await other.node.sequencer.view(log, "alice")).head == 3
    view = await viewing
    assert view.membership is not None
    assert not view.membership.current
    assert await reason(other, "bob", other.message(log)) is Reason.CONVERSATION_NOT_FOUND


async def test_a_row_that_is_newer_than_the_log_is_known_here(nodes: tuple[World, World]) -> None:
    one, other = nodes
    log = await one.group("alice", "bob")
    await other.post(log, "alice", "makes the log known there")
    other.script.plan("memberships", Fate(before=0.5))
    viewing = asyncio.ensure_future(other.node.sequencer.view(log, "bob"))
    await settled()
    await one.post(log, "alice", "before")
    await one.remove(log, "alice", "bob")
    view = await viewing
    assert view.membership is not None
    assert (view.membership.last_visible, view.head) == (4, 4)


async def test_a_removal_after_the_heads_were_read_is_told(nodes: tuple[World, World]) -> None:
    one, other = nodes
    log = await one.group("alice", "bob")
    await one.post(log, "alice", "clears what is pending")
    bob = other.device("bob")
    other.script.plan("memberships_of", Fate(before=0.5))
    await bob.hello({"inbox:bob": 1, log: 2}, synced=False)
    await settled()
    await one.remove(log, "alice", "bob")
    await until(lambda: bob.of("sync_complete"))
    assert bob.applied(log, 2) == 3


async def test_a_log_that_moved_far_is_loaded_anew(nodes: tuple[World, World]) -> None:
    one, other = nodes
    log = await one.group("alice", "bob")
    await other.post(log, "bob")
    await asyncio.gather(*(one.post(log, "alice", str(i)) for i in range(2_500)))
    await one.remove(log, "alice", "bob")
    assert await reason(other, "bob", other.message(log)) is Reason.CONVERSATION_NOT_FOUND
    assert await other.post(log, "alice") == one.pages(log)[-1].last_seq


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_both_do_at_once(nodes: tuple[World, World], seed: int) -> None:
    rng = random.Random(seed)
    users = ["alice", "bob", "carol", "dave"]
    log = await nodes[0].group(*users)
    for world in nodes:
        world.script.always.update(
            {
                "append": Fate(before=0.01, after=0.01),
                "heads": Fate(before=0.005),
                "read": Fate(after=0.01),
            }
        )
    said: dict[str, list[str]] = {user: [] for user in users}

    async def act(user: str) -> None:
        for number in range(25):
            world = rng.choice(nodes)
            await asyncio.sleep(rng.random() * 0.02)
            try:
                match rng.randrange(6):
                    case 0:
                        await world.add(log, user, rng.choice(users))
                    case 1:
                        await world.remove(log, "alice", rng.choice(users[1:]))
                    case _:
                        change, text = world.new_id(), f"{user} {number}"
                        await world.post(log, user, text, change_id=change)
                        said[user].append(text)
                        if rng.random() < 0.3:
                            # Who was removed meanwhile is told the same: the message is there.
                            await rng.choice(nodes).post(log, user, text, change_id=change)
            except DomainError as problem:
                assert problem.reason in (  # noqa: PT017
                    Reason.CONVERSATION_NOT_FOUND,
                    Reason.RIGHT_MISSING,
                )

    await asyncio.gather(*(act(user) for user in users))
    entries = nodes[0].entries(log)
    assert [e.seq for e in entries] == list(range(1, len(entries) + 1))
    texts = nodes[0].texts(log)
    for user in users:
        assert [t for t in texts if t.startswith(user)] == said[user]
    members = {user: (await nodes[0].node.sequencer.view(log, user)).membership for user in users}
    assert members == {
        user: (await nodes[1].node.sequencer.view(log, user)).membership for user in users
    }
    # A membership ended or began where the log says so, and only members have written.
    for entry in entries:
        membership = members.get(entry.user_id)
        assert membership is not None
        assert membership.visible(entry.seq)


async def test_a_device_here_hears_of_what_was_appended_there(nodes: tuple[World, World]) -> None:
    one, other = nodes
    log = await one.group("alice", "bob")
    bob = other.device("bob")
    await bob.hello()
    await one.post(log, "alice", "unheard of")
    await other.post(log, "bob", "published here")
    await until(lambda: bob.applied(log) == 3)


async def test_what_follows_a_removal_is_not_caught_up_on_what_was_known_before(
    nodes: tuple[World, World],
) -> None:
    one, other = nodes
    log = await one.group("alice", "bob")
    bob = other.device("bob")
    await bob.hello()
    await other.post(log, "bob", "makes the log and bob known there")
    await until(lambda: bob.applied(log) == 2)
    await one.post(log, "alice", "bob lags")
    await other.node.sequencer.view(log, "bob")
    other.script.plan("heads", Fate(after=0.5))
    other.node.hub.on_publication(HeadPublished(log, 3))
    await settled()
    # The head that was read is on its way. The publication of the removal is lost.
    await one.remove(log, "alice", "bob")
    await one.post(log, "alice", "behind his back")
    other.node.hub.on_publication(PagePublished(log, one.pages(log)[-1]))
    await until(lambda: bob.applied(log) >= 4)
    await asyncio.sleep(1)
    assert bob.applied(log) == 4
