"""What became of messages, by rules of its own: what a user may be told of one, and when it is too old."""

from __future__ import annotations

from collections import Counter

from google.protobuf.message import Message

from tidings.v1 import entry_pb2, message_pb2

from .rules import DELETE_OTHERS, MENTION_ALL, may
from .truth import OPEN, Log
from .violation import Violation

_DIRECT = 1

CHANGES = ("message_edited", "message_deleted", "reaction_set", "message_pinned")
"""The kinds of entries that are about a message, each with its position as `seq`."""
MAX_PINS = 50


def about(entry: entry_pb2.Entry) -> int:
    """The position of the message that an entry is about, or 0."""
    kind = entry.WhichOneof("body")
    return int(getattr(entry, kind).seq) if kind in CHANGES else 0


def asked_as(request: Message) -> bytes:
    """What identifies a change of a message that is asked for: the entry's body, but for its kind."""
    if isinstance(request, message_pb2.SetReactionRequest):
        set_ = entry_pb2.ReactionSet(seq=request.seq, reaction=request.reaction)
        return b"reaction_set" + set_.SerializeToString()
    if isinstance(request, message_pb2.SetPinRequest):
        pin = entry_pb2.MessagePinned(seq=request.seq, pinned=request.pinned)
        return b"message_pinned" + pin.SerializeToString()
    if isinstance(request, message_pb2.DeleteMessageRequest):
        return b"message_deleted" + entry_pb2.MessageDeleted(seq=request.seq).SerializeToString()
    assert isinstance(request, message_pb2.EditMessageRequest)
    body = entry_pb2.MessageEdited(seq=request.seq, content=request.content)
    return b"message_edited" + body.SerializeToString()


def content_of(entry: entry_pb2.Entry) -> bytes:
    """What identifies the change that an entry is."""
    kind = entry.WhichOneof("body") or ""
    if kind == "message":
        return entry.message.SerializeToString()
    if kind == "reaction_set":
        # What it replaced nobody asked for.
        asked = entry_pb2.ReactionSet(seq=entry.reaction_set.seq)
        asked.reaction = entry.reaction_set.reaction
        return kind.encode() + asked.SerializeToString()
    if kind == "member_banned" or entry.member_removed.HasField("ban_expire_time"):
        # What a ban is depends on whether they are a member by then.
        return b"ban"
    if kind in CHANGES:
        body: Message = getattr(entry, kind)
        return kind.encode() + body.SerializeToString()
    return kind.encode()


def decided(log: Log, entry: entry_pb2.Entry, where: str) -> None:
    """A change of a message was committed. Raises Violation when it should have been refused."""
    kind, user = entry.WhichOneof("body"), entry.user_id
    content = entry.message if kind == "message" else entry.message_edited.content
    if content.reply_to_message_id and not answerable(log, user, content, log.head):
        raise Violation("decision", f"{where}: {user} may not reply to what it replies to")
    everybody = any(mention.everybody for mention in content.mentions)
    if everybody and (log.kind == _DIRECT or not may(log, user, MENTION_ALL)):
        raise Violation("decision", f"{where}: {user} may not mention everybody")
    if kind not in CHANGES:
        return
    seq = about(entry)
    if not 1 <= seq <= log.head or log.entries[seq - 1].WhichOneof("body") != "message":
        raise Violation("decision", f"{where}: {seq} is no message")
    if not log.visible(user, seq):
        raise Violation("decision", f"{where}: {user} may not see {seq}")
    own = log.entries[seq - 1].user_id == user
    if kind == "reaction_set":
        if entry.reaction_set.replaced != reactions_at(log, seq, log.head).get(user, ""):
            raise Violation("decision", f"{where}: {user} had another reaction")
    elif kind == "message_pinned":
        pins, pinned = pins_at(log, log.head), entry.message_pinned.pinned
        if pinned == (seq in pins):
            raise Violation("decision", f"{where}: {seq} was pinned before, or was not: {pinned}")
        if pinned and len(pins) >= MAX_PINS:
            raise Violation("decision", f"{where}: {len(pins)} are pinned already")
    elif not own and (kind == "message_edited" or not may(log, user, DELETE_OTHERS)):
        raise Violation("decision", f"{where}: {kind} by {user}, of a message of another")
    before = state_at(log, seq, log.head)
    if before is not None and before.deleted:
        raise Violation("decision", f"{where}: {kind}, and {seq} was deleted before")


def answerable(log: Log, user: str, content: message_pb2.MessageContent, end: int) -> bool:
    """Whether a user may reply to what a message says that it replies to, by the entries up to a position."""
    return any(
        entry.WhichOneof("body") == "message"
        and entry.id == content.reply_to_message_id
        and log.visible(user, entry.seq)
        for entry in log.entries[:end]
    )


def unread_mentions(log: Log, user: str, after: int) -> int:
    """How many messages after a position mention a user by what they say now, those of the user's own excepted."""
    gone = erased(log, log.head)
    found = 0
    for entry in log.entries[after:]:
        if entry.WhichOneof("body") != "message" or entry.user_id == user or entry.seq in gone:
            continue
        edits = [
            e.message_edited.content
            for e in log.entries[entry.seq :]
            if e.WhichOneof("body") == "message_edited" and about(e) == entry.seq
        ]
        mentions = (edits[-1] if edits else entry.message).mentions
        found += any(mention.everybody or mention.user_id == user for mention in mentions)
    return found


