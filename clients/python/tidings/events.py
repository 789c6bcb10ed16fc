"""What a client is told: typed events, frozen, in the order in which they are to be applied."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from .errors import TidingsError
from .mentions import Mention
from .models import ConversationKind, Member, MemberRole, RightOverride

__all__ = [
    "ConnectionState",
    "ConnectionStatus",
    "ConversationCreated",
    "ConversationJoined",
    "ConversationLeft",
    "ConversationUpdated",
    "Entry",
    "Event",
    "Gap",
    "IncarnationChanged",
    "InvitationSet",
    "LogEntry",
    "MemberBanned",
    "MemberMuted",
    "MemberRemoved",
    "MemberRoleSet",
    "MembersAdded",
    "Message",
    "MessageChange",
    "MessageDeleted",
    "MessageEdited",
    "MessageFailed",
    "MessagePending",
    "MessagePinned",
    "MessageSent",
    "MessageState",
    "PositionLost",
    "ReactionSet",
    "ReceiptUpdate",
    "Skipped",
    "SyncComplete",
    "UnknownEntry",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One durable change at one position of a log.

    Attributes:
        conversation_id: The conversation that it is about.
        log: The log in which it stands: the conversation's id, or "inbox:" followed by the own user id.
        seq: Its position in the log: 1, 2, 3 and so on, without gaps.
        ordinal: The number of messages in the log up to and including it.
        time: When it was committed, in UTC, by the server's clock. It never goes back along a log.
        user_id: Who made the change.
        entry_id: The id that its sender gave it; the message id of messages.
    """

    conversation_id: str
    log: str
    seq: int
    ordinal: int
    time: datetime
    user_id: str
    entry_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageState:
    """What later entries made of a message. It stands in no log.

    It holds from the first entry up to `as_of`: entries about the message at or before that are in it, those behind it
    are still to be applied. `tidings.MessageFold` does all of that.

    Attributes:
        conversation_id: The conversation.
        seq: The position of the message.
        as_of: The position up to which it is folded.
        text: What the message says now; None when it was never edited, or is deleted.
        reply_to: The id of the message that it replies to now, or None.
        mentions: Who is mentioned now, where it was edited.
        edit_seqs: The positions of the entries that edited it, ascending.
        edit_time: When it was last edited, in UTC, or None.
        deleted: Whether it was deleted for all.
        reactions: How many users have reacted with what, the largest counts first.
        own_reaction: The own reaction, empty for none.
        pin_seq: The position of the entry that pinned it, 0 while it is not pinned.
    """

    conversation_id: str
    seq: int
    as_of: int
    text: str | None = None
    reply_to: str | None = None
    mentions: tuple[Mention, ...] = ()
    edit_seqs: tuple[int, ...] = ()
    edit_time: datetime | None = None
    deleted: bool = False
    reactions: tuple[tuple[str, int], ...] = ()
    own_reaction: str = ""
    pin_seq: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(LogEntry):
    """A message was posted.

    Attributes:
        text: The text, exactly as it was sent.
        reply_to: The id of the message that it replies to, or None.
        mentions: Who is mentioned, in the order of the text.
        own: Whether the own user sent it, from whichever device.
        state: What became of it, when it was fetched and something happened to it; otherwise None. On the stream it is
            None: what happens to the message follows.
        erased: Whether its content is gone, because it was deleted for all. The text is empty then.
    """

    text: str
    reply_to: str | None
    own: bool
    state: MessageState | None = None
    erased: bool = False
    mentions: tuple[Mention, ...] = ()

    @property
    def message_id(self) -> str:
        """The id that its sender gave it; for one's own, the id of the handle and of MessagePending."""
        return self.entry_id


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageEdited(LogEntry):
    """A message was edited by its sender.

    Attributes:
        message_seq: The position of the message. It may be one that was never seen here.
        text: What it says from here on.
        reply_to: The id of the message that it replies to from here on, or None.
        mentions: Who is mentioned from here on.
        erased: Whether its content is gone, because the message was deleted for all. The text is empty then.
    """

    message_seq: int
    text: str
    reply_to: str | None
    erased: bool = False
    mentions: tuple[Mention, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDeleted(LogEntry):
    """A message was deleted for all: what is kept of its content, and that of its edits, is to be dropped.

    Attributes:
        message_seq: The position of the message. It may be one that was never seen here.
    """

    message_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReactionSet(LogEntry):
    """A user has reacted to a message, or taken that back. A user has at most one reaction to each message.

    Attributes:
        message_seq: The position of the message. It may be one that was never seen here.
        reaction: The reaction, empty when it was taken back.
        replaced: The reaction of the same user before, empty for none.
        own: Whether the own user did it, from whichever device.
    """

    message_seq: int
    reaction: str
    replaced: str
    own: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagePinned(LogEntry):
    """A message was pinned, or is pinned no more.

    Attributes:
        message_seq: The position of the message. It may be one that was never seen here.
        pinned: Whether it is pinned from here on.
    """

    message_seq: int
    pinned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationCreated(LogEntry):
    """The conversation was created: the entry at position 1."""

    kind: ConversationKind
    title: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MembersAdded(LogEntry):
    """Users became members.

    Attributes:
        members: Those who did.
        with_history: Whether they may read what came before.
        invitation_id: The invitation by which the entry's user joined; empty when another added them.
    """

    members: tuple[Member, ...]
    with_history: bool = False
    invitation_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRemoved(LogEntry):
    """A membership ended. It is the last entry that the removed user gets.

    Attributes:
        removed_user_id: Whose membership.
        role: The role that they had; UNSPECIFIED where an old server does not tell it.
        ban_expire_time: Until when they are banned, in UTC, or None.
    """

    removed_user_id: str
    role: MemberRole = MemberRole.UNSPECIFIED
    ban_expire_time: datetime | None = None

    @property
    def left(self) -> bool:
        """Whether the user left, rather than being removed by another."""
        return self.removed_user_id == self.user_id


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberMuted(LogEntry):
    """A member may not post, edit and react until a time, in UTC; None: may again."""

    muted_user_id: str
    expire_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberBanned(LogEntry):
    """An ex-member can't be added until a time, in UTC; None: can be again. Of a member MemberRemoved tells it."""

    banned_user_id: str
    expire_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationSet(LogEntry):
    """An invitation was made, changed or taken back.

    Attributes:
        invitation_id: The SHA-256 of its code, in hexadecimal digits.
        uses: How many may still join by it; 0: it was taken back.
        expire_time: Until when, in UTC, or None when it was taken back.
    """

    invitation_id: str
    uses: int
    expire_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRoleSet(LogEntry):
    """Members have other roles: one or, where an ownership was transferred, two.

    Attributes:
        roles: The role of each of them from here on, by user id.
    """

    roles: Mapping[str, MemberRole]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationUpdated(LogEntry):
    """Settings of the conversation were changed. What is None was not.

    Attributes:
        title: The title.
        description: What it is for.
        picture: A URL, or the id of a medium.
        custom_data: Data of an integrator.
        frozen: Whether only few may post.
        rights: Rights that are otherwise than by default, all of them.
        history_for_newcomers: Whether those who are added from here on may read what came before.
    """

    title: str | None = None
    description: str | None = None
    picture: str | None = None
    custom_data: str | None = None
    frozen: bool | None = None
    rights: tuple[RightOverride, ...] | None = None
    history_for_newcomers: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationJoined(LogEntry):
    """The own user became a member of a conversation (an entry of the inbox).

    Attributes:
        kind: Direct or group.
        title: The title at the time of joining.
        join_seq: The position in the conversation from which on the user may read.
        role: The role given.
        peer_user_id: In direct conversations the other user, otherwise empty.
    """

    kind: ConversationKind
    title: str
    join_seq: int
    role: MemberRole
    peer_user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationLeft(LogEntry):
    """The own user is no longer a member of a conversation (an entry of the inbox).

    Attributes:
        last_seq: The last position in the conversation that the user may read.
    """

    last_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownEntry(LogEntry):
    """An entry of a kind newer than this SDK. It counts as a position.

    Attributes:
        raw: The entry as a serialised tidings.v1.Entry.
    """

    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Positions of a log that are not sent because too many were missed.

    They can be listed at any time: `client.missed(gap)`. Once the gap is applied they aren't offered again.

    Attributes:
        conversation_id: The log: a conversation, or "inbox:" followed by the own user id.
        from_seq: The first position left out.
        to_seq: The last position left out.
        stale_from_seq: What is held of messages from here up to `to_seq` is out of date: what became of them may be in
            the gap. It is at most `from_seq`, or 0 when it is the same.
    """

    conversation_id: str
    from_seq: int
    to_seq: int
    stale_from_seq: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Positions of a log that the user may not see, such as those between a removal and a return.

    It comes only where something became of earlier messages meanwhile, behind the MessageState of each: once it is
    applied they aren't offered again. There is nothing else to do.

    Attributes:
        conversation_id: The conversation.
        from_seq: The first position passed over.
        to_seq: The last position passed over.
    """

    conversation_id: str
    from_seq: int
    to_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IncarnationChanged:
    """The server's store was restored from a backup.

    Its newest entries may be lost, and their positions given to others. Of each log, what is kept beyond the position
    named here is to be dropped; what holds comes again after this event.

    Attributes:
        incarnation: The new incarnation.
        positions: The newest position of each log that still holds; nothing holds of logs that aren't named.
    """

    incarnation: str
    positions: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionLost:
    """The server has less of a log than was applied here, or nothing, without a restore.

    What is kept of the log beyond the position named here is to be dropped.

    Attributes:
        conversation_id: The log: a conversation, or "inbox:" followed by the own user id.
        seq: The newest position that still holds; 0 when the log is none of the user's.
    """

    conversation_id: str
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncComplete:
    """Everything up to the heads at the time of connecting was sent.

    Attributes:
        conversations: The number of logs of the session, the inbox included.
    """

    conversations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptUpdate:
    """A member of a small conversation has got or read messages. The marks only grow.

    Attributes:
        conversation_id: The conversation.
        user_id: The member.
        delivered_seq: The newest position delivered to a device of the member.
        read_seq: The newest position read by the member.
    """

    conversation_id: str
    user_id: str
    delivered_seq: int
    read_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagePending:
    """An own message is in the outbox, for local echo.

    Attributes:
        conversation_id: The conversation.
        message_id: The id of the message, the same as in the Message that follows.
        text: The text.
        reply_to: The id of the message that it replies to, or None.
        time: When it was queued, in UTC, by the server's clock as far as that is known.
        restored: Whether it was queued by an earlier process.
        replaces: The id that the message had before, or None. An id made by a clock that was far ahead is made anew,
            once, before the message is first sent.
    """

    conversation_id: str
    message_id: str
    text: str
    reply_to: str | None
    time: datetime
    restored: bool = False
    replaces: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSent:
    """An own message is durable at the server and has its position for ever.

    Attributes:
        conversation_id: The conversation.
        message_id: The id of the message.
        seq: Its position.
        time: When it was committed, in UTC.
    """

    conversation_id: str
    message_id: str
    seq: int
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFailed:
    """An own message was refused for good and is not tried again.

    Attributes:
        conversation_id: The conversation.
        message_id: The id of the message.
        text: The text.
        reply_to: The id of the message that it replies to, or None.
        error: Why it was refused.
    """

    conversation_id: str
    message_id: str
    text: str
    reply_to: str | None
    error: TidingsError


class ConnectionStatus(enum.StrEnum):
    """How the client stands to the server."""

    CONNECTING = "connecting"
    SYNCING = "syncing"
    ONLINE = "online"
    OFFLINE = "offline"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionState:
    """How the client stands to the server.

    Attributes:
        status: connecting, syncing (the session is open and missed entries come), online, offline (it will be tried
            again), ended (it will not).
        retry_in: While offline, seconds until the next try, counted from this event; otherwise None.
        error: Why the client is offline or ended, or None.
    """

    status: ConnectionStatus
    retry_in: float | None = None
    error: TidingsError | None = None


MessageChange: TypeAlias = MessageEdited | MessageDeleted | ReactionSet | MessagePinned
"""What happens to a message: an entry that names the message as `message_seq`."""

Entry: TypeAlias = (
    Message
    | MessageChange
    | ConversationCreated
    | MembersAdded
    | MemberRemoved
    | MemberRoleSet
    | MemberMuted
    | MemberBanned
    | InvitationSet
    | ConversationUpdated
    | ConversationJoined
    | ConversationLeft
    | UnknownEntry
)
"""What stands in a log, and so in history."""

Event: TypeAlias = (
    Entry
    | MessageState
    | Gap
    | Skipped
    | IncarnationChanged
    | PositionLost
    | SyncComplete
    | ReceiptUpdate
    | MessagePending
    | MessageSent
    | MessageFailed
    | ConnectionState
)
"""What `Client.events()` yields."""
