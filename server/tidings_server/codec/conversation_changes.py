"""Changes of conversations and of who is in them, as bodies of entries."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import Message

from tidings.v1 import conversation_pb2, entry_pb2

from ..core.entries import (
    Body,
    ConversationCreated,
    ConversationKind,
    ConversationUpdated,
    InvitationSet,
    MemberBanned,
    MemberMuted,
    MemberRemoved,
    MemberRoleSet,
    MembersAdded,
    NewMember,
    Role,
    RoleChange,
    UnknownBody,
)
from .fields import to_ms
from .settings import decode_settings, encode_settings


def encode_change(entry: entry_pb2.Entry, seq: int, body: Body) -> None:
    """Writes a change into an entry that stands, or is to stand, at a position. Raises TypeError for other bodies."""
    match body:
        case ConversationCreated(kind, title, members):
            created = entry.conversation_created
            created.kind = kind.value  # type: ignore[assignment]
            created.title = title
            for m in members:
                created.members.add(user_id=m.user_id, role=m.role.value, join_seq=seq)
        case InvitationSet(invitation, uses, until_ms):
            entry.invitation_set.invitation_id = invitation
            entry.invitation_set.uses = uses
            _set_time(entry.invitation_set, "expire_time", until_ms)
        case MembersAdded(members, with_history, invitation):
            entry.members_added.with_history = with_history
            entry.members_added.invitation_id = invitation
            for m in members:
                entry.members_added.members.add(user_id=m.user_id, role=m.role.value, join_seq=seq)
        case MemberRemoved(user_id, role, banned_until_ms):
            entry.member_removed.user_id = user_id
            entry.member_removed.role = _number(role)
            _set_time(entry.member_removed, "ban_expire_time", banned_until_ms)
        case MemberMuted(user_id, until_ms):
            entry.member_muted.user_id = user_id
            _set_time(entry.member_muted, "expire_time", until_ms)
        case MemberBanned(user_id, until_ms):
            entry.member_banned.user_id = user_id
            _set_time(entry.member_banned, "expire_time", until_ms)
        case MemberRoleSet(role_changes):
            entry.member_role_set.SetInParent()
            for change in role_changes:
                entry.member_role_set.changes.add(
                    user_id=change.user_id,
                    role=_number(change.role),
                    previous_role=_number(change.before),
                )
        case ConversationUpdated(changes):
            updated = entry.conversation_updated
            updated.SetInParent()
            encode_settings(changes, updated.settings, updated.update_mask)
        case _:
            raise TypeError(f"{type(body).__name__} can't be encoded")


def decode_change(entry: entry_pb2.Entry) -> Body:
    """The change that an entry is. Raises ValueError when a part of it is of a newer version."""
    match entry.WhichOneof("body"):
        case "conversation_created":
            created = entry.conversation_created
            return ConversationCreated(
                ConversationKind(created.kind), created.title, _members(created.members)
            )
        case "members_added":
            added = entry.members_added
            return MembersAdded(_members(added.members), added.with_history, added.invitation_id)
        case "invitation_set":
            made = entry.invitation_set
            return InvitationSet(made.invitation_id, made.uses, to_ms(made.expire_time))
        case "member_removed":
            removed = entry.member_removed
            banned_until_ms = to_ms(removed.ban_expire_time)
            return MemberRemoved(removed.user_id, _role(removed.role), banned_until_ms)
        case "member_muted":
            muted = entry.member_muted
            return MemberMuted(muted.user_id, to_ms(muted.expire_time))
        case "member_banned":
            banned = entry.member_banned
            return MemberBanned(banned.user_id, to_ms(banned.expire_time))
        case "member_role_set":
            return MemberRoleSet(
                tuple(
                    RoleChange(change.user_id, Role(change.role), _role(change.previous_role))
                    for change in entry.member_role_set.changes
                )
            )
        case "conversation_updated":
            updated = entry.conversation_updated
            return ConversationUpdated(decode_settings(updated.settings, updated.update_mask))
    return UnknownBody()


def _members(members: Iterable[conversation_pb2.Member]) -> tuple[NewMember, ...]:
    return tuple(NewMember(m.user_id, Role(m.role)) for m in members)


def _set_time(message: Message, field: str, time_ms: int) -> None:
    if time_ms:
        getattr(message, field).FromMilliseconds(time_ms)


def _number(role: Role | None) -> conversation_pb2.MemberRole.ValueType:
    return role.value if role else 0  # type: ignore[return-value]


def _role(number: int) -> Role | None:
    return Role(number) if number else None
