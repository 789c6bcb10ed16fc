"""Roles: giving them, transferring an ownership, and that no group ends without an owner."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import get_args

import pytest

from tests.unit.world import World, refusal, until
from tidings_server.admin.evidence import KINDS
from tidings_server.core import commands as c
from tidings_server.core import state as folding
from tidings_server.core.entries import (
    Body,
    ConversationCreated,
    ConversationKind,
    Entry,
    MemberRemoved,
    MemberRoleSet,
    MembersAdded,
    NewMember,
    Role,
    RoleChange,
)
from tidings_server.errors import Reason

pytestmark = pytest.mark.virtual_time

ROLES = {
    "alice": Role.OWNER,
    "ada": Role.ADMIN,
    "mona": Role.MODERATOR,
    "bob": Role.MEMBER,
    "gus": Role.GUEST,
}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World().start()
    yield world
    await world.stop()


@pytest.fixture
async def log(world: World) -> str:
    """A group with a member of each role."""
    log = await world.group("alice")
    members = tuple(NewMember(user, role) for user, role in ROLES.items() if user != "alice")
    await world.execute("alice", c.AddMembers(log, world.change_id(), members))
    return log


def giving(world: World, log: str, user: str, role: Role, *, again: str = "") -> c.SetRole:
    return c.SetRole(log, world.change_id(again), user, role)


async def give(world: World, by: str, log: str, user: str, role: Role) -> int:
    got = await world.execute(by, giving(world, log, user, role))
    assert isinstance(got, c.ConversationChanged)
    assert got.command is c.SetRole
    return got.seq


async def transfer(world: World, by: str, log: str, user: str) -> int:
    got = await world.execute(by, c.TransferOwnership(log, world.change_id(), user))
    assert isinstance(got, c.ConversationChanged)
    assert got.command is c.TransferOwnership
    return got.seq


async def roles(world: World, log: str) -> dict[str, Role]:
    got = await world.execute("alice", c.ListMembers(log, 100, ""))
    assert isinstance(got, c.MembersListed)
    return {m.user_id: m.role for m in got.members}


async def leave(world: World, log: str, user: str) -> Reason | None:
    command = c.LeaveConversation(log, world.change_id())
    try:
        await world.execute(user, command)
    except Exception as problem:  # noqa: BLE001
        return problem.reason  # type: ignore[attr-defined,no-any-return]
    return None


@pytest.mark.parametrize("restart", [False, True])
async def test_a_role_is_given(world: World, log: str, restart: bool) -> None:
    devices = [world.device("bob"), world.device("gus")]
    for device in devices:
        await device.hello()
    assert await give(world, "ada", log, "bob", Role.MODERATOR) == 3
    assert await give(world, "ada", log, "bob", Role.MODERATOR) == 0
    for device in devices:
        await until(lambda device=device: device.applied(log) == 3)  # type: ignore[misc]
        (change,) = device.of("entry")[-1].entry.member_role_set.changes
        assert (change.user_id, change.role, change.previous_role) == ("bob", 4, 1)
    if restart:
        await world.restart()
    assert await roles(world, log) == {**ROLES, "bob": Role.MODERATOR}
    # It is what counts from there on, and nobody joined.
    await world.remove(log, "bob", "gus")
    assert len(world.entries("inbox:bob")) == 1


async def test_the_same_request_again(world: World, log: str) -> None:
    request = world.new_id()
    command = giving(world, log, "bob", Role.GUEST, again=request)
    first = await world.execute("alice", command)
    await give(world, "alice", log, "bob", Role.ADMIN)
    await world.restart()
    assert await world.execute("alice", command) == first
    assert (await roles(world, log))["bob"] is Role.ADMIN
    other = giving(world, log, "bob", Role.MEMBER, again=request)
    assert (await refusal(world, "alice", other)).reason is Reason.ID_REUSED


@pytest.mark.parametrize(
    ("by", "user", "role"),
    [
        ("bob", "gus", Role.MEMBER),
        ("bob", "bob", Role.GUEST),
        ("mona", "gus", Role.MEMBER),
        ("ada", "alice", Role.MEMBER),
        ("ada", "bob", Role.ADMIN),
        ("ada", "bob", Role.OWNER),
        ("ada", "ada", Role.OWNER),
    ],
)
async def test_who_may_not_give_a_role(
    world: World, log: str, by: str, user: str, role: Role
) -> None:
    problem = await refusal(world, by, giving(world, log, user, role))
    assert problem.reason is Reason.RIGHT_MISSING
    assert len(world.entries(log)) == 2


async def test_others_learn_nothing(world: World, log: str) -> None:
    await world.remove(log, "alice", "gus")
    for user in ("mallory", "gus"):
        there = await refusal(world, user, giving(world, log, "bob", Role.GUEST))
        absent = await refusal(world, user, giving(world, world.new_id(), "bob", Role.GUEST))
        assert repr(there) == repr(absent)
    for by in ("alice", "ada"):
        for user in ("gus", "mallory"):
            problem = await refusal(world, by, giving(world, log, user, Role.GUEST))
            assert problem.reason is Reason.MEMBER_NOT_FOUND
    direct = await world.direct("alice", "bob")
    problem = await refusal(world, "alice", giving(world, direct, "bob", Role.GUEST))
    assert problem.reason is Reason.DIRECT_FIXED


async def test_an_ownership_is_transferred(world: World, log: str) -> None:
    assert await leave(world, log, "alice") is Reason.LAST_OWNER
    for by, user in (("ada", "bob"), ("bob", "gus")):
        command = c.TransferOwnership(log, world.change_id(), user)
        assert (await refusal(world, by, command)).reason is Reason.RIGHT_MISSING
    command = c.TransferOwnership(log, world.change_id(), "alice")
    assert (await refusal(world, "alice", command)).field == "user_id"
    assert await transfer(world, "alice", log, "gus") == 3
    assert world.entries(log)[2].body == MemberRoleSet(
        (
            RoleChange("gus", Role.OWNER, Role.GUEST),
            RoleChange("alice", Role.ADMIN, Role.OWNER),
        )
    )
    await world.restart()
    assert await roles(world, log) == {**ROLES, "alice": Role.ADMIN, "gus": Role.OWNER}
    assert await leave(world, log, "alice") is None
    assert await leave(world, log, "gus") is Reason.LAST_OWNER


async def test_the_only_owner_stays_one(world: World, log: str) -> None:
    demoted = giving(world, log, "alice", Role.ADMIN)
    assert (await refusal(world, "alice", demoted)).reason is Reason.LAST_OWNER
    await give(world, "alice", log, "bob", Role.OWNER)
    await give(world, "alice", log, "alice", Role.MEMBER)
    await world.restart()
    assert await leave(world, log, "bob") is Reason.LAST_OWNER
    await give(world, "bob", log, "ada", Role.OWNER)
    assert await leave(world, log, "bob") is None
    # Whoever is alone may leave.
    for user in ("alice", "mona", "gus"):
        await world.remove(log, "ada", user)
    assert await leave(world, log, "ada") is None


async def test_two_owners_leave_at_once(world: World, log: str) -> None:
    await give(world, "alice", log, "bob", Role.OWNER)
    changes = [c.LeaveConversation(log, world.change_id()) for _ in range(2)]
    answers: list[object] = []
    for user, change in zip(("alice", "bob"), changes, strict=True):
        world.node.handlers.submit(world.principal(user), change, answers.append)
    await until(lambda: len(answers) == 2)
    reasons = [getattr(answer, "reason", None) for answer in answers]
    assert sorted(reasons, key=str) == [Reason.LAST_OWNER, None]


def entry(seq: int, body: Body) -> Entry:
    return Entry("log", seq, 0, "id", "alice", 1, body)


def test_owners_are_counted() -> None:
    members = (NewMember("alice", Role.OWNER), NewMember("bob"), NewMember("carol", Role.OWNER))
    bodies: list[tuple[Body, int]] = [
        (ConversationCreated(ConversationKind.GROUP, "", members), 2),
        (MembersAdded((NewMember("dave", Role.OWNER), NewMember("eve"))), 3),
        (MemberRemoved("bob", Role.MEMBER), 3),
        (MemberRemoved("dave", Role.OWNER), 2),
        (MemberRoleSet((RoleChange("eve", Role.OWNER, Role.MEMBER),)), 3),
        (MemberRoleSet((RoleChange("eve", Role.ADMIN, Role.OWNER),)), 2),
        # The first version does not tell what they were: there may be fewer owners than before.
        (MemberRemoved("eve"), 1),
        (MemberRemoved("frank"), 1),
    ]
    state = folding.EMPTY
    for seq, (body, count) in enumerate(bodies, 1):
        state = folding.fold(state, entry(seq, body))
        assert state.owner_count == count
        assert folding.load(folding.dump(state)) == state


def test_every_kind_of_entry_can_be_explained() -> None:
    assert set(KINDS) == set(get_args(Body))
