"""One conversation as the list shows it: what it is called, what is new, what is unread."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from tidings import (
    Conversation,
    ConversationKind,
    Entry,
    MemberRole,
    Message,
    MessageChange,
    MessageFold,
    Presence,
    ScaleClass,
)

from .receipts import Marks, Progress
from .timeline import Outgoing, Timeline, as_it_is

_NEVER = datetime.fromtimestamp(0, UTC)


@dataclass(slots=True)
class Chat:
    """One conversation of the own user.

    Attributes:
        conversation_id: The conversation.
        kind: Direct or group.
        title: The title of a group.
        titled_seq: Where it was given, as far as that was seen.
        peer: In a direct conversation the other user.
        member_count: The number of members, the own user included.
        scale_class: How live it is.
        role: The own role.
        join_seq: The first position that the own user may read; 0 while it isn't known.
        head_seq: The newest known position.
        read_seq: How far the own user has read.
        active: When something last happened, in UTC.
        last: The newest known entry, or None.
        known: Whether the server has told about it.
        left: Whether the own user is no longer a member.
        stale: Whether the server is to be asked about it again.
        presence: What is known of the peer, or None.
        marks: How far the others have got and read.
        timeline: Its messages.
    """

    conversation_id: str
    kind: ConversationKind = ConversationKind.UNSPECIFIED
    title: str = ""
    titled_seq: int = 0
    peer: str = ""
    member_count: int = 0
    scale_class: ScaleClass = ScaleClass.UNSPECIFIED
    role: MemberRole = MemberRole.MEMBER
    join_seq: int = 0
    head_seq: int = 0
    read_seq: int = 0
    active: datetime = _NEVER
    last: Entry | None = None
    known: bool = False
    left: bool = False
    stale: bool = False
    presence: Presence | None = None
    marks: Marks = field(default_factory=Marks)
    timeline: Timeline = field(default_factory=Timeline)
    _unread_told: int = 0
    """Unread messages up to `_told_seq`, as the server counted them."""
    _told_seq: int = 0
    _unread_seen: list[int] = field(default_factory=list)
    """Positions of unread messages after `_told_seq`."""

    @property
    def name(self) -> str:
        """What it is called."""
        if self.kind is ConversationKind.DIRECT:
            return self.peer
        return self.title or ("New conversation" if not self.known else "Untitled group")

    @property
    def direct(self) -> bool:
        """Whether it is a conversation of two."""
        return self.kind is ConversationKind.DIRECT

    @property
    def unread(self) -> int:
        """The number of unread messages."""
        return self._unread_told + len(self._unread_seen)

    @property
    def last_outgoing(self) -> Outgoing | None:
        """The newest own message that doesn't stand in it yet, or None."""
        return next(reversed(self.timeline.outgoing.values()), None)

    @property
    def latest(self) -> datetime:
        """When something last happened, own messages on their way included."""
        own = self.last_outgoing
        return max(self.active, own.time) if own is not None else self.active

    def tell(self, conversation: Conversation) -> None:
        """Take what the server says of it, which may be older than what was seen since."""
        self.known = True
        self.stale = False
        self.kind = conversation.kind
        untold = conversation.role is MemberRole.UNSPECIFIED and not conversation.title
        if conversation.head_seq >= self.titled_seq and not untold:
            self.title = conversation.title
        self.peer = conversation.peer_user_id
        self.member_count = conversation.member_count
        self.scale_class = conversation.scale_class
        self.left = conversation.role is MemberRole.UNSPECIFIED
        self.role = conversation.role
        self.join_seq = conversation.join_seq
        self.active = max(self.active, conversation.update_time)
        self.head_seq = max(self.head_seq, conversation.head_seq)
        if conversation.head_seq >= self._told_seq:
            self._told_seq = conversation.head_seq
            self._unread_told = conversation.unread_count
        theirs, ours = conversation.read_seq, self.read_seq
        since = max(self._told_seq, theirs)
        self._unread_seen = [seq for seq in self._unread_seen if seq > since]
        # What was read here may not have come to the server yet.
        self.read_seq = theirs
        self.read_to(ours)
        if self.direct and self.marks.joined is None:
            self.marks.joined = {self.peer: 0}

    def see(self, entry: Entry) -> None:
        """Take an entry: from the stream, or the newest one from history."""
        self._see_last(entry)
        self.active = max(self.active, entry.time)
        if entry.seq <= self.head_seq:
            return
        self.head_seq = entry.seq
        # Another device may have read it before it came here.
        if isinstance(entry, Message) and entry.seq > self.read_seq:
            self._unread_seen.append(entry.seq)

    def _see_last(self, entry: Entry) -> None:
        """The list shows the newest, as it is now."""
        last = self.last
        if isinstance(entry, MessageChange):
            if last is None or last.seq != entry.message_seq:
                return
        elif last is not None and entry.seq <= last.seq:
            return
        else:
            last = entry
        fold = MessageFold()
        fold.take(last)
        fold.take(entry)
        held = fold.get(last.seq)
        self.last = last if held is None else as_it_is(held)

    def read_to(self, seq: int) -> None:
        """Everything up to a position was read, here or on another device."""
        if seq <= self.read_seq:
            return
        self.read_seq = seq
        self._unread_seen = [unread for unread in self._unread_seen if unread > seq]
        if seq >= self._told_seq:
            self._unread_told = 0
        elif self._unread_told:
            # Only the server can say how many of these are left.
            self.stale = True

    def forget(self, seq: int) -> None:
        """The server doesn't have what came after a position any more."""
        self.head_seq = min(self.head_seq, seq)
        self.read_seq = min(self.read_seq, seq)
        self._told_seq = min(self._told_seq, seq)
        self._unread_told = 0
        self._unread_seen = []
        self.last = None
        self.marks = Marks({self.peer: 0} if self.direct else None)
        self.timeline.drop()
        self.stale = True

    def progress(self, seq: int) -> Progress:
        """How far the own message at a position has come."""
        if self.scale_class is not ScaleClass.SMALL:
            return Progress.SENT
        return self.marks.progress(seq)