def state_at(log: Log, seq: int, end: int, user: str = "") -> message_pb2.MessageState | None:
    """What became of a message, for a user, by the entries up to a position, or None for nothing."""
    state = message_pb2.MessageState(conversation_id=log.name, seq=seq)
    for entry in log.entries[:end]:
        if about(entry) != seq:
            continue
        state.as_of = entry.seq
        if entry.WhichOneof("body") == "message_deleted":
            state.deleted = True
            state.pin_seq = 0
            state.ClearField("content")
            continue
        if entry.WhichOneof("body") == "message_pinned":
            state.pin_seq = entry.seq if entry.message_pinned.pinned else 0
            continue
        if entry.WhichOneof("body") == "reaction_set":
            continue
        state.edit_seqs.append(entry.seq)
        state.edit_time.CopyFrom(entry.create_time)
        state.content.CopyFrom(entry.message_edited.content)
    users = {} if state.deleted else reactions_at(log, seq, end)
    counts = Counter(users.values())
    for reaction, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        state.reactions.add(reaction=reaction, count=count)
    state.own_reaction = users.get(user, "")
    return state if state.as_of else None


def reactions_at(log: Log, seq: int, end: int) -> dict[str, str]:
    """Who has reacted to a message by the entries up to a position."""
    found: dict[str, str] = {}
    for entry in log.entries[:end]:
        if entry.WhichOneof("body") == "reaction_set" and entry.reaction_set.seq == seq:
            found.pop(entry.user_id, None)
            if entry.reaction_set.reaction:
                found[entry.user_id] = entry.reaction_set.reaction
    return found


def pins_at(log: Log, end: int) -> list[int]:
    """What is pinned by the entries up to a position, what was pinned last at the end."""
    pins: list[int] = []
    for entry in log.entries[:end]:
        kind, seq = entry.WhichOneof("body"), about(entry)
        if kind in ("message_pinned", "message_deleted") and seq in pins:
            pins.remove(seq)
        if kind == "message_pinned" and entry.message_pinned.pinned:
            pins.append(seq)
    return pins


def listed_pins(log: Log, user: str, seqs: list[int], known: int, who: str) -> None:
    """A user has listed what is pinned. Raises Violation when it was not so at any time since what was known."""
    for end in range(known, log.head + 1):
        if seqs == [seq for seq in reversed(pins_at(log, end)) if log.visible(user, seq)]:
            return
    raise Violation("I12", f"{who} is told that {seqs} are pinned in {log.name} since {known}")


def erased(log: Log, end: int) -> dict[int, int]:
    """The positions whose content the entries up to a position have erased, each with that of the deletion."""
    found: dict[int, int] = {}
    for entry in log.entries[:end]:
        if entry.WhichOneof("body") == "message_deleted":
            seq = entry.message_deleted.seq
            edits = (
                e.seq
                for e in log.entries[: entry.seq]
                if e.WhichOneof("body") == "message_edited" and about(e) == seq
            )
            found.update(dict.fromkeys((seq, *edits), entry.seq))
    return found


def without_content(entry: entry_pb2.Entry) -> entry_pb2.Entry:
    """An entry as it is when it was erased."""
    left = entry_pb2.Entry()
    left.CopyFrom(entry)
    left.erased = True
    if left.WhichOneof("body") == "message":
        left.message.CopyFrom(message_pb2.MessageContent())
    else:
        left.message_edited.ClearField("content")
    return left


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
    expected = state_at(log, state.seq, state.as_of, user) or message_pb2.MessageState(
        conversation_id=log.name, seq=state.seq
    )
    expected.as_of = state.as_of
    if stays[-1].last != OPEN:
        # What others did when they left is not known any more, where something came later.
        expected, state = _of_the_sender(expected), _of_the_sender(state)
        if state.deleted and state.seq in erased(log, log.head):
            # What was erased later is gone for them as well.
            expected.deleted = True
            expected.ClearField("content")
    elif state.own_reaction in _own_since(log, state, user):
        expected.own_reaction = state.own_reaction
    if state != expected:
        raise Violation("I4", f"{who} is told of {where} that {state}, it is {expected}")


def _of_the_sender(state: message_pb2.MessageState) -> message_pb2.MessageState:
    """A state without reactions and pins."""
    left = message_pb2.MessageState()
    left.CopyFrom(state)
    left.ClearField("reactions")
    left.own_reaction = ""
    left.pin_seq = 0
    return left


def _own_since(log: Log, state: message_pb2.MessageState, user: str) -> set[str]:
    """The own reactions that a state may tell before their entries come."""
    later = log.entries[state.as_of :]
    own = (e for e in later if about(e) == state.seq and e.user_id == user)
    return {e.reaction_set.reaction for e in own if e.WhichOneof("body") == "reaction_set"}


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
