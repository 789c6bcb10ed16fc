"""Results and events as bytes: each function gives one `events` element of a `ChatResponse`, or the
response of a unary call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any

from google.protobuf.message import Message

from tidings.v1 import (
    chat_service_pb2,
    conversation_pb2,
    conversation_service_pb2,
    error_pb2,
    event_pb2,
    message_pb2,
    message_service_pb2,
    presence_service_pb2,
    receipt_service_pb2,
)

from ..core import commands as c
from ..core.limits import Limits
from ..core.principal import Principal
from ..core.state import GROUP_MEMBERS, SMALL_MEMBERS
from ..errors import DomainError
from . import admin
from .fields import to_timestamp
from .settings import to_overrides
from .wire import element, text, timestamp, varint


def to_error(problem: DomainError, prefix: str = "") -> error_pb2.Error:
    """A domain error for the wire. `prefix` goes before the field's path."""
    error = error_pb2.Error(
        code=problem.code.value,
        reason=problem.reason.value,  # type: ignore[arg-type]
        field=f"{prefix}.{problem.field}" if prefix and problem.field else problem.field,
        message=problem.message,
        metadata=problem.metadata,
    )
    if problem.retry_after_ms is not None:
        error.retry_delay.FromMilliseconds(problem.retry_after_ms)
    return error


# Responses


def _response_sent(r: c.Sent) -> Message:
    return message_pb2.SendMessageResponse(seq=r.seq, create_time=to_timestamp(r.time_ms))


_CHANGE_RESPONSES: dict[type, Callable[..., Message]] = {
    c.AddMembers: conversation_service_pb2.AddMembersResponse,
    c.RemoveMember: conversation_service_pb2.RemoveMemberResponse,
    c.LeaveConversation: conversation_service_pb2.LeaveConversationResponse,
    c.UpdateConversation: conversation_service_pb2.UpdateConversationResponse,
    c.SetRole: conversation_service_pb2.SetRoleResponse,
    c.TransferOwnership: conversation_service_pb2.TransferOwnershipResponse,
    c.SetMute: conversation_service_pb2.SetMuteResponse,
    c.SetBan: conversation_service_pb2.SetBanResponse,
    c.SetInvitation: conversation_service_pb2.SetInvitationResponse,
    c.JoinConversation: conversation_service_pb2.JoinConversationResponse,
}


def _response_message_changed(r: c.MessageChanged) -> Message:
    return _MESSAGE_RESPONSES[r.command](seq=r.seq, create_time=to_timestamp(r.time_ms))


_MESSAGE_RESPONSES: dict[type, Callable[..., Message]] = {
    c.EditMessage: message_pb2.EditMessageResponse,
    c.DeleteMessage: message_pb2.DeleteMessageResponse,
    c.SetReaction: message_pb2.SetReactionResponse,
    c.SetPin: message_pb2.SetPinResponse,
}


def _response_reactions(r: c.ReactionsListed) -> Message:
    return message_service_pb2.ListReactionsResponse(
        reactions=[
            message_pb2.Reaction(user_id=user, reaction=reaction) for user, reaction in r.reactions
        ],
        next_page_token=r.next_page_token,
    )


def _response_conversation_changed(r: c.ConversationChanged) -> Message:
    return _CHANGE_RESPONSES[r.command](seq=r.seq)


def _scale_class(member_count: int) -> conversation_pb2.ScaleClass.ValueType:
    if member_count <= SMALL_MEMBERS:
        return conversation_pb2.SCALE_CLASS_SMALL
    if member_count <= GROUP_MEMBERS:
        return conversation_pb2.SCALE_CLASS_GROUP
    return conversation_pb2.SCALE_CLASS_CHANNEL


def _conversation(v: c.ConversationView) -> conversation_pb2.Conversation:
    return conversation_pb2.Conversation(
        conversation_id=v.conversation_id,
        kind=v.kind.value,  # type: ignore[arg-type]
        title=v.title,
        peer_user_id=v.peer_user_id,
        create_time=to_timestamp(v.create_ms),
        update_time=to_timestamp(v.update_ms),
        member_count=v.member_count,
        scale_class=_scale_class(v.member_count),
        head_seq=v.head_seq,
        role=v.role.value if v.role else 0,  # type: ignore[arg-type]
        join_seq=v.join_seq,
        read_seq=v.read_seq,
        unread_count=v.unread_count,
        unread_mention_count=v.unread_mention_count,
        description=v.description,
        picture=v.picture,
        custom_data=v.custom_data,
        frozen=v.frozen,
        rights=to_overrides(v.rights),
        history_for_newcomers=v.history_for_newcomers,
    )


