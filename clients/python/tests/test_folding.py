"""The messages of a conversation, folded from the stream and from history in any mixture."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tidings import (
    Gap,
    Message,
    MessageChange,
    MessageDeleted,
    MessageEdited,
    MessageFold,
    MessageState,
)

START = datetime(2025, 6, 1, tzinfo=UTC)


def message(seq: int, text: str = "", state: MessageState | None = None) -> Message:
    return Message(
        conversation_id="c",
        log="c",
        seq=seq,
        ordinal=seq,
        time=START + timedelta(seconds=seq),
        user_id="bob",
        entry_id=f"m{seq}",
        text=text or f"text {seq}",
        reply_to=None,
        own=False,
        state=state,
    )


def edited(seq: int, about: int, text: str) -> MessageEdited:
    return MessageEdited(
        conversation_id="c",
        log="c",
        seq=seq,
        ordinal=seq,
        time=START + timedelta(seconds=seq),
        user_id="bob",
        entry_id=f"e{seq}",
        message_seq=about,
        text=text,
        reply_to=None,
    )


def deleted(seq: int, about: int) -> MessageDeleted:
    return MessageDeleted(
        conversation_id="c",
        log="c",
        seq=seq,
        ordinal=seq,
        time=START + timedelta(seconds=seq),
        user_id="bob",
        entry_id=f"d{seq}",
        message_seq=about,
    )


class Server:
    """A conversation as the server has it: every entry, and the state of each message at a head."""

    def __init__(self, rng: random.Random, length: int) -> None:
        self.entries: list[Message | MessageChange] = []
        gone = set()
        for seq in range(1, length + 1):
            there = [e.seq for e in self.entries if isinstance(e, Message) and e.seq not in gone]
            if there and rng.random() < 0.1:
                gone.add(about := rng.choice(there))
                self.entries.append(deleted(seq, about))
            elif there and rng.random() < 0.6:
                self.entries.append(edited(seq, rng.choice(there), f"edit {seq}"))
            else:
                self.entries.append(message(seq))

    def fetched(self, seq: int, head: int) -> Message:
        """A message as it is fetched when the log ends at a head."""
        posted = self.entries[seq - 1]
        assert isinstance(posted, Message)
        changes = [e for e in self.entries[:head] if not isinstance(e, Message)]
        changes = [e for e in changes if e.message_seq == seq]
        edits = [e for e in changes if isinstance(e, MessageEdited)]
        if not changes:
            return posted
        gone = isinstance(changes[-1], MessageDeleted)
        state = MessageState(
            conversation_id="c",
            seq=seq,
            as_of=changes[-1].seq,
            text=edits[-1].text if edits and not gone else None,
            edit_seqs=tuple(e.seq for e in edits),
            edit_time=edits[-1].time if edits else None,
            deleted=gone,
        )
        return replace(posted, state=state, erased=gone, text="" if gone else posted.text)


@pytest.mark.parametrize("seed", range(200))
def test_whatever_is_fetched_in_between_the_end_is_the_same(seed: int) -> None:
    rng = random.Random(seed)
    server = Server(rng, rng.randint(1, 40))
    head = len(server.entries)
    # What a device that was there from the beginning has.
    fold = MessageFold()
    for entry in server.entries:
        fold.take(entry)
    whole = list(fold)
    # A device that comes later, and fetches what came before, now and then, from a server that is further.
    fold = MessageFold()
    start = rng.randint(0, head)
    for at in range(start, head):
        fold.take(server.entries[at])
        for _ in range(rng.randint(0, 2)):
            seen = rng.randint(at + 1, head)
            old = [e.seq for e in server.entries[:seen] if isinstance(e, Message)]
            if old:
                fold.take(server.fetched(rng.choice(old), seen))
    for posted in server.entries:
        if isinstance(posted, Message):
            fold.take(server.fetched(posted.seq, head))
    assert list(fold) == whole
    for held in whole:
        fetched = server.fetched(held.message.seq, head)
        now = fetched.state.text if fetched.state else None
        assert held.text == (fetched.text if now is None else now)
        assert held.deleted == fetched.erased


def test_what_looks_otherwise_is_told() -> None:
    fold = MessageFold()
    assert fold.take(message(3, "a")) == 3
    assert fold.take(message(3, "a")) is None
    assert fold.take(edited(4, 3, "b")) == 3
    assert fold.take(edited(4, 3, "b")) is None
    assert fold.take(edited(5, 2, "x")) is None
    held = fold.get(3)
    assert held is not None
    assert (held.text, held.edited, held.state.edit_seqs) == ("b", True, (4,))
    assert fold.get(2) is None
    assert fold.take(message(2)) == 2
    assert [m.text for m in fold] == ["x", "b"]
    newer = MessageState(conversation_id="c", seq=3, as_of=9, text="c", edit_seqs=(4, 9))
    assert fold.take(newer) == 3
    assert fold.take(edited(9, 3, "c")) is None
    assert fold.take(MessageState(conversation_id="c", seq=7, as_of=9, text="no")) is None
    assert len(fold) == 2


def test_what_lies_in_a_gap_is_not_held_any_more() -> None:
    fold = MessageFold()
    for seq in range(1, 7):
        fold.take(message(seq))
    fold.take(Gap(conversation_id="c", from_seq=3, to_seq=5))
    assert [m.message.seq for m in fold] == [1, 2, 6]
    fold.take(Gap(conversation_id="c", from_seq=7, to_seq=9, stale_from_seq=2))
    assert [m.message.seq for m in fold] == [1]


def test_what_was_made_beyond_a_position_is_dropped() -> None:
    fold = MessageFold()
    for entry in (message(1), message(2), edited(3, 1, "x"), message(4), edited(5, 2, "y")):
        fold.take(entry)
    fold.take(edited(6, 99, "z"))
    fold.drop(3)
    assert [m.message.seq for m in fold] == [1]
    assert fold.take(message(99)) == 99
    assert [m.text for m in fold] == ["x", "text 99"]
