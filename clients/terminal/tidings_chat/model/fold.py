"""The fold: events and answers of the SDK in, conversations out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from tidings import (
    ConnectionState,
    ConnectionStatus,
    Conversation,
    ConversationJoined,
    ConversationLeft,
    ConversationUpdated,
    Entry,
    Event,
    Gap,
    IncarnationChanged,
    MemberRemoved,
    MemberRoleSet,
    MembersAdded,
    Message,
    MessageFailed,
    MessagePending,
    MessageSent,
    MessageState,
    PositionLost,
    Presence,
    ReceiptUpdate,
)
from tidings.events import LogEntry

from .chat import Chat
from .timeline import Outgoing

_UP: Final = (ConnectionStatus.SYNCING, ConnectionStatus.ONLINE)


@dataclass(slots=True)
class Changes:
    """What has changed since it was last taken.

    Attributes:
        chats: The conversations that look different, in the list or inside.
        order: Whether the list has other conversations, or may have another order.
        connection: Whether the connection, or the number of queued messages, has changed.
    """

    chats: set[str] = field(default_factory=set)
    order: bool = False
    connection: bool = False

    def __bool__(self) -> bool:
        return bool(self.chats) or self.order or self.connection


class Model:
    """All conversations of the own user.

    Attributes:
        me: The own user, empty until it is known.
        chats: The conversations, by id.
        connection: How the client stands to the server.
        changes: What has changed since `take_changes`.
    """

    def __init__(self, me: str = "") -> None:
        self.me = me
        self.chats: dict[str, Chat] = {}
        self.connection = ConnectionState(status=ConnectionStatus.CONNECTING)
        self.changes = Changes()

    # What is to be shown

    def take_changes(self) -> Changes:
        """What has changed since the last time."""
        changes, self.changes = self.changes, Changes()
        return changes

    def listed(self, search: str = "") -> list[Chat]:
        """The conversations, the latest active first; with a search those whose name has every word of it."""
        words = search.casefold().split()
        chats = [
            chat
            for chat in self.chats.values()
            if (chat.known or chat.timeline.outgoing)
            and all(word in chat.name.casefold() for word in words)
        ]
        chats.sort(key=lambda chat: (chat.latest, chat.conversation_id), reverse=True)
        return chats

    @property
    def up(self) -> bool:
        """Whether the server can be asked now."""
        return self.connection.status in _UP

    @property
    def unread(self) -> int:
        """The number of unread messages in all conversations."""
        return sum(chat.unread for chat in self.chats.values())

    @property
    def queued(self) -> int:
        """The number of own messages that wait to be sent."""
        return sum(
            own.error is None and not own.seq
            for chat in self.chats.values()
            for own in chat.timeline.outgoing.values()
        )

    def stale(self) -> list[Chat]:
        """The conversations about which the server is to be asked again."""
        return [chat for chat in self.chats.values() if chat.stale]

    # Answers

    def tell(self, conversation: Conversation) -> Chat:
        """Take what the server says of a conversation."""
        chat = self._chat(conversation.conversation_id)
        chat.tell(conversation)
        self._changed(chat, order=True)
        return chat

    def preview(self, conversation_id: str, newest: Iterable[Entry]) -> None:
        """Take the newest entries of a conversation, for the list: the newest message counts, if there is one."""
        entries = sorted(newest, key=lambda entry: entry.seq, reverse=True)
        message = next((entry for entry in entries if isinstance(entry, Message)), None)
        shown = message or next(iter(entries), None)
        chat = self.chats.get(conversation_id)
        if shown is None or chat is None:
            return
        if chat.last is None or chat.last.seq <= shown.seq:
            chat.last = shown
        self._changed(chat)

    def load(self, chat: Chat, generation: int, page: Iterable[Entry], *, at_top: bool) -> bool:
        """Take a page of a conversation's history; returns whether it was still wanted."""
        page = list(page)
        wanted = chat.timeline.load(generation, page, at_top=at_top)
        if wanted:
            self.preview(chat.conversation_id, page)
            self._changed(chat)
        return wanted

    def set_presence(self, presences: Mapping[str, Presence]) -> None:
        """Take what is known of some users."""
        for chat in self.chats.values():
            presence = presences.get(chat.peer) if chat.peer else None
            if presence is not None and presence != chat.presence:
                chat.presence = presence
                self._changed(chat)

    def read(self, chat: Chat, seq: int) -> None:
        """The own user has read everything up to a position."""
        if seq > chat.read_seq:
            chat.read_to(seq)
            self._changed(chat)

    def touch(self, chat: Chat) -> None:
        """A part of a conversation was changed from outside."""
        self._changed(chat)

    # Events

    def fold(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, LogEntry):
            self._entry(event)
        elif isinstance(event, ReceiptUpdate):
            self._receipt(event)
        elif isinstance(event, ConnectionState):
            self._connection(event)
        elif isinstance(event, MessagePending | MessageSent | MessageFailed):
            self._own(event)
        elif isinstance(event, MessageState):
            chat = self._chat(event.conversation_id)
            chat.timeline.become(event)
            self._changed(chat)
        elif isinstance(event, Gap):
            self._gap(event.conversation_id, event.to_seq)
        elif isinstance(event, PositionLost):
            self._lost(event)
        elif isinstance(event, IncarnationChanged):
            for chat in self.chats.values():
                chat.forget(event.positions.get(chat.conversation_id, 0))
                self._changed(chat, order=True)

    def _connection(self, state: ConnectionState) -> None:
        self.connection = state
        self.changes.connection = True
        if not self.up:
            # Nobody tells any more who comes and goes.
            for chat in self.chats.values():
                if chat.presence is not None:
                    chat.presence = None
                    self._changed(chat)

    def _entry(self, entry: Entry) -> None:
        if isinstance(entry, ConversationJoined):
            self._joined(entry)
            return
        if isinstance(entry, ConversationLeft):
            chat = self.chats.get(entry.conversation_id)
            if chat is not None and entry.last_seq >= chat.head_seq:
                chat.left = True
                self._changed(chat)
            return
        if entry.log != entry.conversation_id or entry.log.startswith("inbox:"):
            return
        chat = self._chat(entry.conversation_id)
        new = entry.seq > chat.head_seq
        chat.see(entry)
        chat.timeline.add(entry)
        if new and isinstance(entry, MembersAdded):
            for member in entry.members:
                chat.marks.join(member.user_id, member.join_seq or entry.seq)
            chat.member_count += len(entry.members)
            if any(member.user_id == self.me for member in entry.members):
                chat.stale = True
        elif new and isinstance(entry, MemberRemoved):
            chat.marks.leave(entry.removed_user_id)
            chat.member_count = max(0, chat.member_count - 1)
            chat.left = chat.left or entry.removed_user_id == self.me
        elif new and isinstance(entry, MemberRoleSet):
            chat.role = entry.roles.get(self.me, chat.role)
        elif new and isinstance(entry, ConversationUpdated) and entry.title is not None:
            chat.title, chat.titled_seq = entry.title, entry.seq
        self._changed(chat, order=True)

    def _joined(self, entry: ConversationJoined) -> None:
        chat = self._chat(entry.conversation_id)
        if not chat.known:
            chat.kind = entry.kind
            chat.title = entry.title
            chat.peer = entry.peer_user_id
            chat.active = max(chat.active, entry.time)
        chat.stale = True
        self._changed(chat, order=True)

    def _receipt(self, update: ReceiptUpdate) -> None:
        chat = self.chats.get(update.conversation_id)
        if chat is None:
            return
        if update.user_id == self.me:
            chat.read_to(update.read_seq)
        else:
            chat.marks.move(update.user_id, update.delivered_seq, update.read_seq)
        self._changed(chat)

    def _own(self, event: MessagePending | MessageSent | MessageFailed) -> None:
        chat = self._chat(event.conversation_id)
        timeline = chat.timeline
        if isinstance(event, MessagePending):
            timeline.queue(
                Outgoing(event.message_id, event.text, event.reply_to, event.time),
                replaces=event.replaces,
            )
        elif isinstance(event, MessageSent):
            timeline.sent(event.message_id, event.seq, event.time)
            chat.active = max(chat.active, event.time)
        else:
            if event.message_id not in timeline.outgoing:
                # It failed in an earlier process: when it was queued is in its id.
                time = _time_of(event.message_id) or chat.active
                timeline.queue(Outgoing(event.message_id, event.text, event.reply_to, time))
            timeline.failed(event.message_id, event.error)
        self.changes.connection = True
        self._changed(chat, order=True)

    def _gap(self, log: str, to_seq: int) -> None:
        if log.startswith("inbox:"):
            # Memberships may have changed unseen.
            for chat in self.chats.values():
                chat.stale = True
            return
        chat = self._chat(log)
        chat.timeline.gap(to_seq)
        chat.stale = True
        self._changed(chat, order=True)

    def _lost(self, event: PositionLost) -> None:
        chat = self.chats.get(event.conversation_id)
        if chat is not None:
            chat.forget(event.seq)
            self._changed(chat, order=True)

    def _chat(self, conversation_id: str) -> Chat:
        chat = self.chats.get(conversation_id)
        if chat is None:
            chat = self.chats[conversation_id] = Chat(conversation_id, stale=True)
            self.changes.order = True
        return chat

    def _changed(self, chat: Chat, *, order: bool = False) -> None:
        self.changes.chats.add(chat.conversation_id)
        self.changes.order = self.changes.order or order


def _time_of(message_id: str) -> datetime | None:
    """The time in a UUIDv7."""
    try:
        return datetime.fromtimestamp((UUID(message_id).int >> 80) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