def _response_conversation(r: c.ConversationGot) -> Message:
    conversation = _conversation(r.view)
    if r.created:
        return conversation_service_pb2.CreateConversationResponse(conversation=conversation)
    return conversation_service_pb2.GetConversationResponse(conversation=conversation)


def _response_conversations(r: c.ConversationsListed) -> Message:
    return conversation_service_pb2.ListConversationsResponse(
        conversations=[_conversation(v) for v in r.views], next_page_token=r.next_page_token
    )


def _response_members(r: c.MembersListed) -> Message:
    return conversation_service_pb2.ListMembersResponse(
        members=[
            conversation_pb2.Member(
                user_id=m.user_id,
                role=m.role.value,  # type: ignore[arg-type]
                join_seq=m.join_seq,
                mute_expire_time=to_timestamp(m.muted_until_ms),
            )
            for m in r.members
        ],
        next_page_token=r.next_page_token,
    )


def _response_history(r: c.HistoryListed) -> Message:
    response = message_service_pb2.ListHistoryResponse.FromString(r.events)
    response.next_page_token = r.next_page_token
    return response


def _response_pins(r: c.PinsListed) -> Message:
    return message_service_pb2.ListPinsResponse.FromString(r.events)


def _response_message(r: c.MessageGot) -> Message:
    event, *states = chat_service_pb2.ChatResponse.FromString(r.event + r.state).events
    return message_service_pb2.GetMessageResponse(
        entry=event.entry, state=states[0].message_state if states else None
    )


def _response_delivered(r: c.Delivered) -> Message:
    return receipt_service_pb2.MarkDeliveredResponse(delivered_seq=r.delivered_seq)


def _response_read(r: c.Read) -> Message:
    return receipt_service_pb2.MarkReadResponse(read_seq=r.read_seq, unread_count=r.unread_count)


def _response_receipts(r: c.ReceiptsListed) -> Message:
    return receipt_service_pb2.ListReceiptsResponse(
        receipts=[
            receipt_service_pb2.Receipt(
                user_id=m.user_id, delivered_seq=m.delivered_seq, read_seq=m.read_seq
            )
            for m in r.marks
        ],
        next_page_token=r.next_page_token,
    )


def _response_unread(r: c.UnreadGot) -> Message:
    return receipt_service_pb2.GetUnreadResponse(
        counts=[
            receipt_service_pb2.UnreadCount(
                conversation_id=u.conversation_id,
                unread_count=u.unread_count,
                read_seq=u.read_seq,
                unread_mention_count=u.unread_mention_count,
            )
            for u in r.counts
        ],
        total=sum(u.unread_count for u in r.counts),
        total_mentions=sum(u.unread_mention_count for u in r.counts),
    )


def _presence(p: c.PresenceView) -> presence_service_pb2.Presence:
    return presence_service_pb2.Presence(
        user_id=p.user_id,
        online=p.online,
        last_seen_time=to_timestamp(p.last_seen_ms),
        availability=p.availability,  # type: ignore[arg-type]
        status_text=p.status_text,
    )


def _response_presence(r: c.PresenceGot) -> Message:
    return presence_service_pb2.GetPresenceResponse(presences=[_presence(p) for p in r.presences])


def _response_status(r: c.StatusSet) -> Message:
    return presence_service_pb2.SetStatusResponse(presence=_presence(r.presence))


def _response_token(r: c.TokenRefreshed) -> Message:
    return event_pb2.RefreshTokenResult(token_expire_time=to_timestamp(r.expires_at_ms))


def _response_hello(r: c.Welcomed) -> Message:
    return event_pb2.HelloResult(
        refused_cursors=[
            event_pb2.CursorRefusal(
                conversation_id=x.log, seq=x.seq, error=to_error(x.problem, "hello.cursors")
            )
            for x in r.refused
        ]
    )


_RESPONSES: dict[type, Callable[[Any], Message]] = {
    c.Sent: _response_sent,
    c.MessageChanged: _response_message_changed,
    c.ReactionsListed: _response_reactions,
    c.ConversationChanged: _response_conversation_changed,
    c.ConversationGot: _response_conversation,
    c.ConversationsListed: _response_conversations,
    c.MembersListed: _response_members,
    c.HistoryListed: _response_history,
    c.PinsListed: _response_pins,
    c.MessageGot: _response_message,
    c.Delivered: _response_delivered,
    c.Read: _response_read,
    c.ReceiptsListed: _response_receipts,
    c.UnreadGot: _response_unread,
    c.PresenceGot: _response_presence,
    c.StatusSet: _response_status,
    c.TokenRefreshed: _response_token,
    c.Welcomed: _response_hello,
    **admin.RESPONSES,
}


def to_response(result: c.Result) -> Message:
    """The response of a unary call."""
    return _RESPONSES[type(result)](result)


# Events

