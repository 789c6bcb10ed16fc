"""The same id again: it is one message for ever, and looking for it holds up nobody for long."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.world import HOUR_MS, Sent, World, refusal, until
from tidings_server.core import commands as c
from tidings_server.core.entries import NewMember
from tidings_server.core.ids import uuid7
from tidings_server.errors import DomainError, Reason
from tidings_server.messaging import log_state, lookup

pytestmark = pytest.mark.virtual_time


# The same id again


async def test_the_same_id_again_is_the_same_position(world: World, log: str, sent: Sent) -> None:
    first = await world.post(log, "alice", "one", change_id=(change := world.new_id()))
    assert await world.post(log, "alice", "one", change_id=change) == first
    assert world.texts(log) == ["one"]


async def test_the_same_id_twice_in_one_batch(world: World, log: str, sent: Sent) -> None:
    change = sent.post(log, "alice", "one")
    sent.post(log, "alice", "one", again=change)
    sent.post(log, "alice", "one", again=change)
    await until(lambda: len(sent.answers[change]) == 3)
    one, *others = sent.answers[change]
    assert others == [one, one]
    assert world.texts(log) == ["one"]


async def test_an_id_used_again_for_something_else(world: World, log: str) -> None:
    seq = await world.post(log, "alice", "one", change_id=(change := world.new_id()))
    problem = await refusal(world, "alice", world.message(log, "two", change_id=change))
    assert (problem.reason, problem.field) == (Reason.ID_REUSED, "message_id")
    assert problem.metadata == {"seq": str(seq)}
    problem = await refusal(
        world, "alice", c.AddMembers(log, world.change_id(change), (NewMember("carol"),))
    )
    assert (problem.reason, problem.field) == (Reason.ID_REUSED, "request_id")
    assert world.texts(log) == ["one"]


async def test_an_id_is_its_senders_own(world: World, log: str) -> None:
    change = world.new_id()
    assert await world.post(log, "alice", "hers", change_id=change) == 2
    assert await world.post(log, "bob", "his", change_id=change) == 3
    assert await world.post(log, "alice", "hers", change_id=change) == 2
    assert await world.post(log, "bob", "his", change_id=change) == 3
    await world.restart()
    assert await world.post(log, "bob", "his", change_id=change) == 3
    assert world.texts(log) == ["hers", "his"]


async def test_the_same_id_after_a_restart(world: World, log: str) -> None:
    ids = [world.new_id() for _ in range(5)]
    seqs = [await world.post(log, "alice", change_id=i) for i in ids]
    await world.restart()
    assert [await world.post(log, "alice", change_id=i) for i in ids] == seqs
    assert len(world.entries(log)) == 6


@pytest.mark.parametrize("restart", [False, True])
async def test_late_retries(world: World, log: str, restart: bool) -> None:
    """However late, and however much was posted since: the id tells where to look."""
    first = await world.post(log, "alice", "early", change_id=(early := world.new_id()))
    for _ in range(30):
        world.clock.step(HOUR_MS)
        await world.post(log, "bob")
    if restart:
        await world.restart()
    assert await world.post(log, "alice", "early", change_id=early) == first
    assert world.texts(log).count("early") == 1


async def test_a_message_made_long_ago_and_never_sent(world: World, log: str) -> None:
    old = world.new_id()
    for _ in range(5):
        world.clock.step(HOUR_MS)
        await world.post(log, "bob")
    await world.restart()
    assert await world.post(log, "alice", "at last", change_id=old) == 7
    assert await world.post(log, "alice", "at last", change_id=old) == 7


async def test_a_retry_of_who_was_removed_meanwhile(world: World, log: str) -> None:
    seq = await world.post(log, "bob", "last words", change_id=(change := world.new_id()))
    await world.remove(log, "alice", "bob")
    assert await world.post(log, "bob", "last words", change_id=change) == seq
    problem = await refusal(world, "bob", world.message(log, "more"))
    assert problem.reason is Reason.CONVERSATION_NOT_FOUND


async def test_clocks_that_go_back(world: World, log: str) -> None:
    """Stamps stay where they were, so that every id is still found."""
    ids = [world.new_id()]
    await world.post(log, "alice", change_id=ids[0])
    for step in (-2 * HOUR_MS, 1000, HOUR_MS // 2, -HOUR_MS):
        world.clock.step(step)
        ids.append(world.new_id())
        await world.post(log, "alice", change_id=ids[-1])
        await world.add(log, "alice", f"user-{len(ids)}")
        await world.restart()
    stamps = [page.stamp for page in world.pages(log)]
    assert stamps == sorted(stamps)
    count = len(world.entries(log))
    for change in ids:
        await world.post(log, "alice", change_id=change)
    assert len(world.entries(log)) == count


async def test_a_look_up_has_a_budget(
    world: World, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "_MOST_PAGES", 20)
    monkeypatch.setattr(lookup, "_PAGES_AT_ONCE", 10)
    early = world.new_id()
    for _ in range(28):
        world.clock.step(HOUR_MS)
        await world.post(log, "bob")
    await world.restart()
    problem = await refusal(world, "alice", world.message(log, change_id=early))
    assert problem.reason is Reason.OUTCOME_UNKNOWN
    assert len(world.entries(log)) == 29
    # Who asks again gets further, and past what others have written meanwhile.
    await world.post(log, "bob")
    reads = world.script.calls["read_ids"]
    assert await world.post(log, "alice", change_id=early) == 31
    assert world.script.calls["read_ids"] == reads + 2
    await world.restart()
    for _ in range(2):
        problem = await refusal(world, "alice", world.message(log, change_id=early, text="other"))
    assert problem.reason is Reason.ID_REUSED


async def test_look_ups_of_many_old_ids_all_come_to_their_end(
    world: World, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "_MOST_PAGES", 400)
    monkeypatch.setattr(lookup, "_PAGES_AT_ONCE", 200)
    early = [world.new_id() for _ in range(150)]
    for _ in range(500):
        world.clock.step(HOUR_MS)
        await world.post(log, "bob")
    await world.restart()
    for change in early:
        problem = await refusal(world, "alice", world.message(log, change_id=change))
        assert problem.reason is Reason.OUTCOME_UNKNOWN
    for at, change in enumerate(early):
        assert await world.post(log, "alice", change_id=change) == 502 + at


async def test_old_ids_that_wait_together_are_looked_up_by_one_reading(
    world: World, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "_MOST_PAGES", 40)
    monkeypatch.setattr(lookup, "_PAGES_AT_ONCE", 20)
    early = [world.new_id() for _ in range(30)]
    # One of them is there: its answer was lost.
    there = await world.post(log, "alice", "17", change_id=early[17])
    for _ in range(100):
        world.clock.step(HOUR_MS)
        await world.post(log, "bob")
    await world.restart()
    await world.post(log, "bob", "loads the log")

    async def again() -> list[int | Reason]:
        async def one(at: int) -> int | Reason:
            try:
                return await world.post(log, "alice", str(at), change_id=early[at])
            except DomainError as problem:
                return problem.reason

        return await asyncio.gather(*(one(at) for at in range(len(early))))

    for _ in range(4):
        reads = world.script.calls["read_ids"]
        assert set(await again()) == {Reason.OUTCOME_UNKNOWN}
        assert world.script.calls["read_ids"] == reads + 2
        # Others write meanwhile.
        await world.post(log, "bob")
    seqs = await again()
    assert seqs[17] == there
    new = [seq for at, seq in enumerate(seqs) if at != 17]
    assert new == list(range(new[0], new[0] + 29))
    assert new[0] == 108


async def test_fresh_messages_are_not_looked_up_in_a_busy_log(
    world: World, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_state, "_RECENT_PAGES", 10)
    for i in range(95):
        world.clock.step(20)
        await world.post(log, "alice", str(i))
    await world.restart()
    await world.post(log, "bob", "loads the log")
    reads = world.script.calls["read_ids"]
    for i in range(20):
        world.clock.step(20)
        await world.post(log, "alice", str(i))
    assert world.script.calls["read_ids"] == reads


async def test_many_ids_ahead_do_not_slow_others(world: World, log: str) -> None:
    capacity = world.node.sequencer._logs[log].state.recent._capacity  # type: ignore[union-attr]
    ahead = world.clock.now_ms() + 290_000
    refused = 0
    for i in range(capacity + 500):
        change = uuid7(ahead + i % 100, world.rng)
        try:
            await world.post(log, "alice", change_id=change)
        except DomainError as problem:
            assert problem.reason is Reason.ID_AHEAD  # noqa: PT017
            refused += 1
    assert refused > capacity // 2
    for i in range(2 * capacity):
        world.clock.step(1)
        await world.post(log, "bob", str(i))
    assert not world.script.calls["read_ids"]
    # As soon as they lie ahead no more, there is room again.
    world.clock.step(290_000)
    await world.post(log, "alice", change_id=uuid7(world.clock.now_ms() + 200_000, world.rng))


async def test_nobody_looks_further_back_than_the_senders_joining(
    world: World, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "_MOST_PAGES", 20)
    monkeypatch.setattr(lookup, "_PAGES_AT_ONCE", 10)
    early = world.new_id()
    for _ in range(30):
        world.clock.step(HOUR_MS)
        await world.post(log, "bob")
    await world.add(log, "alice", "carol")
    await world.restart()
    assert await world.post(log, "carol", change_id=early) == 33


async def test_a_change_of_members_again(world: World, log: str) -> None:
    add = c.AddMembers(log, world.change_id(), (NewMember("carol"), NewMember("bob")))
    assert await world.execute("alice", add) == c.ConversationChanged(c.AddMembers, 2)
    remove = c.RemoveMember(log, world.change_id(), "carol")
    assert await world.execute("alice", remove) == c.ConversationChanged(c.RemoveMember, 3)
    leave = c.LeaveConversation(log, world.change_id())
    assert await world.execute("bob", leave) == c.ConversationChanged(c.LeaveConversation, 4)
    await world.restart()
    assert await world.execute("alice", add) == c.ConversationChanged(c.AddMembers, 2)
    assert await world.execute("alice", remove) == c.ConversationChanged(c.RemoveMember, 3)
    assert await world.execute("bob", leave) == c.ConversationChanged(c.LeaveConversation, 4)
    assert len(world.entries(log)) == 4
