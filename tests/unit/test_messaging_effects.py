"""The sequencer and what changes bring about: memberships and notes are written before anybody is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from tests.unit.world import World, until
from tidings_server.core.entries import MembersAdded
from tidings_server.core.memberships import Membership
from tidings_server.storage.memory import Fate, Happens

pytestmark = pytest.mark.virtual_time


async def test_effects_are_written_before_the_answer(world: World, log: str) -> None:
    await world.add(log, "alice", "carol")
    rows = await world.store.memberships(log, ["carol"])
    assert rows["carol"].current
    (note,) = world.entries("inbox:carol")
    assert (note.user_id, getattr(note.body, "conversation_id", "")) == ("alice", log)


async def test_a_change_is_known_though_its_effects_can_not_be_written(
    world: World, log: str
) -> None:
    world.script.plan("put_memberships", *[Happens.REFUSED] * 8)
    assert await world.add(log, "alice", "carol") == 2
    assert await world.post(log, "carol", "hello") == 3
    await until(lambda: world.entries("inbox:carol"))
    rows = await world.store.memberships(log, ["carol"])
    assert rows["carol"].current


async def test_effects_that_meet_a_fault_are_written_all_the_same(
    world: World, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, faults = world.store.put_memberships, 3

    async def broken(name: str, rows: Sequence[Membership]) -> None:
        nonlocal faults
        if faults:
            faults -= 1
            raise RuntimeError("a bug")
        await put(name, rows)

    monkeypatch.setattr(world.store, "put_memberships", broken)
    with capture_logs() as lines:
        assert await world.add(log, "alice", "carol") == 2
        await until(lambda: world.entries("inbox:carol"))
    assert [line["event"] for line in lines] == ["effects_failed"] * 3
    assert (await world.store.memberships(log, ["carol"]))["carol"].current
    assert await world.post(log, "carol") == 3
    assert world.disk.heads([log])[log].pending == ()


async def test_effects_are_made_up_for_after_a_crash(world: World, log: str) -> None:
    world.script.always["put_memberships"] = Fate(Happens.REFUSED)
    await world.add(log, "alice", "carol")
    world.store.crash(lambda: True)
    assert not world.entries("inbox:carol")
    again = World(disk=world.disk)
    await again.start()
    view = await again.node.sequencer.view(log, "carol")
    assert view.membership is not None
    assert view.membership.current
    assert len(again.entries("inbox:carol")) == 1
    # Again and again: the same effects have the same ids.
    await again.restart()
    await again.node.sequencer.view(log, "carol")
    assert len(again.entries("inbox:carol")) == 1
    await again.stop()
    with capture_logs():
        await world.stop()


async def test_pending_changes_are_taken_from_the_head_by_a_later_commit(
    world: World, log: str
) -> None:
    await world.add(log, "alice", "carol")
    assert world.disk.heads([log])[log].pending == (2,)
    await world.post(log, "alice")
    assert world.disk.heads([log])[log].pending == ()


async def test_members_that_come_and_go(world: World, log: str) -> None:
    for _ in range(20):
        await world.add(log, "alice", "carol")
        await world.post(log, "carol")
        await world.remove(log, "alice", "carol")
    await world.restart()
    view = await world.node.sequencer.view(log, "carol")
    assert view.membership is not None
    assert len(view.membership.intervals) == 20
    assert view.conversation.member_count == 2
    notes = [type(e.body).__name__ for e in world.entries("inbox:carol")]
    assert notes == ["ConversationJoined", "ConversationLeft"] * 20


async def test_changes_that_come_together_are_decided_one_after_the_other(
    world: World, log: str
) -> None:
    world.script.always["put_memberships"] = Fate(before=0.1)
    outcomes = await asyncio.gather(
        *(world.add(log, "alice", "carol", "dave") for _ in range(5)),
        *(world.remove(log, "alice", "carol") for _ in range(5)),
    )
    assert sorted(outcomes) == [0] * 8 + [2, 3]
    added = world.entries(log)[1].body
    assert isinstance(added, MembersAdded)
    view = await world.node.sequencer.view(log, "dave")
    assert view.conversation.member_count == 3