_OUTCOME_TAGS: dict[str, int] = {
    f.message_type.full_name: f.number << 3 | 2
    for f in event_pb2.CommandResult.DESCRIPTOR.oneofs_by_name["outcome"].fields
    if f.message_type is not None
}


def result_event(command_id: int, name: str, outcome: c.Result | DomainError) -> bytes:
    """The result of the command `name` (the field of `Command` that it was) with the client's
    number.
    """
    if type(outcome) is c.Sent:
        body = element(
            0x1A, b"\x08" + varint(outcome.seq) + element(0x12, timestamp(outcome.time_ms))
        )
    else:
        message = (
            to_error(outcome, name) if isinstance(outcome, DomainError) else to_response(outcome)
        )
        body = element(_OUTCOME_TAGS[message.DESCRIPTOR.full_name], message.SerializeToString())
    if command_id:
        # Negative numbers are sign-extended to ten bytes, as protobuf has it.
        body = b"\x08" + varint(command_id & 0xFFFF_FFFF_FFFF_FFFF) + body
    return element(0x0A, element(0x12, body))


def _event(**kind: Any) -> bytes:
    return element(0x0A, event_pb2.Event(**kind).SerializeToString())


def to_limits(limits: Limits, window: int) -> event_pb2.Limits:
    """The limits that a client is told."""
    return event_pb2.Limits(
        window=window,
        max_text_bytes=limits.max_text_bytes,
        max_frame_bytes=limits.max_frame_bytes,
        max_commands_in_flight=limits.max_commands_in_flight,
        beacon_interval_ms=limits.beacon_interval_ms,
        max_members=limits.max_members,
    )


def welcome_event(
    session_id: str,
    principal: Principal,
    *,
    now_ms: int,
    incarnation: str,
    incarnation_changed: bool,
    limits: Limits,
    window: int,
) -> bytes:
    """The session is open."""
    return _event(
        welcome=event_pb2.Welcome(
            session_id=session_id,
            user_id=principal.user_id,
            device_id=principal.device_id,
            server_time=to_timestamp(now_ms),
            incarnation=incarnation,
            incarnation_changed=incarnation_changed,
            token_expire_time=to_timestamp(principal.expires_at_ms),
            limits=to_limits(limits, window),
        )
    )


def skipped_event(log: str, from_seq: int, to_seq: int) -> bytes:
    """Positions that the user may not see."""
    body = text(0x0A, log) + b"\x10" + varint(from_seq) + b"\x18" + varint(to_seq)
    return element(0x0A, element(0x22, body))


def gap_event(log: str, from_seq: int, to_seq: int) -> bytes:
    """Positions left to history."""
    body = text(0x0A, log) + b"\x10" + varint(from_seq) + b"\x18" + varint(to_seq)
    return element(0x0A, element(0x2A, body))


def sync_complete_event(conversations: int) -> bytes:
    """The device is level."""
    return _event(sync_complete=event_pb2.SyncComplete(conversations=conversations))


def receipt_event(log: str, user_id: str, delivered_seq: int, read_seq: int) -> bytes:
    """A member's marks moved."""
    return _event(
        receipt=event_pb2.ReceiptUpdate(
            conversation_id=log, user_id=user_id, delivered_seq=delivered_seq, read_seq=read_seq
        )
    )


def beacon_event(now_ms: int, positions: Iterable[tuple[str, int]] | None) -> bytes:
    """The heartbeat, with a digest of the positions unless something is on its way."""
    beacon = event_pb2.Beacon(server_time=to_timestamp(now_ms))
    if positions is not None:
        digest, count = digest_of(positions)
        beacon.level, beacon.digest, beacon.conversations = True, digest, count
    return _event(beacon=beacon)


def token_expiring_event(expires_at_ms: int) -> bytes:
    """The token is about to expire."""
    return _event(
        token_expiring=event_pb2.TokenExpiring(token_expire_time=to_timestamp(expires_at_ms))
    )


def going_away_event(delay_ms: int) -> bytes:
    """The server is about to stop."""
    return _event(going_away=event_pb2.GoingAway(reconnect_delay_ms=delay_ms))


def session_ended_event(problem: DomainError, *, reconnect: bool) -> bytes:
    """The session ends."""
    return _event(
        session_ended=event_pb2.SessionEnded(error=to_error(problem), reconnect=reconnect)
    )


def digest_of(positions: Iterable[tuple[str, int]]) -> tuple[int, int]:
    """The digest of positions, as `Beacon` defines it, and their number."""
    total = count = 0
    for log, seq in positions:
        total += int.from_bytes(sha256(f"{log}:{seq}".encode()).digest()[:8], "big")
        count += 1
    return total & 0xFFFF_FFFF_FFFF_FFFF, count
