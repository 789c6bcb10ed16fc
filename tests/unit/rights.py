"""The table of rights as it is found: every operation in a conversation, tried by somebody of each standing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from google.protobuf.descriptor import Descriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tests.unit.world import HOUR_MS, World
from tidings.v1 import (
    chat_service_pb2,
    conversation_pb2,
    conversation_service_pb2,
    message_pb2,
    message_service_pb2,
    receipt_service_pb2,
)
from tidings_server.core import commands as c
from tidings_server.core.entries import NewMember, Role
from tidings_server.errors import DomainError, Reason
from tidings_server.operations.unary import UNARY

OWNER, AMY = "zoe", "amy"
"""Others in the conversation: its owner, and a member whom things are done to."""
ME = "me"
_ADMIN_SERVICE = "AdminService"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an operation is tried: a conversation with a message of the caller, if there ever was one, and of Amy."""

    world: World
    log: str
    own: int
    others: int
    frozen: bool = False


Make = Callable[[Place, str], Message]
_Conversations = conversation_service_pb2


def _content(text: str) -> message_pb2.MessageContent:
    return message_pb2.MessageContent(text=text)


_CODE = "i" * 20


def _later(world: World) -> Timestamp:
    return Timestamp(seconds=world.clock.now_ms() // 1000 + 3600)


OPERATIONS: dict[str, Make] = {
    "GetConversation": lambda p, _: _Conversations.GetConversationRequest(conversation_id=p.log),
    "ListMembers": lambda p, _: _Conversations.ListMembersRequest(conversation_id=p.log),
    "ListHistory": lambda p, _: message_service_pb2.ListHistoryRequest(conversation_id=p.log),
    "GetMessage": lambda p, _: message_service_pb2.GetMessageRequest(
        conversation_id=p.log, seq=p.others
    ),
    "ListReactions": lambda p, _: message_service_pb2.ListReactionsRequest(
        conversation_id=p.log, seq=p.others
    ),
    "ListPins": lambda p, _: message_service_pb2.ListPinsRequest(conversation_id=p.log),
    "ListReceipts": lambda p, _: receipt_service_pb2.ListReceiptsRequest(conversation_id=p.log),
    "GetUnread": lambda p, _: receipt_service_pb2.GetUnreadRequest(conversation_ids=[p.log]),
    "MarkDelivered": lambda p, _: receipt_service_pb2.MarkDeliveredRequest(
        conversation_id=p.log, seq=p.others
    ),
    "MarkRead": lambda p, _: receipt_service_pb2.MarkReadRequest(
        conversation_id=p.log, seq=p.others
    ),
    "SendMessage": lambda p, change: message_pb2.SendMessageRequest(
        conversation_id=p.log, message_id=change, content=_content("x")
    ),
    "EditMessage: one's own": lambda p, change: message_pb2.EditMessageRequest(
        conversation_id=p.log, request_id=change, seq=p.own, content=_content("y")
    ),
    "EditMessage: another's": lambda p, change: message_pb2.EditMessageRequest(
        conversation_id=p.log, request_id=change, seq=p.others, content=_content("y")
    ),
    "DeleteMessage: one's own": lambda p, change: message_pb2.DeleteMessageRequest(
        conversation_id=p.log, request_id=change, seq=p.own
    ),
    "DeleteMessage: another's": lambda p, change: message_pb2.DeleteMessageRequest(
        conversation_id=p.log, request_id=change, seq=p.others
    ),
    "SetReaction": lambda p, change: message_pb2.SetReactionRequest(
        conversation_id=p.log, request_id=change, seq=p.others, reaction="x"
    ),
    "SetPin": lambda p, change: message_pb2.SetPinRequest(
        conversation_id=p.log, request_id=change, seq=p.others, pinned=True
    ),
    "AddMembers": lambda p, change: _Conversations.AddMembersRequest(
        conversation_id=p.log, request_id=change, members=[conversation_pb2.Member(user_id="new")]
    ),
    "AddMembers: as an owner": lambda p, change: _Conversations.AddMembersRequest(
        conversation_id=p.log,
        request_id=change,
        members=[conversation_pb2.Member(user_id="new", role=conversation_pb2.MEMBER_ROLE_OWNER)],
    ),
    "RemoveMember: a member": lambda p, change: _Conversations.RemoveMemberRequest(
        conversation_id=p.log, request_id=change, user_id=AMY
    ),
    "RemoveMember: the owner": lambda p, change: _Conversations.RemoveMemberRequest(
        conversation_id=p.log, request_id=change, user_id=OWNER
    ),
    "LeaveConversation": lambda p, change: _Conversations.LeaveConversationRequest(
        conversation_id=p.log, request_id=change
    ),
    "UpdateConversation: title and the like": lambda p, change: (
        _Conversations.UpdateConversationRequest(
            conversation_id=p.log,
            request_id=change,
            settings=conversation_pb2.ConversationSettings(description="new"),
            update_mask=FieldMask(paths=["description"]),
        )
    ),
    "UpdateConversation: frozen": lambda p, change: _Conversations.UpdateConversationRequest(
        conversation_id=p.log,
        request_id=change,
        settings=conversation_pb2.ConversationSettings(frozen=not p.frozen),
        update_mask=FieldMask(paths=["frozen"]),
    ),
    "UpdateConversation: rights": lambda p, change: _Conversations.UpdateConversationRequest(
        conversation_id=p.log,
        request_id=change,
        settings=conversation_pb2.ConversationSettings(
            rights=[
                conversation_pb2.RightOverride(
                    role=conversation_pb2.MEMBER_ROLE_GUEST,
                    right=conversation_pb2.CONVERSATION_RIGHT_POST,
                    allowed=True,
                )
            ]
        ),
        update_mask=FieldMask(paths=["rights"]),
    ),
    "SetRole: of a member, to guest": lambda p, change: _Conversations.SetRoleRequest(
        conversation_id=p.log,
        request_id=change,
        user_id=AMY,
        role=conversation_pb2.MEMBER_ROLE_GUEST,
    ),
    "SetRole: of a member, to admin": lambda p, change: _Conversations.SetRoleRequest(
        conversation_id=p.log,
        request_id=change,
        user_id=AMY,
        role=conversation_pb2.MEMBER_ROLE_ADMIN,
    ),
    "SetMute: of a member": lambda p, change: _Conversations.SetMuteRequest(
        conversation_id=p.log, request_id=change, user_id=AMY, expire_time=_later(p.world)
    ),
    "SetMute: of the owner": lambda p, change: _Conversations.SetMuteRequest(
        conversation_id=p.log, request_id=change, user_id=OWNER, expire_time=_later(p.world)
    ),
    "SetBan: of a member": lambda p, change: _Conversations.SetBanRequest(
        conversation_id=p.log, request_id=change, user_id=AMY, expire_time=_later(p.world)
    ),
    "SetBan: of the owner": lambda p, change: _Conversations.SetBanRequest(
        conversation_id=p.log, request_id=change, user_id=OWNER, expire_time=_later(p.world)
    ),
    "SetInvitation": lambda p, change: _Conversations.SetInvitationRequest(
        conversation_id=p.log, request_id=change, code="c" * 20, uses=1, expire_time=_later(p.world)
    ),
    "JoinConversation: by a wrong code": lambda p, change: _Conversations.JoinConversationRequest(
        conversation_id=p.log, request_id=change, code="w" * 20
    ),
    "JoinConversation: by an invitation": lambda p, change: _Conversations.JoinConversationRequest(
        conversation_id=p.log, request_id=change, code=_CODE
    ),
    "TransferOwnership": lambda p, change: _Conversations.TransferOwnershipRequest(
        conversation_id=p.log, request_id=change, user_id=AMY
    ),
}
"""How each operation in a conversation is asked for, by the name of the method, and of the case."""

ELSEWHERE = {
    "CreateConversation": "everybody",
    "ListConversations": "everybody, their own",
    "GetPresence": "everybody, of users with whom they share a conversation",
    "SetStatus": "everybody, their own",
    "Chat": "everybody: a session is for what one may do",
    "Hello": "everybody, once a session",
    "RefreshToken": "everybody, for the user and device of the session",
}
"""Who may do what is done in no conversation."""

Arrange = Callable[[Place], Awaitable[object]]


def _as(role: Role) -> Arrange:
    async def arrange(p: Place) -> None:
        await p.world.execute(OWNER, c.SetRole(p.log, p.world.change_id(), ME, role))

    return arrange


async def _nothing(_: Place) -> None:
    pass


async def _removed(p: Place) -> None:
    await p.world.remove(p.log, OWNER, ME)


async def _banned(p: Place) -> None:
    until = p.world.clock.now_ms() + HOUR_MS
    await p.world.execute(OWNER, c.SetBan(p.log, p.world.change_id(), ME, until))


async def _muted(p: Place) -> None:
    until = p.world.clock.now_ms() + HOUR_MS
    await p.world.execute(OWNER, c.SetMute(p.log, p.world.change_id(), ME, until))


async def _frozen(p: Place) -> None:
    freeze = c.UpdateConversation(p.log, p.world.change_id(), (("frozen", True),))
    await p.world.execute(OWNER, freeze)


_FROZEN = "member, frozen"

STANDINGS: dict[str, Arrange] = {
    "stranger": _nothing,
    "ex-member": _removed,
    "banned": _banned,
    "muted member": _muted,
    _FROZEN: _frozen,
    "guest": _as(Role.GUEST),
    "member": _nothing,
    "moderator": _as(Role.MODERATOR),
    "admin": _as(Role.ADMIN),
    "owner": _as(Role.OWNER),
}
"""How the caller comes to stand, once they have been a member who posted; a stranger never was one."""


async def place(world: World, standing: str) -> Place:
    """A conversation in which the caller has a standing."""
    log = await world.group(OWNER, AMY)
    others = await world.post(log, AMY)
    own = others
    if standing != "stranger":
        # Whoever sees the messages of others has joined before them.
        await world.execute(
            OWNER, c.AddMembers(log, world.change_id(), (NewMember(ME, Role.MEMBER),))
        )
        own, others = await world.post(log, ME), await world.post(log, AMY)
    invitation = sha256(_CODE.encode()).hexdigest()
    until_ms = world.clock.now_ms() + HOUR_MS
    invite = c.SetInvitation(log, world.change_id(), invitation, 9, until_ms)
    await world.execute(OWNER, invite)
    found = Place(world, log, own, others, frozen=standing == _FROZEN)
    await STANDINGS[standing](found)
    return found


async def outcome(world: World, at: Place, operation: str) -> str:
    """What comes of an operation: "yes", or the reason."""
    try:
        command = world.node.reader.read(OPERATIONS[operation](at, world.new_id()))
        got = await world.execute(ME, command)
    except DomainError as problem:
        return problem.reason.name
    if isinstance(got, c.UnreadGot) and not got.counts:
        return "nothing"
    if isinstance(got, c.ConversationChanged) and got.command is c.JoinConversation and not got.seq:
        return "nothing"
    assert getattr(got, "seq", 1), "a change that changes nothing shows no right"
    return "yes"


WORDS = {Reason.CONVERSATION_NOT_FOUND.name: "·", Reason.RIGHT_MISSING.name: "no"}


async def rows(world: World) -> dict[str, dict[str, str]]:
    """The whole table: outcomes by operation and standing."""
    return {
        operation: {
            standing: await outcome(world, await place(world, standing), operation)
            for standing in STANDINGS
        }
        for operation in OPERATIONS
    }


def written(found: dict[str, dict[str, str]]) -> str:
    """The table as Markdown."""
    lines = [
        f"| | {' | '.join(STANDINGS)} |",
        f"| --- |{' --- |' * len(STANDINGS)}",
    ]
    for operation, cells in found.items():
        shown = " | ".join(WORDS.get(cells[one], cells[one]) for one in STANDINGS)
        lines.append(f"| {operation} | {shown} |")
    return "\n".join(lines)


def elsewhere() -> str:
    """Who may do what is done in no conversation, as Markdown."""
    lines = ["| | who |", "| --- | --- |"]
    lines += [f"| {name} | {who} |" for name, who in ELSEWHERE.items()]
    lines += [
        f"| {name} | whoever has a token with the scope `admin` |" for name in sorted(operators())
    ]
    return "\n".join(lines)


def operators() -> set[str]:
    """The methods for operators."""
    return {m.name for s in UNARY if s.name == _ADMIN_SERVICE for m in s.methods}


def requests() -> Iterator[tuple[str, Descriptor]]:
    """Everything that can be asked for, by a unary call and by the stream: names and requests."""
    for service in UNARY:
        for method in service.methods:
            if service.name != _ADMIN_SERVICE:
                yield method.name, method.input_type
    for field in chat_service_pb2.Command.DESCRIPTOR.oneofs_by_name["command"].fields:
        assert field.message_type is not None
        yield field.message_type.name.removesuffix("Request"), field.message_type
