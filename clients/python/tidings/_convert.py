"""From protobuf messages to the SDK's own types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from . import events, models
from .errors import Code, TidingsError, error_for
from .mentions import from_wire
from .v1 import (
    conversation_pb2,
    entry_pb2,
    error_pb2,
    event_pb2,
    message_pb2,
    presence_service_pb2,
)

if TYPE_CHECKING:
    from google.protobuf.message import Message as ProtoMessage

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_REASON_PREFIX = "ERROR_REASON_"


def time_of(timestamp: Timestamp) -> datetime:
    """A protobuf time as a datetime in UTC."""
    return _EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1000)


def to_timestamp(time: datetime | None) -> Timestamp | None:
    """A time for a request, in whole milliseconds. Raises ValueError for one without a time zone."""
    if time is None:
        return None
    if time.tzinfo is None:
        raise ValueError("a time needs a time zone")
    timestamp = Timestamp()
    timestamp.FromMilliseconds((time - _EPOCH) // timedelta(milliseconds=1))
    return timestamp


def _time_or_none(message: ProtoMessage, field: str) -> datetime | None:
    return time_of(getattr(message, field)) if message.HasField(field) else None


def time_of_ms(ms: int) -> datetime:
    """Milliseconds since the Unix epoch as a datetime in UTC."""
    return _EPOCH + timedelta(milliseconds=ms)


def ms_of(timestamp: Timestamp) -> int:
    """A protobuf time in milliseconds since the Unix epoch."""
    return timestamp.seconds * 1000 + timestamp.nanos // 1_000_000


def error_of(error: error_pb2.Error) -> TidingsError:
    """The error of a command."""
    try:
        reason = error_pb2.ErrorReason.Name(error.reason).removeprefix(_REASON_PREFIX)
    except ValueError:
        # A reason newer than this SDK: its number is still something to search for.
        reason = str(int(error.reason))
    retry_after = None
    if error.HasField("retry_delay"):
        retry_after = error.retry_delay.seconds + error.retry_delay.nanos / 1e9
    return error_for(
        Code(error.code),
        error.message,
        reason="" if reason == "UNSPECIFIED" else reason,
        field=error.field,
        retry_after=retry_after,
        metadata=dict(error.metadata),
    )


def member_of(member: conversation_pb2.Member, join_seq: int = 0) -> models.Member:
    """A membership; an entry that made it needs not say at which position."""
    return models.Member(
        member.user_id,
        models.MemberRole(member.role),
        member.join_seq or join_seq,
        _time_or_none(member, "mute_expire_time"),
    )


def _members_of(
    members: Iterable[conversation_pb2.Member], join_seq: int
) -> tuple[models.Member, ...]:
    return tuple(member_of(member, join_seq) for member in members)


def _rights_of(
    rights: Iterable[conversation_pb2.RightOverride],
) -> tuple[models.RightOverride, ...]:
    return tuple(
        models.RightOverride(
            models.MemberRole(one.role), models.ConversationRight(one.right), one.allowed
        )
        for one in rights
    )


def conversation_of(conversation: conversation_pb2.Conversation) -> models.Conversation:
    """A conversation."""
    return models.Conversation(
        conversation_id=conversation.conversation_id,
        kind=models.ConversationKind(conversation.kind),
        title=conversation.title,
        peer_user_id=conversation.peer_user_id,
        create_time=time_of(conversation.create_time),
        update_time=time_of(conversation.update_time),
        member_count=conversation.member_count,
        scale_class=models.ScaleClass(conversation.scale_class),
        head_seq=conversation.head_seq,
        role=models.MemberRole(conversation.role),
        join_seq=conversation.join_seq,
        read_seq=conversation.read_seq,
        unread_count=conversation.unread_count,
        unread_mention_count=conversation.unread_mention_count,
        description=conversation.description,
        picture=conversation.picture,
        custom_data=conversation.custom_data,
        frozen=conversation.frozen,
        rights=_rights_of(conversation.rights),
        history_for_newcomers=conversation.history_for_newcomers,
    )


def presence_of(presence: presence_service_pb2.Presence) -> models.Presence:
    """What is known of a user."""
    return models.Presence(
        user_id=presence.user_id,
        online=presence.online,
        last_seen_time=(
            time_of(presence.last_seen_time) if presence.HasField("last_seen_time") else None
        ),
        availability=models.Availability(presence.availability),
        status_text=presence.status_text,
    )


def receipt_of(receipt: event_pb2.ReceiptUpdate) -> events.ReceiptUpdate:
    """A receipt that moved."""
    return events.ReceiptUpdate(
        conversation_id=receipt.conversation_id,
        user_id=receipt.user_id,
        delivered_seq=receipt.delivered_seq,
        read_seq=receipt.read_seq,
    )


def gap_of(gap: event_pb2.Gap) -> events.Gap:
    """Positions left out."""
    return events.Gap(conversation_id=gap.conversation_id, from_seq=gap.from_seq, to_seq=gap.to_seq)


def skipped_of(skipped: event_pb2.Skipped) -> events.Skipped:
    """Positions passed over."""
    return events.Skipped(
        conversation_id=skipped.conversation_id, from_seq=skipped.from_seq, to_seq=skipped.to_seq
    )


def state_of(state: message_pb2.MessageState) -> events.MessageState:
    """What became of a message."""
    edited = state.HasField("content")
    return events.MessageState(
        conversation_id=state.conversation_id,
        seq=state.seq,
        as_of=state.as_of,
        text=state.content.text if edited else None,
        reply_to=(state.content.reply_to_message_id or None) if edited else None,
        mentions=from_wire(state.content),
        edit_seqs=tuple(state.edit_seqs),
        edit_time=time_of(state.edit_time) if state.HasField("edit_time") else None,
        deleted=state.deleted,
        reactions=tuple((r.reaction, r.count) for r in state.reactions),
        own_reaction=state.own_reaction,
        pin_seq=state.pin_seq,
    )


def entries_of(answer: Iterable[event_pb2.Event], user_id: str) -> Iterator[events.Entry]:
    """The entries of an answer, each with what became of it."""
    states = {
        event.message_state.seq: event.message_state
        for event in answer
        if event.HasField("message_state")
    }
    for event in answer:
        if event.HasField("entry"):
            yield entry_of(event.entry, user_id, states.get(event.entry.seq))


def entry_of(
    entry: entry_pb2.Entry, user_id: str, state: message_pb2.MessageState | None = None
) -> events.Entry:
    """An entry of a log, as the given user sees it; with what became of it, where that was fetched."""
    log = entry.conversation_id
    seq = entry.seq
    ordinal = entry.ordinal
    time = time_of(entry.create_time)
    sender = entry.user_id
    entry_id = entry.id
    body = entry.WhichOneof("body")
    if body == "message":
        message = entry.message
        return events.Message(
            conversation_id=log,
            log=log,
            seq=seq,
            ordinal=ordinal,
            time=time,
            user_id=sender,
            entry_id=entry_id,
            text=message.text,
            reply_to=message.reply_to_message_id or None,
            mentions=from_wire(message),
            own=sender == user_id,
            state=state_of(state) if state is not None else None,
            erased=entry.erased,
        )
    if body == "message_edited":
        edited = entry.message_edited
        return events.MessageEdited(
            conversation_id=log,
            log=log,
            seq=seq,
            ordinal=ordinal,
            time=time,
            user_id=sender,
            entry_id=entry_id,
            message_seq=edited.seq,
            text=edited.content.text,
            reply_to=edited.content.reply_to_message_id or None,
            mentions=from_wire(edited.content),
            erased=entry.erased,
        )
    if body == "message_deleted":
        return events.MessageDeleted(
            conversation_id=log,
            log=log,
            seq=seq,
            ordinal=ordinal,
            time=time,
            user_id=sender,
            entry_id=entry_id,
            message_seq=entry.message_deleted.seq,
        )
    if body == "reaction_set":
        reaction = entry.reaction_set
        return events.ReactionSet(
            conversation_id=log,
            log=log,
            seq=seq,
            ordinal=ordinal,
            time=time,
            user_id=sender,
            entry_id=entry_id,
            message_seq=reaction.seq,
            reaction=reaction.reaction,
            replaced=reaction.replaced,
            own=sender == user_id,
        )
    if body == "message_pinned":
        return events.MessagePinned(
            conversation_id=log,
            log=log,
            seq=seq,
            ordinal=ordinal,
            time=time,
            user_id=sender,
            entry_id=entry_id,
            message_seq=entry.message_pinned.seq,
            pinned=entry.message_pinned.pinned,
        )
    if body == "conversation_created":
        created = entry.conversation_created
        return events.ConversationCreated(
            conversation_id=log,
            log=log,
            seq=seq,
            ordinal=ordinal,
            time=time,
            user_id=sender,
            entry_id=entry_id,
            kind=models.ConversationKind(created.kind),
            title=created.title,
            members=_members_of(created.members, seq),
        )
    if body == "members_added":
        return events.MembersAdded(
            conversation_id=log,
            log=log,
            seq=seq,
            ordinal=ordinal,
            time=time,
            user_id=sender,
            entry_id=entry_id,
            members=_members_of(entry.members_added.members, seq),
            with_history=entry.members_added.with_history,
            invitation_id=entry.members_added.invitation_id,
        )
    if body == "member_removed":
        return events.MemberRemoved(
            conversation_id=log,
            log=log,
            seq=seq,
            ordinal=ordinal,
            time=time,
            user_id=sender,
            entry_id=entry_id,
            removed_user_id=entry.member_removed.user_id,
            role=models.MemberRole(entry.member_removed.role),
            ban_expire_time=_time_or_none(entry.member_removed, "ban_expire_time"),
        )
    if body == "member_role_set":
        return events.MemberRoleSet(
            conversation_id=log,
            log=log,
            seq=seq,
            ordinal=ordinal,
            time=time,
            user_id=sender,
            entry_id=entry_id,
            roles={
                change.user_id: models.MemberRole(change.role)
                for change in entry.member_role_set.changes
            },
        )
    if body == "conversation_updated":
        settings = entry.conversation_updated.settings
        changed = frozenset(entry.conversation_updated.update_mask.paths)
        return events.ConversationUpdated(
            conversation_id=log,
            log=log,
            seq=seq,
            ordinal=ordinal,
            time=time,
            user_id=sender,
            entry_id=entry_id,
            title=settings.title if "title" in changed else None,
            description=settings.description if "description" in changed else None,
            picture=settings.picture if "picture" in changed else None,
            custom_data=settings.custom_data if "custom_data" in changed else None,
            frozen=settings.frozen if "frozen" in changed else None,
            rights=_rights_of(settings.rights) if "rights" in changed else None,
            history_for_newcomers=(
                settings.history_for_newcomers if "history_for_newcomers" in changed else None
            ),
        )
    if body == "conversation_joined":
        joined = entry.conversation_joined
        return events.ConversationJoined(
            conversation_id=joined.conversation_id,
            log=log,
            seq=seq,
            ordinal=ordinal,
            time=time,
            user_id=sender,
            entry_id=entry_id,
            kind=models.ConversationKind(joined.kind),
            title=joined.title,
            join_seq=joined.seq,
            role=models.MemberRole(joined.role),
            peer_user_id=joined.peer_user_id,
        )
    if body == "conversation_left":
        left = entry.conversation_left
        return events.ConversationLeft(
            conversation_id=left.conversation_id,
            log=log,
            seq=seq,
            ordinal=ordinal,
            time=time,
            user_id=sender,
            entry_id=entry_id,
            last_seq=left.seq,
        )
    return _restriction_of(
        entry,
        {
            "conversation_id": log,
            "log": log,
            "seq": seq,
            "ordinal": ordinal,
            "time": time,
            "user_id": sender,
            "entry_id": entry_id,
        },
    )


def _restriction_of(entry: entry_pb2.Entry, common: dict[str, Any]) -> events.Entry:
    """Who may come in and speak, or something that this version does not know."""
    body = entry.WhichOneof("body")
    if body == "member_muted":
        return events.MemberMuted(
            **common,
            muted_user_id=entry.member_muted.user_id,
            expire_time=_time_or_none(entry.member_muted, "expire_time"),
        )
    if body == "member_banned":
        return events.MemberBanned(
            **common,
            banned_user_id=entry.member_banned.user_id,
            expire_time=_time_or_none(entry.member_banned, "expire_time"),
        )
    if body == "invitation_set":
        return events.InvitationSet(
            **common,
            invitation_id=entry.invitation_set.invitation_id,
            uses=entry.invitation_set.uses,
            expire_time=_time_or_none(entry.invitation_set, "expire_time"),
        )
    return events.UnknownEntry(
        **common,
        raw=entry.SerializeToString(),
    )
