"""Entries as bytes: each is encoded once, as one `events` element of a `ChatResponse`, for the
store and the wire alike.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from tidings.v1 import chat_service_pb2, entry_pb2

from ..core.entries import (
    Body,
    ConversationJoined,
    ConversationKind,
    ConversationLeft,
    Entry,
    MessageDeleted,
    MessageEdited,
    MessagePinned,
    MessagePosted,
    ReactionSet,
    Role,
    UnknownBody,
)
from .conversation_changes import decode_change, encode_change
from .fields import to_ms
from .wire import element, text, timestamp, varint


class EntryEncoder:
    """Encodes the entries of one page. What they share, the log and the time, is encoded once."""

    __slots__ = ("_log", "_time")

    def __init__(self, log: str, time_ms: int) -> None:
        self._log = text(0x0A, log)
        self._time = element(0x32, timestamp(time_ms))

    def encode(self, seq: int, ordinal: int, change_id: str, user_id: str, body: Body) -> bytes:
        """One entry. `change_id` is a UUID in text form."""
        tail = (
            element(0x42, body.content)
            if isinstance(body, MessagePosted)
            else _encode_body(seq, body)
        )
        raw_user = user_id.encode()
        entry = b"".join(
            (
                self._log,
                b"\x10",
                varint(seq),
                b"\x18" + varint(ordinal) if ordinal else b"",
                b"\x22\x24",
                change_id.encode(),
                b"\x2a",
                varint(len(raw_user)),
                raw_user,
                self._time,
                tail,
            )
        )
        return element(0x0A, b"\x0a" + varint(len(entry)) + entry)


def proposed_entry(log: str, change_id: str, user_id: str, body: Body) -> bytes:
    """An `Entry` that has no position and no time yet, as nodes send it to each other."""
    return b"".join(
        (
            text(0x0A, log),
            text(0x22, change_id),
            text(0x2A, user_id),
            element(0x42, body.content)
            if isinstance(body, MessagePosted)
            else _encode_body(0, body),
        )
    )


def decode_entries(body: bytes) -> list[Entry]:
    """The entries of a page, or of a part of one.

    Raises ValueError when the bytes are no such thing.
    """
    try:
        events = chat_service_pb2.ChatResponse.FromString(body).events
    except DecodeError as problem:
        raise ValueError("not the bytes of entries") from problem
    return [decode_entry(e.entry) for e in events]


def _encode_body(seq: int, body: Body) -> bytes:
    entry = entry_pb2.Entry()
    match body:
        case MessageEdited(about, content):
            entry.message_edited.seq = about
            entry.message_edited.content.ParseFromString(content)
        case MessageDeleted(about):
            entry.message_deleted.seq = about
        case ReactionSet(about, reaction, replaced):
            entry.reaction_set.seq = about
            entry.reaction_set.reaction = reaction
            entry.reaction_set.replaced = replaced
        case MessagePinned(about, pinned):
            entry.message_pinned.seq = about
            entry.message_pinned.pinned = pinned
        case ConversationJoined():
            joined = entry.conversation_joined
            joined.conversation_id = body.conversation_id
            joined.kind = body.kind.value  # type: ignore[assignment]
            joined.title = body.title
            joined.seq = body.seq
            joined.role = body.role.value  # type: ignore[assignment]
            joined.peer_user_id = body.peer_user_id
        case ConversationLeft(conversation_id, seq):
            entry.conversation_left.conversation_id = conversation_id
            entry.conversation_left.seq = seq
        case _:
            encode_change(entry, seq, body)
    return entry.SerializeToString()


def decode_entry(entry: entry_pb2.Entry) -> Entry:
    """An entry that was parsed."""
    return Entry(
        entry.conversation_id,
        entry.seq,
        entry.ordinal,
        entry.id,
        entry.user_id,
        to_ms(entry.create_time),
        _decode_body(entry),
        entry.erased,
    )


def _decode_body(entry: entry_pb2.Entry) -> Body:
    try:
        return _decode_known(entry)
    except ValueError:
        # A role, a setting or a kind of conversation that only a newer version knows.
        return UnknownBody()


def _decode_known(entry: entry_pb2.Entry) -> Body:
    match entry.WhichOneof("body"):
        case "message":
            return MessagePosted(entry.message.SerializeToString())
        case "message_edited":
            edited = entry.message_edited
            return MessageEdited(edited.seq, edited.content.SerializeToString())
        case "message_deleted":
            return MessageDeleted(entry.message_deleted.seq)
        case "reaction_set":
            set_ = entry.reaction_set
            return ReactionSet(set_.seq, set_.reaction, set_.replaced)
        case "message_pinned":
            return MessagePinned(entry.message_pinned.seq, entry.message_pinned.pinned)
        case "conversation_joined":
            j = entry.conversation_joined
            return ConversationJoined(
                j.conversation_id,
                ConversationKind(j.kind),
                j.title,
                j.seq,
                Role(j.role),
                j.peer_user_id,
            )
        case "conversation_left":
            left = entry.conversation_left
            return ConversationLeft(left.conversation_id, left.seq)
    return decode_change(entry)
