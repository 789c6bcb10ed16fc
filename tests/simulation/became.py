"""What became of messages, by rules of its own: what a user may be told of one, and when it is too old."""

from __future__ import annotations

from google.protobuf.message import Message

from tidings.v1 import entry_pb2, message_pb2

from .truth import OPEN, Log
from .violation import Violation

CHANGES = ("message_edited",)
"""The kinds of entries that are about a message, each with its position as `seq`."""


def about(entry: entry_pb2.Entry) -> int:
    """The position of the message that an entry is about, or 0."""
    kind = entry.WhichOneof("body")
    return int(getattr(entry, kind).seq) if kind in CHANGES else 0


def asked_as(request: Message) -> bytes:
    """What identifies a change of a message that is asked for: the entry's body, but for its kind."""
    assert isinstance(request, message_pb2.EditMessageRequest)
    body = entry_pb2.MessageEdited(seq=request.seq, content=request.content)
    return b"message_edited" + body.SerializeToString()


def content_of(entry: entry_pb2.Entry) -> bytes:
    """What identifies the change that an entry is."""
    kind = entry.WhichOneof("body") or ""
    if kind == "message":
        return entry.message.SerializeToString()
    if kind in CHANGES:
        body: Message = getattr(entry, kind)
        return kind.encode() + body.SerializeToString()
    return kind.encode()


def decided(log: Log, entry: entry_pb2.Entry, where: str) -> None:
    """A change of a message was committed. Raises Violation when it should have been refused."""
    if entry.WhichOneof("body") not in CHANGES:
        return
    seq, user = about(entry), entry.user_id
    if not 1 <= seq <= log.head or log.entries[seq - 1].WhichOneof("body") != "message":
        raise Violation("decision", f"{where}: {seq} is no message")
    if not log.visible(user, seq):
        raise Violation("decision", f"{where}: {user} may not see {seq}")
    if entry.WhichOneof("body") == "message_edited" and log.entries[seq - 1].user_id != user:
        raise Violation("decision", f"{where}: {user} edits a message of another")


def state_at(log: Log, seq: int, end: int) -> message_pb2.MessageState | None:
    """What became of a message by the entries up to a position, or None for nothing."""
    state = message_pb2.MessageState(conversation_id=log.name, seq=seq)
    for entry in log.entries[:end]:
        if about(entry) != seq:
            continue
        state.as_of = entry.seq
        state.edit_seqs.append(entry.seq)
        state.edit_time.CopyFrom(entry.create_time)
        state.content.CopyFrom(entry.message_edited.content)
    return state if state.as_of else None


def told(log: Log, user: str, state: message_pb2.MessageState, who: str) -> None:
    """A user is told what became of a message. Raises Violation when that is not so, or not for them."""
    where = f"{log.name}:{state.seq} as of {state.as_of}"
    if not log.visible(user, state.seq):
        raise Violation("I9", f"{who} is told of {where}, and may not see it")
    stays = log.stays[user]
    if stays[-1].last != OPEN and state.as_of > stays[-1].last:
        raise Violation("I9", f"{who} is told of {where}, and is no member since {stays[-1].last}")
    if state.as_of > log.head:
        raise Violation("I4", f"{who} is told of {where}, the head is {log.head}")
    expected = state_at(log, state.seq, state.as_of) or message_pb2.MessageState(
        conversation_id=log.name, seq=state.seq
    )
    expected.as_of = state.as_of
    if state != expected:
        raise Violation("I4", f"{who} is told of {where} that {state}, it is {expected}")


def fresh(
    log: Log, user: str, seq: int, state: message_pb2.MessageState | None, known: int, who: str
) -> None:
    """A user has fetched a message. Raises Violation when a change that was known before is missing from it."""
    if not 1 <= seq <= log.head or log.entries[seq - 1].WhichOneof("body") != "message":
        return
    due = state_at(log, seq, min(known, log.stays[user][-1].last))
    if due is not None and (state is None or state.as_of < due.as_of):
        raise Violation(
            "I12", f"{who} fetches {log.name}:{seq} without what is known up to {due.as_of}"
        )
