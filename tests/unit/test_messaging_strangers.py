"""What a caller without rights may not bring about, and what the server must look up though it is far back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.unit.world import HOUR_MS, World, settled
from tidings_server.core import commands as c
from tidings_server.core.entries import ConversationKind
from tidings_server.errors import DomainError, Reason
from tidings_server.messaging import log_state, lookup
from tidings_server.storage.memory import Fate

pytestmark = pytest.mark.virtual_time


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = await World().start()
    yield made
    await made.stop()


async def refusal(world: World, user: str, command: c.Command) -> Reason:
    with pytest.raises(DomainError) as caught:
        await world.execute(user, command)
    return caught.value.reason


async def test_a_stranger_with_an_id_that_a_member_has_used(world: World) -> None:
    log, known = await world.group("alice", "bob"), world.new_id()
    await world.post(log, "alice", change_id=known)
    asking = asyncio.ensure_future(refusal(world, "mallory", world.message(log, change_id=known)))
    # Without time passing: what was wrong here never came to rest.
    await settled()
    assert asking.done()
    assert await asking is Reason.CONVERSATION_NOT_FOUND
    assert await world.post(log, "bob") == 3


async def test_a_stranger_has_nothing_looked_up(world: World) -> None:
    old = world.new_id()
    world.clock.step(HOUR_MS)
    log = await world.group("alice", "bob")
    await world.post(log, "alice")
    world.script.calls.clear()
    command = world.message(log, change_id=old, after=old)
    assert await refusal(world, "mallory", command) is Reason.CONVERSATION_NOT_FOUND
    assert not world.script.calls["read_ids"]


async def test_a_stranger_learns_nothing_of_the_messages(world: World) -> None:
    log, known = await world.group("alice", "bob"), world.new_id()
    await world.post(log, "alice", change_id=known)
    for after in known, world.new_id():
        command = world.message(log, after=after)
        assert await refusal(world, "mallory", command) is Reason.CONVERSATION_NOT_FOUND


@pytest.mark.parametrize("exists", [True, False])
async def test_nobody_is_noted_for_a_conversation_by_who_may_not_add(
    world: World, exists: bool
) -> None:
    log = await world.group("alice", "bob") if exists else world.new_id()
    for by in "mallory", "bob":
        with pytest.raises(DomainError):
            await world.add(log, by, "victim")
    assert await world.store.user_logs("victim") == []


async def test_nobody_is_noted_for_a_group_whose_id_lies_ahead(world: World) -> None:
    change = world.change_id()
    world.clock.step(-HOUR_MS)
    command = c.CreateConversation(ConversationKind.GROUP, ("victim",), "", change)
    assert await refusal(world, "mallory", command) is Reason.ID_AHEAD
    assert await world.store.user_logs("victim") == []


async def test_a_note_is_found_however_far_back_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "_MOST_PAGES", 20)
    monkeypatch.setattr(lookup, "_PAGES_AT_ONCE", 10)
    log = await world.direct("alice", "bot")
    for i in range(30):
        world.clock.step(HOUR_MS)
        await world.direct(f"user{i}", "bot")
    inbox = len(world.entries("inbox:bot"))
    await world.restart()
    # The effects of the creation are pending: nothing was committed to the conversation since.
    assert await world.post(log, "alice") == 2
    assert len(world.entries("inbox:bot")) == inbox


async def test_too_many_memberships_are_not_forgotten_while_one_changes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await world.group("alice", *(f"user{i}" for i in range(5)))
    await world.post(log, "alice")
    monkeypatch.setattr(log_state, "MAX_MEMBERSHIPS", 4)
    world.script.plan("append", Fate(before=1, after=1))
    removing = asyncio.ensure_future(world.remove(log, "alice", "user0"))
    await settled()
    # The change is under way, and the row in the store is behind until its effects are written.
    world.script.plan("memberships", Fate(), Fate(before=5))
    await refusal(world, "stranger", c.GetConversation(log))
    await asyncio.sleep(3)
    assert await refusal(world, "user0", world.message(log)) is Reason.CONVERSATION_NOT_FOUND
    await removing
    assert await refusal(world, "user0", world.message(log)) is Reason.CONVERSATION_NOT_FOUND
