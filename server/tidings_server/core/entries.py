"""Entries: the durable changes that logs are made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from .records import record


class ConversationKind(IntEnum):
    """How a conversation is made and who may join. Numbers as in `tidings.v1.ConversationKind`."""

    DIRECT = 1
    GROUP = 2


class Role(IntEnum):
    """What a member may do. Numbers as in `tidings.v1.MemberRole`."""

    MEMBER = 1
    OWNER = 2
    ADMIN = 3
    MODERATOR = 4
    GUEST = 5


@dataclass(frozen=True, slots=True)
class NewMember:
    """A user who becomes a member."""

    user_id: str
    role: Role = Role.MEMBER


RightOverride = tuple[int, int, bool]
"""A role, a right, and whether it has that in a conversation; numbers as in the contract."""

Setting = tuple[str, str | bool | tuple[RightOverride, ...]]
"""A setting of a conversation and its value."""

SETTINGS = (
    "title",
    "description",
    "picture",
    "custom_data",
    "frozen",
    "rights",
    "history_for_newcomers",
)
"""What can be changed of a conversation: fields of `tidings.v1.ConversationSettings`, and of `ConversationState`."""


@record(frozen=True, slots=True)
class MessagePosted:
    """A message. `content` is a serialised `tidings.v1.MessageContent`, kept as the sender made
    it.
    """

    content: bytes


@dataclass(frozen=True, slots=True)
class MessageEdited:
    """The message at `seq` has another content, a serialised `tidings.v1.MessageContent`."""

    seq: int
    content: bytes


@dataclass(frozen=True, slots=True)
class ConversationCreated:
    """The first entry of a conversation."""

    kind: ConversationKind
    title: str
    members: tuple[NewMember, ...]


@dataclass(frozen=True, slots=True)
class MembersAdded:
    """Users became members. `with_history`: they may read what came before. `invitation` is that by which the entry's
    user joined, or empty.
    """

    members: tuple[NewMember, ...]
    with_history: bool = False
    invitation: str = ""


@dataclass(frozen=True, slots=True)
class InvitationSet:
    """So many may join by an invitation until a time; 0: nobody any more."""

    invitation: str
    uses: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class MemberRemoved:
    """A membership ended. It is the last entry of its page. `role` is the one that the member had; the first version
    does not tell it. `banned_until_ms` is 0 for those who are not banned.
    """

    user_id: str
    role: Role | None = None
    banned_until_ms: int = 0


@dataclass(frozen=True, slots=True)
class MemberMuted:
    """A member may not post, edit and react until a time; 0: may again."""

    user_id: str
    until_ms: int


@dataclass(frozen=True, slots=True)
class MemberBanned:
    """An ex-member is not to be added until a time; 0: may be again."""

    user_id: str
    until_ms: int


@dataclass(frozen=True, slots=True)
class RoleChange:
    """A member's new role, in the place of the one before."""

    user_id: str
    role: Role
    before: Role | None = None


@dataclass(frozen=True, slots=True)
class MemberRoleSet:
    """Members have other roles."""

    changes: tuple[RoleChange, ...]


@dataclass(frozen=True, slots=True)
class ConversationUpdated:
    """Settings of the conversation have other values: pairs of the name, as in `SETTINGS`, and the value, in the order
    of the names there.
    """

    changes: tuple[Setting, ...]


@dataclass(frozen=True, slots=True)
class ConversationJoined:
    """Inbox: the user became a member at position `seq` of the conversation."""

    conversation_id: str
    kind: ConversationKind
    title: str
    seq: int
    role: Role
    peer_user_id: str = ""


@dataclass(frozen=True, slots=True)
class ConversationLeft:
    """Inbox: the user's membership ended at position `seq` of the conversation."""

    conversation_id: str
    seq: int


@dataclass(frozen=True, slots=True)
class UnknownBody:
    """A kind that this version does not know. Its log may be read, but not appended to."""


@dataclass(frozen=True, slots=True)
class MessageDeleted:
    """The message at `seq` is deleted for all, and its content and that of its edits is erased."""

    seq: int


@dataclass(frozen=True, slots=True)
class ReactionSet:
    """A user's reaction to the message at `seq`, empty when it was taken back, in the place of the one `replaced`."""

    seq: int
    reaction: str
    replaced: str = ""


@dataclass(frozen=True, slots=True)
class MessagePinned:
    """The message at `seq` is `pinned`, or not any more."""

    seq: int
    pinned: bool


MessageChange = MessageEdited | MessageDeleted | ReactionSet | MessagePinned
MESSAGE_CHANGES = (MessageEdited, MessageDeleted, ReactionSet, MessagePinned)
"""What happens to a message that was posted: each names its position as `seq`."""

Body = (
    MessagePosted
    | MessageChange
    | ConversationCreated
    | MembersAdded
    | MemberRemoved
    | ConversationUpdated
    | MemberRoleSet
    | MemberMuted
    | MemberBanned
    | InvitationSet
    | ConversationJoined
    | ConversationLeft
    | UnknownBody
)

STATE_BODIES = (
    ConversationCreated,
    MembersAdded,
    MemberRemoved,
    ConversationUpdated,
    MemberRoleSet,
    MemberMuted,
    MemberBanned,
    InvitationSet,
    ConversationJoined,
    ConversationLeft,
    UnknownBody,
)
"""Kinds that change more than the count of messages: their pages are flagged and folded when a log
is loaded.
"""


@record(frozen=True, slots=True)
class Entry:
    """One change at one position.

    `ordinal` is the number of messages up to and including this entry; `time_ms` is the page's
    stamp; `id` is a UUID in lower-case text form, unique for (log, user_id). `erased` says that the
    content of the body is gone.
    """

    log: str
    seq: int
    ordinal: int
    id: str
    user_id: str
    time_ms: int
    body: Body
    erased: bool = False
