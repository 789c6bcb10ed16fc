"""Conversations over real gRPC and SQLite, by the SDK: what one device changes all have, and fetch."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from tests.integration.conftest import Serve
from tests.integration.test_sdk import Watching, client
from tidings import (
    ConversationRight,
    ConversationUpdated,
    FailedPrecondition,
    InvalidArgument,
    InvitationSet,
    MemberMuted,
    MemberRemoved,
    MemberRole,
    MemberRoleSet,
    MembersAdded,
    Message,
    NotFound,
    PermissionDenied,
    RightOverride,
)
from tidings.models import FOR_GOOD


async def test_settings(serve: Serve) -> None:
    server = await serve()
    async with (
        Watching(client(server.address, "alice")) as alice,
        Watching(client(server.address, "bob")) as bob,
        Watching(client(server.address, "bob", "laptop")) as laptop,
    ):
        group = (await alice.sdk.create_group("Plan", ["bob"])).conversation_id
        seq = await alice.sdk.update_conversation(group, title="Trip", custom_data='{"a":1}')
        assert await alice.sdk.update_conversation(group, title="Trip") == 0
        for device in (alice, bob, laptop):
            await device.until(partial(device.of, ConversationUpdated))
            (told,) = device.of(ConversationUpdated)
            assert (told.seq, told.title, told.custom_data) == (seq, "Trip", '{"a":1}')
            assert told.description is told.picture is None
        (listed,) = [one async for one in bob.sdk.conversations()]
        assert (listed.title, listed.custom_data, listed.description) == ("Trip", '{"a":1}', "")
        with pytest.raises(PermissionDenied):
            await bob.sdk.update_conversation(group, description="mine")
        with pytest.raises(InvalidArgument) as refused:
            await alice.sdk.update_conversation(group, picture="a b")
        assert refused.value.field == "settings.picture"
        with pytest.raises(InvalidArgument) as refused:
            await alice.sdk.update_conversation(group)
        assert refused.value.field == "update_mask"


async def test_roles(serve: Serve) -> None:
    server = await serve()
    async with (
        Watching(client(server.address, "alice")) as alice,
        Watching(client(server.address, "bob")) as bob,
    ):
        group = (await alice.sdk.create_group("Plan", ["bob", "carol"])).conversation_id
        await alice.sdk.set_role(group, "bob", MemberRole.ADMIN)
        assert await alice.sdk.set_role(group, "bob", MemberRole.ADMIN) == 0
        await bob.sdk.set_role(group, "carol", MemberRole.GUEST)
        with pytest.raises(FailedPrecondition) as refused:
            await alice.sdk.leave(group)
        assert refused.value.reason == "LAST_OWNER"
        seq = await alice.sdk.transfer_ownership(group, "bob")
        await bob.until(lambda: bob.of(MemberRoleSet)[2:])
        told = bob.of(MemberRoleSet)[-1]
        assert (told.seq, told.roles) == (
            seq,
            {"bob": MemberRole.OWNER, "alice": MemberRole.ADMIN},
        )
        roles = {member.user_id: member.role async for member in bob.sdk.members(group)}
        assert roles == {**told.roles, "carol": MemberRole.GUEST}
        assert (await alice.sdk.get_conversation(group)).role is MemberRole.ADMIN
        await alice.sdk.leave(group)


async def test_mutes_and_bans(serve: Serve) -> None:
    server = await serve()
    async with (
        Watching(client(server.address, "alice")) as alice,
        Watching(client(server.address, "bob")) as bob,
    ):
        group = (await alice.sdk.create_group("Plan", ["bob"])).conversation_id
        soon = datetime.now(UTC) + timedelta(hours=1)
        await alice.sdk.set_mute(group, "bob", soon)
        handle = await bob.sdk.send(group, "not now")
        with pytest.raises(PermissionDenied) as muted:
            await handle.sent()
        assert muted.value.reason == "MUTED"
        members = {member.user_id: member async for member in alice.sdk.members(group)}
        expire_time = members["bob"].mute_expire_time
        assert expire_time is not None
        assert abs(expire_time - soon) < timedelta(milliseconds=1)
        await alice.sdk.set_mute(group, "bob", None)
        await (await bob.sdk.send(group, "now")).sent()
        await alice.sdk.set_ban(group, "bob", FOR_GOOD)
        await bob.until(lambda: bob.of(MemberRemoved))
        assert bob.of(MemberRemoved)[-1].ban_expire_time == FOR_GOOD
        assert [event.expire_time is None for event in bob.of(MemberMuted)] == [False, True]
        with pytest.raises(FailedPrecondition) as banned:
            await alice.sdk.add_members(group, ["bob"])
        assert banned.value.reason == "MEMBER_BANNED"
        await alice.sdk.set_ban(group, "bob", None)
        await alice.sdk.add_members(group, ["bob"])
        with pytest.raises(InvalidArgument) as past:
            await alice.sdk.set_ban(group, "bob", datetime.now(UTC) - timedelta(hours=1))
        assert past.value.field == "expire_time"


async def test_a_channel_in_which_few_post(serve: Serve) -> None:
    server = await serve()
    async with (
        Watching(client(server.address, "alice")) as alice,
        Watching(client(server.address, "bob")) as bob,
    ):
        group = (await alice.sdk.create_group("News", ["bob"])).conversation_id
        rights = (RightOverride(MemberRole.MEMBER, ConversationRight.POST, allowed=False),)
        await alice.sdk.update_conversation(group, rights=rights)
        await bob.until(lambda: bob.of(ConversationUpdated))
        (told,) = bob.of(ConversationUpdated)
        assert (told.rights, told.frozen) == (rights, None)
        with pytest.raises(PermissionDenied):
            await (await bob.sdk.send(group, "me too")).sent()
        await alice.sdk.update_conversation(group, rights=(), frozen=True)
        with pytest.raises(FailedPrecondition) as frozen:
            await (await bob.sdk.send(group, "now?")).sent()
        assert frozen.value.reason == "FROZEN"
        conversation = await bob.sdk.get_conversation(group)
        assert (conversation.rights, conversation.frozen) == ((), True)
        await alice.sdk.update_conversation(group, frozen=False)
        await (await bob.sdk.send(group, "now!")).sent()


async def test_newcomers_read_what_came_before(serve: Serve) -> None:
    server = await serve()
    async with Watching(client(server.address, "alice")) as alice:
        group = (await alice.sdk.create_group("Plan")).conversation_id
        await (await alice.sdk.send(group, "before")).sent()
        await alice.sdk.update_conversation(group, history_for_newcomers=True)
        await alice.sdk.add_members(group, ["bob"])
        await (await alice.sdk.send(group, "after")).sent()
        async with Watching(client(server.address, "bob")) as bob:
            await bob.until(lambda: bob.texts(group) == ["after"])
            found = [entry async for entry in bob.sdk.history(group)]
            assert [e.text for e in found if isinstance(e, Message)] == ["after", "before"]
            (listed,) = [one async for one in bob.sdk.conversations()]
            assert (listed.join_seq, listed.unread_count) == (1, 1)
            assert listed.history_for_newcomers


async def test_joining_by_an_invitation(serve: Serve) -> None:
    server = await serve()
    code = secrets.token_urlsafe(24)
    async with (
        Watching(client(server.address, "alice")) as alice,
        Watching(client(server.address, "bob")) as bob,
    ):
        group = (await alice.sdk.create_group("Plan")).conversation_id
        with pytest.raises(NotFound):
            await bob.sdk.join(group, code)
        await alice.sdk.set_invitation(group, code, 1, datetime.now(UTC) + timedelta(hours=1))
        seq = await bob.sdk.join(group, code)
        await alice.until(lambda: alice.of(MembersAdded))
        (joined,) = alice.of(MembersAdded)
        assert (joined.seq, joined.user_id) == (seq, "bob")
        assert joined.invitation_id == alice.of(InvitationSet)[0].invitation_id
        assert code not in repr(alice.events)
        await (await bob.sdk.send(group, "hello")).sent()
