"""Mutes and bans: what they keep from whom, until when, and over removals and restarts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.world import HOUR_MS, World, refusal, until
from tidings_server.core import commands as c
from tidings_server.core.entries import MemberBanned, MemberMuted, MemberRemoved, NewMember, Role
from tidings_server.errors import Reason

pytestmark = pytest.mark.virtual_time


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World().start()
    yield world
    await world.stop()


@pytest.fixture
async def log(world: World) -> str:
    """A group of alice, who owns it, mona, who moderates it, bob and carol."""
    log = await world.group("alice", "bob", "carol")
    mona = (NewMember("mona", Role.MODERATOR),)
    await world.execute("alice", c.AddMembers(log, world.change_id(), mona))
    return log


async def mute(world: World, log: str, user: str, ms: int, by: str = "mona") -> int:
    until_ms = world.clock.now_ms() + ms if ms else 0
    got = await world.execute(by, c.SetMute(log, world.change_id(), user, until_ms))
    assert isinstance(got, c.ConversationChanged)
    assert got.command is c.SetMute
    return got.seq


async def ban(world: World, log: str, user: str, ms: int, by: str = "mona") -> int:
    until_ms = world.clock.now_ms() + ms if ms else 0
    got = await world.execute(by, c.SetBan(log, world.change_id(), user, until_ms))
    assert isinstance(got, c.ConversationChanged)
    assert got.command is c.SetBan
    return got.seq


def adding(world: World, log: str, user: str) -> c.AddMembers:
    return c.AddMembers(log, world.change_id(), (NewMember(user),))


@pytest.mark.parametrize("restart", [False, True])
async def test_a_muted_member_reads_and_deletes_only(world: World, log: str, restart: bool) -> None:
    own = await world.post(log, "bob")
    until_ms = world.clock.now_ms() + HOUR_MS
    assert await mute(world, log, "bob", HOUR_MS) == 4
    if restart:
        await world.restart()
    content = world.message(log).content
    for command in (
        world.message(log),
        c.EditMessage(log, world.change_id(), own, content),
        c.SetReaction(log, world.change_id(), own, "x"),
    ):
        problem = await refusal(world, "bob", command)
        assert problem.reason is Reason.MUTED
        assert problem.metadata == {"expire_time_ms": str(until_ms)}
    listed = await world.execute("carol", c.ListMembers(log, 10, ""))
    assert isinstance(listed, c.MembersListed)
    assert {m.user_id: m.muted_until_ms for m in listed.members}["bob"] == until_ms
    await world.execute("bob", c.DeleteMessage(log, world.change_id(), own))
    await world.post(log, "carol")
    world.clock.step(HOUR_MS - 1 - (world.clock.now_ms() - (until_ms - HOUR_MS)))
    assert (await refusal(world, "bob", world.message(log))).reason is Reason.MUTED
    world.clock.step(1)
    await world.post(log, "bob")


async def test_a_mute_is_taken_back(world: World, log: str) -> None:
    await mute(world, log, "bob", HOUR_MS)
    again = c.SetMute(log, world.change_id(), "bob", world.clock.now_ms() + HOUR_MS)
    first = await world.execute("mona", again)
    other = c.SetMute(log, world.change_id(), "bob", again.until_ms)
    assert await world.execute("mona", other) == c.ConversationChanged(c.SetMute, 0)
    assert isinstance(first, c.ConversationChanged)
    seq = await mute(world, log, "bob", 0)
    assert world.entries(log)[seq - 1].body == MemberMuted("bob", 0)
    assert await mute(world, log, "bob", 0) == 0
    await world.post(log, "bob")


async def test_a_mute_outlives_a_stay(world: World, log: str) -> None:
    await mute(world, log, "bob", HOUR_MS)
    await world.remove(log, "bob", "bob")
    await world.add(log, "alice", "bob")
    await world.restart()
    assert (await refusal(world, "bob", world.message(log))).reason is Reason.MUTED


@pytest.mark.parametrize("restart", [False, True])
async def test_a_ban_removes_and_keeps_out(world: World, log: str, restart: bool) -> None:
    bob = world.device("bob")
    await bob.hello()
    until_ms = world.clock.now_ms() + HOUR_MS
    seq = await ban(world, log, "bob", HOUR_MS)
    assert world.entries(log)[seq - 1].body == MemberRemoved("bob", Role.MEMBER, until_ms)
    await until(lambda: bob.applied(log) == seq)
    await until(lambda: len(world.entries("inbox:bob")) == 2)
    if restart:
        await world.restart()
    assert (await refusal(world, "bob", world.message(log))).reason is (
        Reason.CONVERSATION_NOT_FOUND
    )
    problem = await refusal(world, "alice", adding(world, log, "bob"))
    assert (problem.reason, problem.field) == (Reason.MEMBER_BANNED, "members")
    assert problem.metadata == {"user_id": "bob"}
    world.clock.step(HOUR_MS)
    await world.add(log, "alice", "bob")
    await world.post(log, "bob")


async def test_a_ban_is_taken_back_and_changed(world: World, log: str) -> None:
    await world.remove(log, "bob", "bob")
    seq = await ban(world, log, "bob", HOUR_MS)
    assert isinstance(world.entries(log)[seq - 1].body, MemberBanned)
    assert (await refusal(world, "alice", adding(world, log, "bob"))).reason is (
        Reason.MEMBER_BANNED
    )
    await ban(world, log, "bob", 0)
    assert await ban(world, log, "bob", 0) == 0
    await world.add(log, "alice", "bob")
    # Of a member there is no ban to take back.
    assert await ban(world, log, "bob", 0) == 0
    await world.post(log, "bob")


async def test_the_same_request_again(world: World, log: str) -> None:
    until_ms = world.clock.now_ms() + HOUR_MS
    request = world.change_id()
    command = c.SetBan(log, request, "bob", until_ms)
    first = await world.execute("mona", command)
    world.clock.step(2 * HOUR_MS)
    await world.add(log, "alice", "bob")
    await world.restart()
    # It lies in the past by now, and is what was done then.
    assert await world.execute("mona", command) == first
    other = c.SetBan(log, request, "bob", until_ms + 1)
    assert (await refusal(world, "mona", other)).reason is Reason.ID_REUSED


@pytest.mark.parametrize("kind", [c.SetMute, c.SetBan])
async def test_who_may_not(world: World, log: str, kind: type[c.SetMute | c.SetBan]) -> None:
    later = world.clock.now_ms() + HOUR_MS

    def command(user: str, until_ms: int = later) -> c.Command:
        return kind(log, world.change_id(), user, until_ms)

    for by, user in (("bob", "carol"), ("mona", "alice")):
        assert (await refusal(world, by, command(user))).reason is Reason.RIGHT_MISSING
    assert (await refusal(world, "mona", command("mona"))).field == "user_id"
    assert (await refusal(world, "mona", command("mallory"))).reason is Reason.MEMBER_NOT_FOUND
    assert (await refusal(world, "mona", command("bob", 1))).field == "expire_time"
    there = await refusal(world, "mallory", command("bob"))
    absent = await refusal(world, "mallory", kind(world.new_id(), world.change_id(), "bob", later))
    assert repr(there) == repr(absent)
    direct = await world.direct("alice", "bob")
    fixed = await refusal(world, "alice", kind(direct, world.change_id(), "bob", later))
    assert fixed.reason is Reason.DIRECT_FIXED


async def test_who_has_left_is_not_muted(world: World, log: str) -> None:
    await world.remove(log, "bob", "bob")
    command = c.SetMute(log, world.change_id(), "bob", world.clock.now_ms() + HOUR_MS)
    assert (await refusal(world, "mona", command)).reason is Reason.MEMBER_NOT_FOUND
