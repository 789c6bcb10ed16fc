"""Requests as commands: every check that needs no state happens here, and names the field at
fault.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from tidings.v1 import (
    chat_service_pb2,
    conversation_pb2,
    conversation_service_pb2,
    message_pb2,
    message_service_pb2,
    presence_service_pb2,
    receipt_service_pb2,
)

from ..core import commands as c
from ..core.entries import ConversationKind, NewMember, Role
from ..core.ids import inbox_log, is_conversation_id
from ..core.limits import Limits
from ..core.records import record
from ..errors import DomainError, Reason, invalid
from . import admin, fields
from .contents import check_mentions
from .settings import MAX_BYTES, read_settings

MAX_WINDOW = 8192
MAX_COMMANDS_IN_FRAME = 1000
MAX_HELLO_CURSORS = 10_000
MAX_MEMBERS_IN_REQUEST = 500
MAX_INVITATION_USES = 100_000
MAX_REACTION_BYTES = 64
MAX_DEVICE_TEXT_BYTES = 128
MAX_STATUS_BYTES = 256
MAX_USERS_A_LOOKUP = 500
MAX_CONVERSATIONS_A_LOOKUP = 1000
MAX_TOKEN_BYTES = 16 * 1024


@record(frozen=True, slots=True)
class Frame:
    """A frame from a device: commands with the client's numbers (or what was wrong with them), and
    acknowledged positions.
    """

    commands: list[tuple[int, str, c.Command | DomainError]]
    acks: list[tuple[str, int]]


class RequestReader:
    """Turns protobuf requests into commands."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._readers: dict[type[Message], Callable[[Any], c.Command]] = {
            chat_service_pb2.Hello: self._hello,
            message_pb2.SendMessageRequest: self._send,
            message_pb2.EditMessageRequest: self._edit,
            message_pb2.DeleteMessageRequest: self._delete,
            message_pb2.SetReactionRequest: self._set_reaction,
            message_service_pb2.ListReactionsRequest: self._list_reactions,
            message_pb2.SetPinRequest: self._set_pin,
            message_service_pb2.ListPinsRequest: self._list_pins,
            receipt_service_pb2.MarkDeliveredRequest: self._mark_delivered,
            receipt_service_pb2.MarkReadRequest: self._mark_read,
            chat_service_pb2.RefreshToken: self._refresh_token,
            conversation_service_pb2.CreateConversationRequest: self._create,
            conversation_service_pb2.AddMembersRequest: self._add_members,
            conversation_service_pb2.RemoveMemberRequest: self._remove_member,
            conversation_service_pb2.LeaveConversationRequest: self._leave,
            conversation_service_pb2.UpdateConversationRequest: self._update,
            conversation_service_pb2.SetRoleRequest: self._set_role,
            conversation_service_pb2.TransferOwnershipRequest: self._transfer,
            conversation_service_pb2.SetMuteRequest: self._set_mute,
            conversation_service_pb2.SetBanRequest: self._set_ban,
            conversation_service_pb2.SetInvitationRequest: self._set_invitation,
            conversation_service_pb2.JoinConversationRequest: self._join,
            presence_service_pb2.SetStatusRequest: self._set_status,
            conversation_service_pb2.GetConversationRequest: self._get_conversation,
            conversation_service_pb2.ListConversationsRequest: self._list_conversations,
            conversation_service_pb2.ListMembersRequest: self._list_members,
            message_service_pb2.ListHistoryRequest: self._list_history,
            message_service_pb2.GetMessageRequest: self._get_message,
            receipt_service_pb2.ListReceiptsRequest: self._list_receipts,
            receipt_service_pb2.GetUnreadRequest: self._get_unread,
            presence_service_pb2.GetPresenceRequest: self._get_presence,
            **admin.READERS,
        }

    @property
    def request_types(self) -> frozenset[type[Message]]:
        """The requests that can be read."""
        return frozenset(self._readers)

    def read(self, request: Message) -> c.Command:
        """The command of a request. Raises DomainError naming the field at fault."""
        reader = self._readers.get(type(request))
        if reader is None:
            raise DomainError(Reason.UNKNOWN_FIELD, "This kind of request is not known here.")
        if _unknown_path(request):
            raise _unknown_field(request)
        return reader(request)

    def read_frame(self, data: bytes) -> Frame:
        """The commands and acknowledgements of a frame.

        Raises DomainError when nothing of it can be taken: TOO_LARGE or MALFORMED_FRAME.
        """
        if len(data) > self._limits.max_frame_bytes:
            raise DomainError(
                Reason.TOO_LARGE,
                f"A frame is at most {self._limits.max_frame_bytes} bytes; this one has {len(data)}.",
            )
        try:
            request = chat_service_pb2.ChatRequest.FromString(data)
        except DecodeError:
            raise DomainError(
                Reason.MALFORMED_FRAME, "The frame is no tidings.v1.ChatRequest."
            ) from None
        # Comparing sizes is the cheapest way to ask upb, a tenth of walking the fields.
        size = request.ByteSize()
        request.DiscardUnknownFields()
        if request.ByteSize() != size:
            request = chat_service_pb2.ChatRequest.FromString(data)
            strict = True
        else:
            strict = False
        if len(request.commands) > MAX_COMMANDS_IN_FRAME:
            # One answer for all: half a million empty commands fit into a frame, and their answers would not.
            raise DomainError(
                Reason.TOO_LARGE,
                f"A frame has at most {MAX_COMMANDS_IN_FRAME:,} commands.",
                field="commands",
            )
        commands: list[tuple[int, str, c.Command | DomainError]] = []
        for command in request.commands:
            name = command.WhichOneof("command") or ""
            taken: c.Command | DomainError
            try:
                if strict and _unknown_path(command):
                    raise _unknown_field(command)
                if not name:
                    raise DomainError(
                        Reason.UNKNOWN_FIELD, "The command says nothing that is known here."
                    )
                body = getattr(command, name)
                taken = self._readers[type(body)](body)
            except DomainError as problem:
                taken = problem
            commands.append((command.command_id, name, taken))
        return Frame(commands, [(a.conversation_id, a.seq) for a in request.acks])

    # Session

    def _hello(self, r: chat_service_pb2.Hello) -> c.Hello:
        if len(r.cursors) > MAX_HELLO_CURSORS:
            raise DomainError(
                Reason.TOO_LARGE,
                f"A hello has at most {MAX_HELLO_CURSORS} cursors.",
                field="cursors",
            )
        fields.text("incarnation", r.incarnation, MAX_DEVICE_TEXT_BYTES)
        fields.text("client", r.client, MAX_DEVICE_TEXT_BYTES)
        limits = self._limits
        if not 0 <= r.window <= MAX_WINDOW:
            raise invalid("window", "must be between 1 and 8,192, or 0 for the default")
        if not 0 <= r.catch_up_limit <= limits.catch_up_limit:
            raise invalid(
                "catch_up_limit", f"must be between 0 (default) and {limits.catch_up_limit:,}"
            )
        # What is wrong with single cursors is told in the hello's result: one bad cursor doesn't keep a
        # device out.
        return c.Hello(
            r.incarnation,
            {cursor.conversation_id: cursor.seq for cursor in r.cursors},
            r.window or limits.window,
            r.catch_up_limit or limits.catch_up_limit,
            r.client,
        )

    def _refresh_token(self, r: chat_service_pb2.RefreshToken) -> c.RefreshToken:
        if not r.token or len(r.token) > MAX_TOKEN_BYTES:
            raise invalid("token", f"must be between 1 and {MAX_TOKEN_BYTES:,} bytes")
        return c.RefreshToken(r.token)

    # Messages

    def _send(self, r: message_pb2.SendMessageRequest) -> c.SendMessage:
        content = self._content(r.content)
        after = r.after_message_id
        return c.SendMessage(
            fields.conversation_id(r.conversation_id),
            fields.change_id("message_id", r.message_id),
            content,
            fields.change_id("after_message_id", after) if after else None,
        )

    def _edit(self, r: message_pb2.EditMessageRequest) -> c.EditMessage:
        return c.EditMessage(
            fields.conversation_id(r.conversation_id),
            fields.change_id("request_id", r.request_id),
            fields.position("seq", r.seq),
            self._content(r.content),
        )

    def _delete(self, r: message_pb2.DeleteMessageRequest) -> c.DeleteMessage:
        return c.DeleteMessage(
            fields.conversation_id(r.conversation_id),
            fields.change_id("request_id", r.request_id),
            fields.position("seq", r.seq),
        )

    def _set_reaction(self, r: message_pb2.SetReactionRequest) -> c.SetReaction:
        fields.text("reaction", r.reaction, MAX_REACTION_BYTES)
        if any(one.isspace() or unicodedata.category(one) == "Cc" for one in r.reaction):
            raise invalid("reaction", "must have no white space and no control characters")
        return c.SetReaction(
            fields.conversation_id(r.conversation_id),
            fields.change_id("request_id", r.request_id),
            fields.position("seq", r.seq),
            r.reaction,
        )

    def _list_reactions(self, r: message_service_pb2.ListReactionsRequest) -> c.ListReactions:
        return c.ListReactions(
            fields.conversation_id(r.conversation_id),
            fields.position("seq", r.seq),
            fields.page_size(r.page_size, 100, 1000),
            fields.page_token(r.page_token),
        )

    def _set_pin(self, r: message_pb2.SetPinRequest) -> c.SetPin:
        return c.SetPin(
            fields.conversation_id(r.conversation_id),
            fields.change_id("request_id", r.request_id),
            fields.position("seq", r.seq),
            pinned=r.pinned,
        )

    def _list_pins(self, r: message_service_pb2.ListPinsRequest) -> c.ListPins:
        return c.ListPins(fields.conversation_id(r.conversation_id))

    def _content(self, content: message_pb2.MessageContent) -> bytes:
        text = content.text
        limit = self._limits.max_text_bytes
        if not text:
            raise invalid("content.text", "must not be empty")
        if len(text) * 4 > limit and len(text.encode()) > limit:
            raise DomainError(
                Reason.TOO_LARGE,
                f"content.text: must be at most {limit:,} bytes of UTF-8",
                field="content.text",
            )
        if content.reply_to_message_id:
            fields.change_id("content.reply_to_message_id", content.reply_to_message_id)
        check_mentions(content)
        return content.SerializeToString()

    def _list_history(self, r: message_service_pb2.ListHistoryRequest) -> c.ListHistory:
        if r.order not in (0, 1, 2):
            raise invalid("order", "must be ASCENDING or DESCENDING")
        return c.ListHistory(
            fields.log(r.conversation_id),
            fields.position("from_seq", r.from_seq, least=0),
            r.order == message_service_pb2.HISTORY_ORDER_ASCENDING,
            fields.page_size(r.page_size, 50, 1000),
            fields.page_token(r.page_token),
        )

    def _get_message(self, r: message_service_pb2.GetMessageRequest) -> c.GetMessage:
        log = fields.conversation_id(r.conversation_id)
        match r.WhichOneof("key"):
            case "seq":
                return c.GetMessage(log, fields.position("seq", r.seq), None)
            case "message_id":
                return c.GetMessage(log, 0, fields.change_id("message_id", r.message_id))
        raise invalid("key", "name the message by seq or by message_id")

    # Conversations

    def _create(
        self, r: conversation_service_pb2.CreateConversationRequest
    ) -> c.CreateConversation:
        users = fields.users("user_ids", r.user_ids)
        if r.kind == conversation_pb2.CONVERSATION_KIND_DIRECT:
            if len(users) != 1:
                raise invalid("user_ids", "a direct conversation has exactly one other user")
            if r.title:
                raise invalid("title", "a direct conversation has no title")
            return c.CreateConversation(ConversationKind.DIRECT, users)
        if r.kind != conversation_pb2.CONVERSATION_KIND_GROUP:
            raise invalid("kind", "must be DIRECT or GROUP")
        if len(users) >= MAX_MEMBERS_IN_REQUEST:
            raise invalid("user_ids", f"at most {MAX_MEMBERS_IN_REQUEST - 1} users")
        fields.text("title", r.title, MAX_BYTES["title"])
        return c.CreateConversation(
            ConversationKind.GROUP, users, r.title, fields.change_id("request_id", r.request_id)
        )

    def _add_members(self, r: conversation_service_pb2.AddMembersRequest) -> c.AddMembers:
        if not 1 <= len(r.members) <= MAX_MEMBERS_IN_REQUEST:
            raise invalid("members", f"between 1 and {MAX_MEMBERS_IN_REQUEST} users")
        members: dict[str, NewMember] = {}
        for i, member in enumerate(r.members):
            user = fields.user(f"members[{i}].user_id", member.user_id)
            role = fields.role(f"members[{i}].role", member.role or Role.MEMBER)
            members.setdefault(user, NewMember(user, role))
        return c.AddMembers(
            fields.conversation_id(r.conversation_id),
            fields.change_id("request_id", r.request_id),
            tuple(members.values()),
        )

    def _remove_member(self, r: conversation_service_pb2.RemoveMemberRequest) -> c.RemoveMember:
        return c.RemoveMember(
            fields.conversation_id(r.conversation_id),
            fields.change_id("request_id", r.request_id),
            fields.user("user_id", r.user_id),
        )

    def _leave(self, r: conversation_service_pb2.LeaveConversationRequest) -> c.LeaveConversation:
        return c.LeaveConversation(
            fields.conversation_id(r.conversation_id), fields.change_id("request_id", r.request_id)
        )

    def _update(
        self, r: conversation_service_pb2.UpdateConversationRequest
    ) -> c.UpdateConversation:
        return c.UpdateConversation(
            fields.conversation_id(r.conversation_id),
            fields.change_id("request_id", r.request_id),
            read_settings(r.settings, r.update_mask),
        )

    def _set_role(self, r: conversation_service_pb2.SetRoleRequest) -> c.SetRole:
        return c.SetRole(
            fields.conversation_id(r.conversation_id),
            fields.change_id("request_id", r.request_id),
            fields.user("user_id", r.user_id),
            fields.role("role", r.role),
        )

    def _transfer(
        self, r: conversation_service_pb2.TransferOwnershipRequest
    ) -> c.TransferOwnership:
        return c.TransferOwnership(
            fields.conversation_id(r.conversation_id),
            fields.change_id("request_id", r.request_id),
            fields.user("user_id", r.user_id),
        )

    def _set_mute(self, r: conversation_service_pb2.SetMuteRequest) -> c.SetMute:
        return c.SetMute(
            fields.conversation_id(r.conversation_id),
            fields.change_id("request_id", r.request_id),
            fields.user("user_id", r.user_id),
            fields.time("expire_time", r.expire_time) if r.HasField("expire_time") else 0,
        )

    def _set_ban(self, r: conversation_service_pb2.SetBanRequest) -> c.SetBan:
        return c.SetBan(
            fields.conversation_id(r.conversation_id),
            fields.change_id("request_id", r.request_id),
            fields.user("user_id", r.user_id),
            fields.time("expire_time", r.expire_time) if r.HasField("expire_time") else 0,
        )

    def _set_invitation(self, r: conversation_service_pb2.SetInvitationRequest) -> c.SetInvitation:
        if not 0 <= r.uses <= MAX_INVITATION_USES:
            raise invalid("uses", f"must be between 0 and {MAX_INVITATION_USES:,}")
        until_ms = 0
        if r.uses:
            until_ms = fields.time("expire_time", r.expire_time)
        elif r.HasField("expire_time"):
            raise invalid("expire_time", "must not be set where nobody may join")
        return c.SetInvitation(
            fields.conversation_id(r.conversation_id),
            fields.change_id("request_id", r.request_id),
            fields.invitation("code", r.code),
            r.uses,
            until_ms,
        )

    def _join(self, r: conversation_service_pb2.JoinConversationRequest) -> c.JoinConversation:
        return c.JoinConversation(
            fields.conversation_id(r.conversation_id),
            fields.change_id("request_id", r.request_id),
            fields.invitation("code", r.code),
        )

    def _get_conversation(
        self, r: conversation_service_pb2.GetConversationRequest
    ) -> c.GetConversation:
        return c.GetConversation(fields.conversation_id(r.conversation_id))

    def _list_conversations(
        self, r: conversation_service_pb2.ListConversationsRequest
    ) -> c.ListConversations:
        return c.ListConversations(
            fields.page_size(r.page_size, 50, 200), fields.page_token(r.page_token)
        )

    def _list_members(self, r: conversation_service_pb2.ListMembersRequest) -> c.ListMembers:
        return c.ListMembers(
            fields.conversation_id(r.conversation_id),
            fields.page_size(r.page_size, 100, 1000),
            fields.page_token(r.page_token),
        )

    # Receipts

    def _mark_delivered(self, r: receipt_service_pb2.MarkDeliveredRequest) -> c.MarkDelivered:
        return c.MarkDelivered(
            fields.conversation_id(r.conversation_id), fields.position("seq", r.seq)
        )

    def _mark_read(self, r: receipt_service_pb2.MarkReadRequest) -> c.MarkRead:
        return c.MarkRead(fields.conversation_id(r.conversation_id), fields.position("seq", r.seq))

    def _list_receipts(self, r: receipt_service_pb2.ListReceiptsRequest) -> c.ListReceipts:
        return c.ListReceipts(
            fields.conversation_id(r.conversation_id),
            fields.page_size(r.page_size, 100, 1000),
            fields.page_token(r.page_token),
        )

    def _get_unread(self, r: receipt_service_pb2.GetUnreadRequest) -> c.GetUnread:
        if len(r.conversation_ids) > MAX_CONVERSATIONS_A_LOOKUP:
            raise invalid("conversation_ids", f"at most {MAX_CONVERSATIONS_A_LOOKUP:,}")
        ids = [
            fields.conversation_id(log, f"conversation_ids[{i}]")
            for i, log in enumerate(r.conversation_ids)
        ]
        return c.GetUnread(tuple(dict.fromkeys(ids)))

    # Presence

    def _set_status(self, r: presence_service_pb2.SetStatusRequest) -> c.SetStatus:
        if r.availability not in presence_service_pb2.Availability.values():
            raise invalid("availability", "must be AVAILABLE, AWAY or DO_NOT_DISTURB")
        fields.text("status_text", r.status_text, MAX_STATUS_BYTES)
        return c.SetStatus(
            r.availability or presence_service_pb2.AVAILABILITY_AVAILABLE, r.status_text
        )

    def _get_presence(self, r: presence_service_pb2.GetPresenceRequest) -> c.GetPresence:
        if not 1 <= len(r.user_ids) <= MAX_USERS_A_LOOKUP:
            raise invalid("user_ids", f"between 1 and {MAX_USERS_A_LOOKUP} users")
        return c.GetPresence(fields.users("user_ids", r.user_ids))


def cursor_problem(log: str, seq: int, user_id: str) -> DomainError | None:
    """What is wrong with the form of a cursor, or None."""
    if not is_conversation_id(log) and log != inbox_log(user_id):
        return invalid("conversation_id", "must be a conversation id or the caller's inbox")
    if not 0 <= seq <= fields.MAX_POSITION:
        return invalid("seq", "must be a position, or 0")
    return None


def _unknown_field(message: Message) -> DomainError:
    path = _unknown_path(message)
    return DomainError(Reason.UNKNOWN_FIELD, f"The field {path} is not known here.", field=path)


def _unknown_path(message: Message) -> str:
    unknown = UnknownFieldSet(message)
    if len(unknown):
        return str(unknown[0].field_number)
    for field, value in message.ListFields():
        nested = value if field.is_repeated else [value]
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for part in nested:
            path = _unknown_path(part)
            if path:
                return f"{field.name}.{path}"
    return ""
