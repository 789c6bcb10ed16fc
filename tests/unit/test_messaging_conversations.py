"""Conversations: creating and getting them, who is in them, and how a member sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from tests.unit.world import World, until
from tidings_server.core import commands as c
from tidings_server.core.entries import ConversationKind, NewMember, Role
from tidings_server.core.ids import SKEW_MS, direct_conversation_id, uuid7
from tidings_server.core.limits import Limits
from tidings_server.errors import DomainError, Reason
from tidings_server.storage.memory import Fate, Happens

pytestmark = pytest.mark.virtual_time


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World().start()
    yield world
    await world.stop()


async def refusal(world: World, user: str, command: c.Command) -> tuple[Reason, str]:
    with pytest.raises(DomainError) as caught:
        await world.execute(user, command)
    return caught.value.reason, caught.value.field


async def view(world: World, user: str, log: str) -> c.ConversationView:
    got = await world.execute(user, c.GetConversation(log))
    assert isinstance(got, c.ConversationGot)
    return got.view


async def listed(world: World, user: str, size: int = 50) -> list[str]:
    found: list[str] = []
    token = ""
    while True:
        got = await world.execute(user, c.ListConversations(size, token))
        assert isinstance(got, c.ConversationsListed)
        assert len(got.views) <= size
        found += [v.conversation_id for v in got.views]
        token = got.next_page_token
        if not token:
            return found


async def members(world: World, user: str, log: str, size: int = 100) -> dict[str, Role]:
    found: dict[str, Role] = {}
    token = ""
    while True:
        got = await world.execute(user, c.ListMembers(log, size, token))
        assert isinstance(got, c.MembersListed)
        found.update({m.user_id: m.role for m in got.members})
        token = got.next_page_token
        if not token:
            return found


# Direct


async def test_a_direct_conversation_is_there_once(world: World) -> None:
    log = await world.direct("alice", "bob")
    assert log == direct_conversation_id("bob", "alice")
    assert await world.direct("bob", "alice") == log
    await world.restart()
    assert await world.direct("bob", "alice") == log
    assert len(world.entries(log)) == 1
    assert len(world.entries("inbox:alice")) == len(world.entries("inbox:bob")) == 1
    shown = await view(world, "alice", log)
    assert (shown.kind, shown.title, shown.peer_user_id) == (ConversationKind.DIRECT, "", "bob")
    assert (shown.role, shown.member_count, shown.head_seq) == (Role.MEMBER, 2, 1)


async def test_both_create_it_at_once(world: World) -> None:
    world.script.always["append"] = Fate(before=0.1)
    logs = await asyncio.gather(
        *(world.direct(*pair) for pair in [("alice", "bob"), ("bob", "alice")] * 5)
    )
    assert len(set(logs)) == 1
    assert len(world.entries(logs[0])) == 1


async def test_nobody_talks_to_themselves(world: World) -> None:
    command = c.CreateConversation(ConversationKind.DIRECT, ("alice",))
    assert await refusal(world, "alice", command) == (Reason.INVALID_FIELD, "user_ids")


async def test_the_members_of_a_direct_conversation_are_fixed(world: World) -> None:
    log = await world.direct("alice", "bob")
    for command in (
        c.AddMembers(log, world.change_id(), (NewMember("carol"),)),
        c.RemoveMember(log, world.change_id(), "bob"),
        c.LeaveConversation(log, world.change_id()),
    ):
        assert (await refusal(world, "alice", command))[0] is Reason.DIRECT_FIXED
    assert len(world.entries(log)) == 1


# Groups


async def test_a_group(world: World) -> None:
    command = c.CreateConversation(
        ConversationKind.GROUP, ("bob", "alice", "carol"), "Plan", world.change_id()
    )
    got = await world.execute("alice", command)
    assert isinstance(got, c.ConversationGot)
    shown, log = got.view, got.view.conversation_id
    assert (shown.kind, shown.title, shown.role) == (ConversationKind.GROUP, "Plan", Role.OWNER)
    assert (shown.member_count, shown.join_seq, shown.head_seq) == (3, 1, 1)
    assert shown.create_ms == shown.update_ms == world.clock.now_ms()
    assert await members(world, "bob", log) == {
        "alice": Role.OWNER,
        "bob": Role.MEMBER,
        "carol": Role.MEMBER,
    }
    # The same request again is the same group, whatever became of it.
    await world.remove(log, "alice", "bob")
    await world.restart()
    again = await world.execute("alice", command)
    assert isinstance(again, c.ConversationGot)
    assert again.view.conversation_id == log
    assert again.view.member_count == 2


async def test_a_request_used_again_for_another_group(world: World) -> None:
    change = world.change_id()
    await world.execute("alice", c.CreateConversation(ConversationKind.GROUP, (), "Plan", change))
    command = c.CreateConversation(ConversationKind.GROUP, ("bob",), "Plan", change)
    assert await refusal(world, "alice", command) == (Reason.ID_REUSED, "request_id")
    await world.restart()
    assert await refusal(world, "alice", command) == (Reason.ID_REUSED, "request_id")
    # Somebody else's request is somebody else's group.
    await world.execute("bob", c.CreateConversation(ConversationKind.GROUP, (), "Plan", change))


async def test_an_old_request_for_a_group(world: World) -> None:
    change = world.change_id()
    world.clock.step(48 * 3_600_000)
    command = c.CreateConversation(ConversationKind.GROUP, ("bob",), "", change)
    got = await world.execute("alice", command)
    assert isinstance(got, c.ConversationGot)
    await world.restart()
    again = await world.execute("alice", command)
    assert isinstance(again, c.ConversationGot)
    assert again.view.conversation_id == got.view.conversation_id


async def test_only_owners_change_who_is_in_it(world: World) -> None:
    log = await world.group("alice", "bob", "carol")
    add = c.AddMembers(log, world.change_id(), (NewMember("dave"),))
    remove = c.RemoveMember(log, world.change_id(), "carol")
    for command in (add, remove):
        assert (await refusal(world, "bob", command))[0] is Reason.RIGHT_MISSING
        assert await refusal(world, "mallory", command) == (
            Reason.CONVERSATION_NOT_FOUND,
            "conversation_id",
        )
    # Nothing was noted for those who did not come to be members.
    assert await world.store.user_logs("dave") == []


async def test_another_owner(world: World) -> None:
    log = await world.group("alice")
    await world.execute(
        "alice", c.AddMembers(log, world.change_id(), (NewMember("bob", Role.OWNER),))
    )
    await world.add(log, "bob", "carol")
    await world.remove(log, "bob", "alice")
    assert await members(world, "bob", log) == {"bob": Role.OWNER, "carol": Role.MEMBER}


async def test_roles_are_given_downwards_and_act_downwards(world: World) -> None:
    log = await world.group("alice", "bob")

    def adding(**roles: Role) -> c.AddMembers:
        members = tuple(NewMember(user, role) for user, role in roles.items())
        return c.AddMembers(log, world.change_id(), members)

    await world.execute("alice", adding(ada=Role.ADMIN, mona=Role.MODERATOR, gus=Role.GUEST))
    assert await members(world, "gus", log) == {
        "ada": Role.ADMIN,
        "alice": Role.OWNER,
        "bob": Role.MEMBER,
        "gus": Role.GUEST,
        "mona": Role.MODERATOR,
    }
    await world.restart()
    assert (await view(world, "ada", log)).role is Role.ADMIN
    await world.execute("ada", adding(max=Role.MODERATOR))
    for user, command in (
        ("ada", adding(eve=Role.ADMIN)),
        ("ada", adding(eve=Role.OWNER)),
        ("mona", adding(eve=Role.GUEST)),
        ("mona", c.RemoveMember(log, world.change_id(), "max")),
        ("mona", c.RemoveMember(log, world.change_id(), "ada")),
        ("ada", c.RemoveMember(log, world.change_id(), "alice")),
        ("gus", world.message(log)),
    ):
        assert (await refusal(world, user, command))[0] is Reason.RIGHT_MISSING
    await world.remove(log, "mona", "gus")
    await world.remove(log, "ada", "mona")


async def test_leaving_is_not_removing_oneself(world: World) -> None:
    log = await world.group("alice", "bob")
    command = c.RemoveMember(log, world.change_id(), "alice")
    assert await refusal(world, "alice", command) == (Reason.INVALID_FIELD, "user_id")
    await world.remove(log, "bob", "bob")
    leave = c.LeaveConversation(log, world.change_id())
    assert (await refusal(world, "bob", leave))[0] is Reason.CONVERSATION_NOT_FOUND


async def test_the_largest_group() -> None:
    world = await World(limits=Limits(max_members=3)).start()
    log = await world.group("alice", "bob")
    add = c.AddMembers(log, world.change_id(), (NewMember("carol"), NewMember("dave")))
    assert await refusal(world, "alice", add) == (Reason.MEMBER_LIMIT, "members")
    await world.add(log, "alice", "carol")
    await world.stop()


async def test_a_new_group_is_no_larger_than_the_limit() -> None:
    world = await World(limits=Limits(max_members=3)).start()
    command = c.CreateConversation(
        ConversationKind.GROUP, ("bob", "carol", "dave"), "", world.change_id()
    )
    assert await refusal(world, "alice", command) == (Reason.MEMBER_LIMIT, "user_ids")
    await world.group("alice", "bob", "carol")
    await world.stop()


# As members see them


async def test_who_was_never_in_it_learns_nothing(world: World) -> None:
    log = await world.group("alice", "bob")
    for name in (log, world.new_id()):
        for command in (
            c.GetConversation(name),
            c.ListMembers(name, 10, ""),
            world.message(name),
            c.MarkRead(name, 1),
        ):
            assert await refusal(world, "mallory", command) == (
                Reason.CONVERSATION_NOT_FOUND,
                "conversation_id",
            )


async def test_who_left_sees_how_it_was(world: World) -> None:
    log = await world.group("alice", "bob")
    await world.remove(log, "bob", "bob")
    await world.post(log, "alice")
    shown = await view(world, "bob", log)
    assert (shown.role, shown.head_seq, shown.unread_count) == (None, 2, 0)
    assert (await refusal(world, "bob", c.ListMembers(log, 10, "")))[
        0
    ] is Reason.CONVERSATION_NOT_FOUND
    assert await listed(world, "bob") == []


async def test_who_left_does_not_see_that_it_lives_on(world: World) -> None:
    log = await world.group("alice", "bob")
    await world.remove(log, "bob", "bob")
    left_ms = world.clock.now_ms()
    world.clock.step(60_000)
    await world.add(log, "alice", "carol", "dave")
    shown = await view(world, "bob", log)
    assert (shown.update_ms, shown.member_count, shown.head_seq) == (left_ms, 0, 2)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 50])
async def test_conversations_are_listed_by_activity(world: World, size: int, restart: bool) -> None:
    logs = [await world.group("alice", "bob") for _ in range(5)]
    logs.append(await world.direct("alice", "bob"))
    gone = await world.group("alice", "bob")
    await world.remove(gone, "alice", "bob")
    for log in (logs[3], logs[0], logs[5]):
        world.clock.step(1000)
        await world.post(log, "alice")
    if restart:
        await world.restart()
    found = await listed(world, "bob", size)
    assert found[:3] == [logs[5], logs[0], logs[3]]
    assert sorted(found) == sorted(logs)


@pytest.mark.parametrize("token", ["x", "1", ".", "1.", "-1.x", "a.b"])
async def test_tokens_that_nobody_gave(world: World, token: str) -> None:
    assert await refusal(world, "alice", c.ListConversations(10, token)) == (
        Reason.INVALID_FIELD,
        "page_token",
    )


@pytest.mark.parametrize("size", [1, 3, 20])
async def test_members_are_listed_by_their_ids(world: World, size: int) -> None:
    users = ["émile", "zoe", "bob", "Ünal", "アリス", "carol", "alice"]
    log = await world.group("alice", *users)
    await world.remove(log, "alice", "carol")
    assert list(await members(world, "bob", log, size)) == sorted(set(users) - {"carol"})


async def test_a_conversation_whose_effects_are_not_written_is_listed(world: World) -> None:
    world.script.plan("put_memberships", *[Happens.REFUSED] * 3)
    log = await world.group("alice", "bob")
    world.store.crash(lambda: True)
    after = await World(disk=world.disk).start()
    assert await listed(after, "bob") == [log]
    assert await members(after, "bob", log) == {"alice": Role.OWNER, "bob": Role.MEMBER}
    await after.stop()
    with capture_logs():
        await until(lambda: True)


# The handlers


async def test_a_store_that_fails(world: World) -> None:
    log = await world.group("alice", "bob")
    for method, command in (
        ("user_logs", c.ListConversations(10, "")),
        ("list_memberships", c.ListMembers(log, 10, "")),
        ("receipts_of", c.MarkRead(log, 1)),
        ("put_receipts", c.MarkRead(log, 1)),
        ("list_receipts", c.ListReceipts(log, 10, "")),
        ("presence", c.GetPresence(("alice",))),
        ("put_presence", c.SetStatus(1, "")),
        ("read_back", c.ListHistory(log, 0, False, 10, "")),
    ):
        world.script.plan(method, Happens.REFUSED)
        with capture_logs() as logs:
            assert (await refusal(world, "alice", command))[0] is Reason.STORE_UNAVAILABLE
        assert [line["event"] for line in logs] == ["store_unavailable"]


async def test_a_fault_of_the_server_tells_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a secret cause")

    monkeypatch.setattr(world.store, "user_logs", broken)
    with capture_logs() as logs, pytest.raises(DomainError) as caught:
        await world.execute("alice", c.ListConversations(10, ""))
    assert caught.value.reason is Reason.INTERNAL
    assert "secret" not in str(caught.value)
    assert [line["event"] for line in logs] == ["command_failed"]


async def test_a_command_without_a_handler_is_denied(world: World) -> None:
    assert (await refusal(world, "alice", c.RefreshToken("t")))[0] is Reason.DENIED


async def test_whoever_is_added_has_the_conversation_noted_whenever_the_clock_ticks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await world.group("alice", "bob")
    now_ms = world.clock.now_ms

    def ticking() -> int:
        world.clock.step(1)
        return now_ms()

    monkeypatch.setattr(world.clock, "now_ms", ticking)
    added, late = 0, 0
    for ahead_ms in range(SKEW_MS, SKEW_MS + 40):
        user, change = f"user{ahead_ms}", world.change_id(uuid7(now_ms() + ahead_ms, world.rng))
        try:
            await world.execute("alice", c.AddMembers(log, change, (NewMember(user),)))
        except DomainError as problem:
            assert problem.reason is Reason.ID_AHEAD  # noqa: PT017
            late += 1
        else:
            assert log in await world.store.user_logs(user)
            added += 1
    assert added
    assert late
