"""Events and answers as the SDK gives them, made by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tidings import (
    Conversation,
    ConversationCreated,
    ConversationKind,
    ConversationUpdated,
    Member,
    MemberRemoved,
    MemberRole,
    MembersAdded,
    Message,
    MessagePending,
    ScaleClass,
)
from tidings_chat.model import Chat, Model

ME = "me"
TALK = "0190c1d2-0000-7000-8000-00000000000a"
START = datetime(2026, 6, 3, 9, 30, tzinfo=UTC)


def at(minutes: float) -> datetime:
    """So many minutes after the start."""
    return START + timedelta(minutes=minutes)


def common(seq: int, user: str, minutes: float | None = None, talk: str = TALK) -> dict[str, Any]:
    """What all entries have."""
    return {
        "conversation_id": talk,
        "log": talk,
        "seq": seq,
        "ordinal": seq,
        "time": at(seq if minutes is None else minutes),
        "user_id": user,
        "entry_id": f"id-{seq}",
    }


def message(
    seq: int,
    text: str = "",
    user: str = "bob",
    *,
    minutes: float | None = None,
    reply_to: str | None = None,
    talk: str = TALK,
    message_id: str = "",
) -> Message:
    """A message."""
    entry = common(seq, user, minutes, talk)
    if message_id:
        entry["entry_id"] = message_id
    return Message(**entry, text=text or f"text {seq}", reply_to=reply_to, own=user == ME)


def created(*users: str, title: str = "Trip") -> ConversationCreated:
    """The first entry of a group."""
    members = tuple(Member(user, MemberRole.MEMBER, 1) for user in users)
    return ConversationCreated(
        **common(1, users[0]), kind=ConversationKind.GROUP, title=title, members=members
    )


def added(seq: int, *users: str, by: str = "bob") -> MembersAdded:
    """Users become members."""
    return MembersAdded(
        **common(seq, by), members=tuple(Member(user, MemberRole.MEMBER, seq) for user in users)
    )


def removed(seq: int, user: str, by: str = "bob") -> MemberRemoved:
    """A membership ends."""
    return MemberRemoved(**common(seq, by), removed_user_id=user)


def updated(seq: int, by: str = "bob", **changes: Any) -> ConversationUpdated:
    """Settings are changed."""
    return ConversationUpdated(**common(seq, by), **changes)


def pending(
    message_id: str, text: str = "out", *, minutes: float = 100, **more: Any
) -> MessagePending:
    """An own message in the outbox."""
    return MessagePending(
        conversation_id=TALK,
        message_id=message_id,
        text=text,
        reply_to=None,
        time=at(minutes),
        **more,
    )


def told(
    head: int = 0, unread: int = 0, read: int = 0, *, talk: str = TALK, **more: Any
) -> Conversation:
    """What the server says of a conversation; a direct one with bob unless told otherwise."""
    fields: dict[str, Any] = {
        "conversation_id": talk,
        "kind": ConversationKind.DIRECT,
        "title": "",
        "peer_user_id": "bob",
        "create_time": START,
        "update_time": at(head),
        "member_count": 2,
        "scale_class": ScaleClass.SMALL,
        "head_seq": head,
        "role": MemberRole.MEMBER,
        "join_seq": 1,
        "read_seq": read,
        "unread_count": unread,
    }
    return Conversation(**{**fields, **more})


def group(head: int = 0, **more: Any) -> Conversation:
    """What the server says of a group of three."""
    fields = {
        "kind": ConversationKind.GROUP,
        "peer_user_id": "",
        "title": "Trip",
        "member_count": 3,
    }
    return told(head, **{**fields, **more})


def loaded(model: Model, *entries: Any, at_top: bool = True, talk: str = TALK) -> Chat:
    """The conversation with its newest page loaded."""
    chat = model.chats[talk]
    assert model.load(chat, chat.timeline.begin(), entries, at_top=at_top)
    return chat
