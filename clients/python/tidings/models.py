"""What unary operations return: conversations, members, receipts, presence, as plain frozen values."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

__all__ = [
    "Availability",
    "Conversation",
    "ConversationKind",
    "ConversationRight",
    "HistoryOrder",
    "Member",
    "MemberRole",
    "Presence",
    "Receipt",
    "RightOverride",
    "ScaleClass",
    "Unread",
    "UnreadCount",
]


FOR_GOOD: Final = datetime(9999, 12, 31, 23, 59, 59, 999000, UTC)
"""The latest time until which a member can be muted or banned."""


class _OpenEnum(enum.IntEnum):
    """An enum whose values unknown to this version are read as UNSPECIFIED, the value 0."""

    @classmethod
    def _missing_(cls, value: object) -> _OpenEnum | None:
        return cls(0) if isinstance(value, int) and value != 0 else None


class ConversationKind(_OpenEnum):
    """How a conversation is made and who may join."""

    UNSPECIFIED = 0
    DIRECT = 1
    GROUP = 2


class MemberRole(_OpenEnum):
    """What a member may do. UNSPECIFIED is an ex-member.

    From the bottom up: GUEST, MEMBER, MODERATOR, ADMIN, OWNER.
    """

    UNSPECIFIED = 0
    MEMBER = 1
    OWNER = 2
    ADMIN = 3
    MODERATOR = 4
    GUEST = 5


class ConversationRight(_OpenEnum):
    """Something that a member may be allowed to do; the contract tells which roles have which by default."""

    UNSPECIFIED = 0
    READ = 1
    POST = 2
    EDIT = 3
    REACT = 4
    DELETE = 5
    DELETE_OTHERS = 6
    ADD_MEMBERS = 7
    REMOVE_MEMBERS = 8
    LEAVE = 9
    UPDATE = 10
    SET_ROLES = 11
    MUTE = 12
    BAN = 13
    FREEZE = 14
    POST_FROZEN = 15
    SET_RIGHTS = 16
    INVITE = 17
    PIN = 20
    MENTION_ALL = 21


class ScaleClass(_OpenEnum):
    """How live a conversation is, by its number of members."""

    UNSPECIFIED = 0
    SMALL = 1
    GROUP = 2
    CHANNEL = 3


class Availability(_OpenEnum):
    """What a user says of being there."""

    UNSPECIFIED = 0
    AVAILABLE = 1
    AWAY = 2
    DO_NOT_DISTURB = 3


class HistoryOrder(enum.IntEnum):
    """The direction of a listing of history."""

    ASCENDING = 1
    DESCENDING = 2


@dataclass(frozen=True, slots=True)
class RightOverride:
    """A right that a role has, or has not, in one conversation.

    Attributes:
        role: Any but OWNER.
        right: Any but READ, LEAVE and SET_RIGHTS.
        allowed: Whether the role has it.
    """

    role: MemberRole
    right: ConversationRight
    allowed: bool


@dataclass(frozen=True, slots=True)
class Member:
    """One user's membership of a conversation.

    Attributes:
        user_id: The user.
        role: What the member may do.
        join_seq: The position of the entry that made the user a member.
        mute_expire_time: Until when they are muted, in UTC, perhaps a time that has passed; None for never.
    """

    user_id: str
    role: MemberRole = MemberRole.MEMBER
    join_seq: int = 0
    mute_expire_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation as its caller sees it.

    Attributes:
        conversation_id: A UUID in lower-case text form.
        kind: Direct or group.
        title: The title of a group, empty in direct conversations, and for ex-members if a setting was changed later.
        peer_user_id: In direct conversations the other user, otherwise empty.
        create_time: When it was created, in UTC.
        update_time: When its newest entry was committed, in UTC.
        member_count: The number of members now.
        scale_class: How live it is.
        head_seq: The newest position that the caller may read.
        role: The caller's role, UNSPECIFIED for an ex-member.
        join_seq: The first position that the caller may read.
        read_seq: How far the caller has read, over all devices; 0 when nothing was read.
        unread_count: The messages after read_seq.
        unread_mention_count: How many of them mention the caller or everybody, 100 standing for as many or more.
        description: What it is for.
        picture: A URL, or the id of a medium.
        custom_data: Data of an integrator.
        frozen: Whether only few may post.
        rights: Rights that are otherwise than by default.
        history_for_newcomers: Whether those who are added may read what came before.
    """

    conversation_id: str
    kind: ConversationKind
    title: str
    peer_user_id: str
    create_time: datetime
    update_time: datetime
    member_count: int
    scale_class: ScaleClass
    head_seq: int
    role: MemberRole
    join_seq: int
    read_seq: int
    unread_count: int
    description: str = ""
    picture: str = ""
    custom_data: str = ""
    frozen: bool = False
    rights: tuple[RightOverride, ...] = ()
    history_for_newcomers: bool = False
    unread_mention_count: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """How far one member has got and read.

    Attributes:
        user_id: The member.
        delivered_seq: The newest position delivered to a device of the member.
        read_seq: The newest position read by the member.
    """

    user_id: str
    delivered_seq: int
    read_seq: int


@dataclass(frozen=True, slots=True)
class UnreadCount:
    """What is unread in one conversation.

    Attributes:
        conversation_id: The conversation.
        unread_count: The messages after the read mark.
        read_seq: The caller's read mark.
        unread_mention_count: How many of the messages mention the caller or everybody, 100 standing for as many or
            more; not told by `mark_read`.
    """

    conversation_id: str
    unread_count: int
    read_seq: int
    unread_mention_count: int = 0


@dataclass(frozen=True, slots=True)
class Unread:
    """What is unread over several conversations.

    Attributes:
        total: The sum over all the conversations asked for.
        counts: One for each conversation with at least one unread message, by conversation id.
        total_mentions: The sum of their unread mentions.
    """

    total: int
    counts: dict[str, UnreadCount]
    total_mentions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """What is known of one user.

    Attributes:
        user_id: The user.
        online: Whether a device is connected, or was within the last ten seconds.
        last_seen_time: When a device was last connected, in UTC; None while online or when never seen.
        availability: What the user says of being there.
        status_text: A text of the user's own.
    """

    user_id: str
    online: bool
    last_seen_time: datetime | None
    availability: Availability
    status_text: str
