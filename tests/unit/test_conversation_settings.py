"""Settings of conversations: changing them by a mask, how members, newcomers and ex-members see them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.world import World, refusal, until
from tidings.v1.conversation_pb2 import ConversationSettings
from tidings_server.codec.settings import MAX_BYTES
from tidings_server.core import commands as c
from tidings_server.core import state as folding
from tidings_server.core.entries import SETTINGS, ConversationUpdated, NewMember, Role
from tidings_server.core.permissions import SETTING_RIGHTS, Right
from tidings_server.core.state import ConversationState
from tidings_server.errors import Reason

pytestmark = pytest.mark.virtual_time


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World().start()
    yield world
    await world.stop()


def update(world: World, log: str, *, again: str = "", **changes: Any) -> c.UpdateConversation:
    pairs = tuple((name, changes[name]) for name in SETTINGS if name in changes)
    return c.UpdateConversation(log, world.change_id(again), pairs)


async def updated(world: World, user: str, log: str, **changes: Any) -> int:
    got = await world.execute(user, update(world, log, **changes))
    assert isinstance(got, c.ConversationChanged)
    assert got.command is c.UpdateConversation
    return got.seq


async def seen(world: World, user: str, log: str) -> tuple[str, str, str, str]:
    got = await world.execute(user, c.GetConversation(log))
    assert isinstance(got, c.ConversationGot)
    view = got.view
    return view.title, view.description, view.picture, view.custom_data


def test_settings_have_one_list() -> None:
    assert {f.name for f in ConversationSettings.DESCRIPTOR.fields} == set(SETTINGS)
    assert (
        set(SETTINGS)
        == set(SETTING_RIGHTS)
        == {
            *MAX_BYTES,
            "frozen",
            "rights",
            "history_for_newcomers",
        }
    )
    assert set(SETTINGS) <= set(ConversationState.__dataclass_fields__)


@pytest.mark.parametrize("restart", [False, True])
async def test_what_the_mask_names_changes(world: World, restart: bool) -> None:
    log = await world.group("alice", "bob")
    everything = {
        "title": "Trip",
        "description": "Where to?",
        "picture": "https://example.org/a.png",
        "custom_data": '{"a":1}',
    }
    assert await updated(world, "alice", log, **everything) == 2
    assert await updated(world, "alice", log, description="", title="Trip") == 3
    assert world.entries(log)[2].body == ConversationUpdated((("description", ""),))
    if restart:
        await world.restart()
    assert await seen(world, "bob", log) == ("Trip", "", everything["picture"], '{"a":1}')
    # It is told who joins later, and listed.
    await world.add(log, "alice", "carol")
    assert world.entries("inbox:carol")[0].body.title == "Trip"  # type: ignore[union-attr]
    got = await world.execute("carol", c.ListConversations(10, ""))
    assert isinstance(got, c.ConversationsListed)
    assert got.views[0].picture == everything["picture"]


async def test_what_is_so_already_is_not_written(world: World) -> None:
    log = await world.group("alice", "bob")
    assert await updated(world, "alice", log, title="Plan", description="") == 0
    assert len(world.entries(log)) == 1


async def test_the_same_request_again(world: World) -> None:
    log = await world.group("alice", "bob")
    request = world.new_id()
    command = update(world, log, again=request, title="Trip", description="")
    first = await world.execute("alice", command)
    await updated(world, "alice", log, title="Another")
    await world.restart()
    assert await world.execute("alice", command) == first
    assert (await seen(world, "bob", log))[0] == "Another"
    other = update(world, log, again=request, title="Elsewhere")
    assert (await refusal(world, "alice", other)).reason is Reason.ID_REUSED


async def test_who_may_not(world: World) -> None:
    log = await world.group("alice", "bob")
    roles = (NewMember("mona", Role.MODERATOR), NewMember("ada", Role.ADMIN))
    await world.execute("alice", c.AddMembers(log, world.change_id(), roles))
    command = update(world, log, title="Trip")
    for user in ("bob", "mona"):
        assert (await refusal(world, user, command)).reason is Reason.RIGHT_MISSING
    stranger = await refusal(world, "mallory", command)
    absent = await refusal(world, "mallory", update(world, world.new_id(), title="Trip"))
    assert repr(stranger) == repr(absent)
    assert stranger.reason is Reason.CONVERSATION_NOT_FOUND
    await updated(world, "ada", log, title="Trip")
    direct = await world.direct("alice", "bob")
    fixed = await refusal(world, "alice", update(world, direct, custom_data="x"))
    assert fixed.reason is Reason.DIRECT_FIXED


async def test_who_has_left_is_not_told_what_changed_later(world: World) -> None:
    log = await world.group("alice", "bob", "carol")
    await updated(world, "alice", log, description="before")
    await world.remove(log, "alice", "bob")
    assert await seen(world, "bob", log) == ("Plan", "before", "", "")
    await updated(world, "alice", log, picture="p")
    assert await seen(world, "bob", log) == ("", "", "", "")
    await world.restart()
    assert await seen(world, "bob", log) == ("", "", "", "")
    assert await seen(world, "carol", log) == ("Plan", "before", "p", "")


async def test_all_devices_are_told(world: World) -> None:
    log = await world.group("alice", "bob")
    devices = [world.device("bob"), world.device("bob", "laptop"), world.device("alice")]
    for device in devices:
        await device.hello()
    await updated(world, "alice", log, title="Trip")
    for device in devices:
        await until(lambda device=device: device.applied(log) == 2)  # type: ignore[misc]
        told = device.of("entry")[-1].entry.conversation_updated
        assert (told.settings.title, list(told.update_mask.paths)) == ("Trip", ["title"])


@pytest.mark.parametrize("restart", [False, True])
async def test_a_frozen_conversation(world: World, restart: bool) -> None:
    log = await world.group("alice", "bob")
    own = await world.post(log, "bob")
    await updated(world, "alice", log, frozen=True)
    if restart:
        await world.restart()
    for command in (world.message(log), c.SetReaction(log, world.change_id(), own, "x")):
        assert (await refusal(world, "bob", command)).reason is Reason.FROZEN
    await world.post(log, "alice")
    await updated(world, "alice", log, frozen=False)
    await world.post(log, "bob")


@pytest.mark.parametrize("restart", [False, True])
async def test_rights_of_one_conversation(world: World, restart: bool) -> None:
    log, other = await world.group("alice", "bob"), await world.group("alice", "bob")
    channel = ((int(Role.MEMBER), int(Right.POST), False),)
    await updated(world, "alice", log, rights=channel)
    if restart:
        await world.restart()
    assert (await refusal(world, "bob", world.message(log))).reason is Reason.RIGHT_MISSING
    await world.post(other, "bob")
    got = await world.execute("bob", c.GetConversation(log))
    assert isinstance(got, c.ConversationGot)
    assert got.view.rights == channel
    ada = (NewMember("ada", Role.ADMIN),)
    await world.execute("alice", c.AddMembers(log, world.change_id(), ada))
    problem = await refusal(world, "ada", update(world, log, rights=()))
    assert problem.reason is Reason.RIGHT_MISSING
    await updated(world, "alice", log, rights=())
    await world.post(log, "bob")


def test_settings_are_kept_in_snapshots() -> None:
    rights = ((1, 2, False), (5, 2, True))
    state = ConversationState(
        seq=9, title="Trip", description="ä", picture="p", updated_seq=7, frozen=True, rights=rights
    )
    assert folding.load(folding.dump(state)) == state
    # A node of the first version reads a snapshot without them as its own.
    assert b"description" not in folding.dump(ConversationState(seq=9, title="Trip"))
