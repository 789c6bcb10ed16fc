"""Invitations: who may join by them, how many, until when, and what everybody else learns."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256

import pytest

from tests.unit.world import HOUR_MS, World, refusal, until
from tidings_server.core import commands as c
from tidings_server.core import state as folding
from tidings_server.core.entries import InvitationSet, MembersAdded, NewMember
from tidings_server.core.limits import Limits
from tidings_server.core.state import ConversationState
from tidings_server.errors import Reason
from tidings_server.messaging.invitations import MAX_INVITATIONS

pytestmark = pytest.mark.virtual_time

CODE = sha256(b"a code that nobody guesses").hexdigest()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World().start()
    yield world
    await world.stop()


async def invite(world: World, log: str, uses: int, ms: int = HOUR_MS, code: str = CODE) -> int:
    until_ms = world.clock.now_ms() + ms if uses else 0
    got = await world.execute(
        "alice", c.SetInvitation(log, world.change_id(), code, uses, until_ms)
    )
    assert isinstance(got, c.ConversationChanged)
    return got.seq


def joining(world: World, log: str, code: str = CODE) -> c.JoinConversation:
    return c.JoinConversation(log, world.change_id(), code)


async def join(world: World, log: str, user: str) -> int:
    got = await world.execute(user, joining(world, log))
    assert isinstance(got, c.ConversationChanged)
    assert got.command is c.JoinConversation
    return got.seq


async def test_nobody_joins_a_group_that_all_have_left(world: World) -> None:
    log = await world.group("alice")
    await invite(world, log, 2)
    await world.remove(log, "alice", "alice")
    for user in ("alice", "bob"):
        problem = await refusal(world, user, joining(world, log))
        assert problem.reason is Reason.CONVERSATION_NOT_FOUND


@pytest.mark.parametrize("restart", [False, True])
async def test_as_many_join_as_are_invited(world: World, restart: bool) -> None:
    log = await world.group("alice")
    await invite(world, log, 2)
    carol = world.device("carol")
    await carol.hello()
    assert await join(world, log, "bob") == 3
    assert await join(world, log, "bob") == 0
    if restart:
        await world.restart()
        carol = world.device("carol")
        await carol.hello()
    assert await join(world, log, "carol") == 4
    assert world.entries(log)[3].body == MembersAdded((NewMember("carol"),), invitation=CODE)
    await until(lambda: carol.applied(log) == 4)
    await world.post(log, "carol")
    assert (await refusal(world, "dave", joining(world, log))).reason is (
        Reason.CONVERSATION_NOT_FOUND
    )
    # Nothing was noted for whoever did not come to be a member.
    assert await world.store.user_logs("dave") == []
    await invite(world, log, 1)
    await join(world, log, "dave")


async def test_who_may_not_join_learns_nothing(world: World) -> None:
    log = await world.group("alice", "bob")
    direct = await world.direct("alice", "bob")
    absent = await refusal(world, "mallory", joining(world, world.new_id()))
    await invite(world, log, 5)
    await world.execute(
        "alice", c.SetBan(log, world.change_id(), "bob", world.clock.now_ms() + HOUR_MS)
    )
    for user, place, code in (
        ("mallory", log, "0" * 64),
        ("mallory", direct, CODE),
        ("bob", log, CODE),
    ):
        assert repr(await refusal(world, user, joining(world, place, code))) == repr(absent)
    world.clock.step(HOUR_MS)
    assert repr(await refusal(world, "mallory", joining(world, log))) == repr(absent)
    await invite(world, log, 1)
    await invite(world, log, 0)
    assert repr(await refusal(world, "mallory", joining(world, log))) == repr(absent)


async def test_the_same_request_again(world: World) -> None:
    log = await world.group("alice")
    await invite(world, log, 1)
    command = joining(world, log)
    first = await world.execute("bob", command)
    world.clock.step(2 * HOUR_MS)
    await world.restart()
    assert await world.execute("bob", command) == first
    assert len(world.entries(log)) == 3


async def test_many_join_at_once(world: World) -> None:
    log = await world.group("alice")
    await invite(world, log, 3)
    answers: list[object] = []
    for n in range(8):
        world.node.handlers.submit(world.principal(f"user{n}"), joining(world, log), answers.append)
    await until(lambda: len(answers) == 8)
    assert sum(isinstance(answer, c.ConversationChanged) for answer in answers) == 3


async def test_making_invitations(world: World) -> None:
    log = await world.group("alice", "bob")
    later = world.clock.now_ms() + HOUR_MS
    for user, command, reason in (
        ("bob", c.SetInvitation(log, world.change_id(), CODE, 1, later), Reason.RIGHT_MISSING),
        (
            "mallory",
            c.SetInvitation(log, world.change_id(), CODE, 1, later),
            Reason.CONVERSATION_NOT_FOUND,
        ),
        ("alice", c.SetInvitation(log, world.change_id(), CODE, 1, 1), Reason.INVALID_FIELD),
    ):
        assert (await refusal(world, user, command)).reason is reason
    assert await invite(world, log, 0) == 0
    for n in range(MAX_INVITATIONS):
        await invite(world, log, 1, code=f"{n:064}")
    one_more = c.SetInvitation(log, world.change_id(), CODE, 1, later)
    assert (await refusal(world, "alice", one_more)).reason is Reason.INVITATION_LIMIT
    await invite(world, log, 0, code=f"{3:064}")
    seq = await invite(world, log, 7)
    assert world.entries(log)[seq - 1].body == InvitationSet(CODE, 7, later)


async def test_a_full_group() -> None:
    world = await World(limits=Limits(max_members=2)).start()
    log = await world.group("alice")
    await invite(world, log, 5)
    await join(world, log, "bob")
    assert (await refusal(world, "carol", joining(world, log))).reason is Reason.MEMBER_LIMIT
    await world.stop()


def test_invitations_are_kept_in_snapshots() -> None:
    state = ConversationState(seq=9, invitations=((CODE, 3, 17),))
    assert folding.load(folding.dump(state)) == state
