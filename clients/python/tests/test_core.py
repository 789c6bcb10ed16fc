"""The core, event by event."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tidings import (
    ClientConfig,
    Event,
    Gap,
    IncarnationChanged,
    LogEntry,
    Message,
    MessageSent,
    MessageState,
    PositionLost,
    Skipped,
    StateError,
    StoredCursor,
    StoredSession,
    StoredState,
)
from tidings._actions import Action, End, GoAway, Reconnect, RefreshToken
from tidings._core import SessionCore
from tidings._logs import digest_of
from tidings.v1 import chat_service_pb2, entry_pb2, event_pb2, message_pb2

from .model import error

SESSION = StoredSession("alice", "phone", "one")


class Device:
    """A core, and a server that says what the test tells it to."""

    def __init__(self, *cursors: StoredCursor, session: StoredSession = SESSION) -> None:
        self.time = 0.0
        self.core = SessionCore(
            StoredState(session, cursors), ClientConfig(window=8), lambda: 10**12, random.Random(1)
        )

    def connect(self) -> chat_service_pb2.Hello:
        self.core.connected()
        (frame,) = self.frames()
        (command,) = frame.commands
        assert command.command_id == 1
        return command.hello

    def frames(self) -> list[chat_service_pb2.ChatRequest]:
        found = []
        while (frame := self.core.next_frame(self.time)) is not None:
            found.append(chat_service_pb2.ChatRequest.FromString(frame))
        return found

    def acks(self) -> dict[str, int]:
        return {ack.conversation_id: ack.seq for frame in self.frames() for ack in frame.acks}

    def get(self, *events: event_pb2.Event) -> list[Action]:
        frame = chat_service_pb2.ChatResponse(events=events).SerializeToString()
        return self.core.receive(frame, self.time)

    def greet(
        self, incarnation: str = "one", refused: Mapping[str, int] = MappingProxyType({})
    ) -> list[Action]:
        welcome = event_pb2.Welcome(
            user_id="alice",
            device_id="phone",
            incarnation=incarnation,
            incarnation_changed=incarnation != self.core.session.incarnation,
            server_time=Timestamp(seconds=10**9),
        )
        taken = event_pb2.HelloResult(
            refused_cursors=[
                event_pb2.CursorRefusal(conversation_id=name, seq=seq)
                for name, seq in refused.items()
            ]
        )
        result = event_pb2.CommandResult(command_id=1, hello=taken)
        return self.get(event_pb2.Event(welcome=welcome), event_pb2.Event(result=result))

    def open(self) -> None:
        self.connect()
        assert self.greet() == []

    def take(self) -> list[Event]:
        found = []
        while (event := self.core.next_event()) is not None:
            found.append(event)
        return found

    def apply(self) -> list[Event]:
        events = self.take()
        for event in events:
            self.core.apply(event)
        return events

    def save(self) -> Any:
        unsaved = self.core.take_unsaved()
        self.core.saved(unsaved)
        return unsaved


def entry(log: str, seq: int, user: str = "bob", **body: Any) -> event_pb2.Event:
    body = body or {"message": message_pb2.MessageContent(text=f"{log}{seq}")}
    return event_pb2.Event(
        entry=entry_pb2.Entry(conversation_id=log, seq=seq, user_id=user, id=f"{log}-{seq}", **body)
    )


def entries(log: str, first: int, last: int) -> list[event_pb2.Event]:
    return [entry(log, seq) for seq in range(first, last + 1)]


def skipped(log: str, first: int, last: int) -> event_pb2.Event:
    positions = event_pb2.Skipped(conversation_id=log, from_seq=first, to_seq=last)
    return event_pb2.Event(skipped=positions)


def state(log: str, seq: int, as_of: int) -> event_pb2.Event:
    became = message_pb2.MessageState(conversation_id=log, seq=seq, as_of=as_of)
    return event_pb2.Event(message_state=became)


def gap(log: str, first: int, last: int) -> event_pb2.Event:
    positions = event_pb2.Gap(conversation_id=log, from_seq=first, to_seq=last)
    return event_pb2.Event(gap=positions)


def seqs(events: list[Event]) -> list[int]:
    return [event.seq for event in events if isinstance(event, LogEntry)]


# Hello


def test_hello_names_what_is_saved() -> None:
    device = Device(StoredCursor("a", 5), StoredCursor("inbox:alice", 2))
    hello = device.connect()
    assert {cursor.conversation_id: cursor.seq for cursor in hello.cursors} == {
        "a": 5,
        "inbox:alice": 2,
    }
    assert (hello.incarnation, hello.window, hello.catch_up_limit) == ("one", 8, 10_000)
    device.greet()
    device.get(*entries("a", 6, 9))
    device.apply()
    hello = device.connect()
    assert {cursor.seq for cursor in hello.cursors} == {5, 2}
    device.save()
    hello = device.connect()
    assert {cursor.seq for cursor in hello.cursors} == {9, 2}


def test_hello_names_ten_thousand_logs_at_most_and_the_inbox_among_them() -> None:
    cursors = [StoredCursor(f"c{n}", 1) for n in range(10_500)]
    device = Device(*cursors, StoredCursor("inbox:alice", 7))
    hello = device.connect()
    assert len(hello.cursors) == 10_000
    assert len(hello.SerializeToString()) < 1 << 20
    assert hello.cursors[0].conversation_id == "inbox:alice"
    device.greet()
    # A log that wasn't named and then had something missing comes first the next time.
    (action,) = device.get(entry("c10499", 3))
    assert isinstance(action, Reconnect)
    assert device.connect().cursors[0].conversation_id == "c10499"


def test_nothing_but_hello_is_sent_before_welcome() -> None:
    device = Device()
    device.core.sends.stored(device.core.sends.enqueue("a", b"", 0.0), 0.0)
    device.connect()
    assert device.frames() == []


@pytest.mark.parametrize(
    "event", [entry("a", 1), gap("a", 1, 2), skipped("a", 1, 2), state("a", 1, 2)]
)
def test_entries_before_the_result_of_hello_are_not_taken(event: event_pb2.Event) -> None:
    device = Device()
    device.connect()
    (action,) = device.get(event)
    assert isinstance(action, Reconnect)


def test_a_hello_refused_for_good_is_the_end() -> None:
    for problem, kind in (
        (error(3, "INVALID_FIELD"), End),
        (error(16, "TOKEN_INVALID"), End),
        (error(14, "STORE_UNAVAILABLE"), Reconnect),
        (error(8, "TOO_LARGE"), Reconnect),
    ):
        device = Device()
        device.connect()
        result = event_pb2.CommandResult(command_id=1, error=problem)
        (action,) = device.get(event_pb2.Event(result=result))
        assert isinstance(action, kind)


# Positions


def test_old_positions_are_dropped_and_missing_ones_noticed() -> None:
    device = Device(StoredCursor("a", 5))
    device.open()
    assert device.get(*entries("a", 4, 7), *entries("a", 6, 7)) == []
    assert seqs(device.take()) == [6, 7]
    (action,) = device.get(entry("a", 8), entry("a", 10), entry("a", 11))
    assert isinstance(action, Reconnect)
    # What came before the hole wasn't handed on yet: it comes again, and nothing is taken meanwhile.
    assert device.get(entry("a", 9)) == []
    assert device.take() == []
    device.open()
    device.get(*entries("a", 6, 11))
    assert seqs(device.take()) == [8, 9, 10, 11]


@pytest.mark.parametrize("missing", [gap("a", 2, 3), skipped("a", 2, 3), entry("a", 2)])
def test_a_log_begins_at_its_first_position(missing: event_pb2.Event) -> None:
    device = Device()
    device.open()
    (action,) = device.get(missing)
    assert isinstance(action, Reconnect)


def test_a_gap_is_handed_on_without_what_is_known_of_it() -> None:
    device = Device(StoredCursor("a", 5))
    device.open()
    device.get(gap("a", 3, 8), gap("a", 2, 7), entry("a", 9))
    first, second = device.take()
    assert first == Gap(conversation_id="a", from_seq=6, to_seq=8, stale_from_seq=3)
    assert isinstance(second, Message)
    device.core.apply(first)
    assert [cursor.seq for _, cursor in device.save().cursors] == [8]


def test_skipped_positions_are_applied_with_what_comes_before_them() -> None:
    device = Device()
    device.open()
    device.get(skipped("a", 1, 3), entry("a", 4), skipped("a", 5, 6), skipped("a", 7, 9))
    assert [cursor.seq for _, cursor in device.save().cursors] == [3]
    assert device.acks() == {"a": 3}
    device.apply()
    assert [cursor.seq for _, cursor in device.save().cursors] == [9]
    assert device.acks() == {"a": 9}


def test_positions_are_skipped_only_once_the_states_before_them_were_applied() -> None:
    device = Device(StoredCursor("a", 3))
    device.open()
    device.get(state("a", 1, 5), state("a", 2, 6), skipped("a", 4, 6))
    assert not device.core.has_unsaved
    events = device.take()
    assert [type(event) for event in events] == [MessageState, MessageState, Skipped]
    for event in events[:2]:
        device.core.apply(event)
        assert not device.core.has_unsaved, "or they would be lost with the next crash"
    device.core.apply(events[2])
    device.save()
    assert device.acks() == {"a": 6}
    # Where there was nothing to tell, nobody hears of it.
    device.get(skipped("a", 7, 8), entry("a", 9))
    assert [type(event) for event in device.apply()] == [Message]
    device.save()
    assert device.acks() == {"a": 9}


def test_states_come_again_with_the_positions_behind_them() -> None:
    device = Device(StoredCursor("a", 3))
    device.open()
    device.get(state("a", 1, 5))
    device.get(entry("b", 9))
    device.core.disconnected()
    assert device.take() == []
    assert [c.seq for c in device.connect().cursors if c.conversation_id == "a"] == [3]
    device.greet()
    device.get(state("a", 1, 5), gap("a", 4, 6))
    assert [type(event) for event in device.apply()] == [MessageState, Gap]


def test_skipped_positions_come_again_with_what_comes_before_them() -> None:
    device = Device()
    device.open()
    device.get(entry("a", 1), skipped("a", 2, 3), entry("a", 4))
    (first,) = [device.core.next_event()]
    assert isinstance(first, Message)
    device.get(entry("a", 9))
    device.open()
    device.core.apply(first)
    device.get(entry("a", 1), skipped("a", 2, 3), entry("a", 4))
    assert seqs(device.apply()) == [4]
    device.save()
    assert device.acks() == {"a": 4}


def test_nothing_is_applied_that_was_not_handed_on() -> None:
    device = Device()
    device.open()
    device.get(*entries("a", 1, 5))
    event = device.core.next_event()
    assert isinstance(event, Message)
    device.core.apply(replace(event, seq=5))
    assert [cursor.seq for _, cursor in device.save().cursors] == [1]


# Acknowledging


def test_only_what_is_saved_is_acknowledged() -> None:
    device = Device()
    device.open()
    device.get(*entries("a", 1, 3), entry("b", 1))
    device.apply()
    assert device.acks() == {}
    device.save()
    assert device.acks() == {"a": 3, "b": 1}
    assert device.acks() == {}


def test_it_is_time_to_save_when_a_quarter_of_the_window_is_used() -> None:
    device = Device()
    device.open()
    device.save()
    device.get(*entries("a", 1, 2))
    for due in (False, True):
        event = device.core.next_event()
        assert event is not None
        device.core.apply(event)
        assert device.core.has_unsaved
        assert device.core.saving_due is due


def test_an_acknowledgement_waits_until_the_server_has_sent_it_again() -> None:
    device = Device()
    device.open()
    device.get(*entries("a", 1, 5))
    device.apply()
    unsaved = device.core.take_unsaved()
    device.open()
    # Saved only now: hello said 0, and the server would ignore an acknowledgement of 5.
    device.core.saved(unsaved)
    assert device.acks() == {}
    device.get(*entries("a", 1, 3))
    assert device.acks() == {"a": 3}
    device.get(*entries("a", 4, 5))
    assert device.acks() == {"a": 5}
    assert device.take() == []


def test_what_hello_has_said_is_not_acknowledged_again() -> None:
    device = Device()
    device.open()
    device.get(*entries("a", 1, 5))
    device.apply()
    device.save()
    device.open()
    assert device.acks() == {}
    device.get(entry("a", 6))
    device.apply()
    device.save()
    assert device.acks() == {"a": 6}


# Restores


def restored() -> tuple[Device, list[Event]]:
    """A device that had applied 5, been given 7, and received 9 when the store was restored to 3."""
    device = Device(StoredCursor("a", 5), StoredCursor("b", 2), StoredCursor("gone", 4))
    device.open()
    device.get(*entries("a", 6, 9), *entries("b", 3, 4))
    handed = [device.core.next_event(), device.core.next_event()]
    device.connect()
    device.greet("two", {"a": 3, "gone": 0})
    return device, [event for event in handed if event is not None]


def test_after_a_restore_nothing_old_is_handed_on_and_what_holds_is_told() -> None:
    device, handed = restored()
    device.get(*entries("a", 4, 5), entry("b", 3), skipped("c", 1, 2))
    # The new positions are saved first, or a crash could bring back the old ones.
    assert device.take() == []
    unsaved = device.save()
    assert unsaved.session == StoredSession("alice", "phone", "two", announced=False)
    assert {(cursor.log, cursor.seq) for cursor in unsaved.all_cursors} == {("a", 3), ("b", 2)}
    changed, *rest = device.take()
    assert isinstance(changed, IncarnationChanged)
    assert (changed.incarnation, dict(changed.positions)) == ("two", {"a": 3, "b": 2})
    assert seqs(rest) == [4, 5, 3]
    # Positions of before mean nothing any more, and those of now are saved once the application knows of them.
    device.core.apply(handed[1])
    assert device.save().cursors == []
    device.core.apply(changed)
    unsaved = device.save()
    assert unsaved.session == StoredSession("alice", "phone", "two")
    assert [(cursor.log, cursor.seq) for _, cursor in unsaved.cursors] == [("c", 2)]
    device.core.apply(rest[1])
    assert [(cursor.log, cursor.seq) for _, cursor in device.save().cursors] == [("a", 5)]


def test_a_restore_is_told_by_the_next_process_if_nobody_heard_of_it() -> None:
    device = Device(
        StoredCursor("a", 3), session=StoredSession("alice", "phone", "two", announced=False)
    )
    (changed,) = device.take()
    assert isinstance(changed, IncarnationChanged)
    assert (changed.incarnation, dict(changed.positions)) == ("two", {"a": 3})
    device.core.apply(changed)
    assert device.save().session == StoredSession("alice", "phone", "two")


def test_a_connection_cut_before_the_result_of_hello_changes_nothing() -> None:
    device = Device(StoredCursor("a", 5))
    device.connect()
    welcome = event_pb2.Welcome(user_id="alice", device_id="phone", incarnation="two")
    device.get(event_pb2.Event(welcome=welcome))
    hello = device.connect()
    assert hello.incarnation == "one"
    assert [cursor.seq for cursor in hello.cursors] == [5]
    assert device.take() == []


def test_a_cursor_refused_without_a_restore_is_told() -> None:
    device = Device(StoredCursor("a", 5), StoredCursor("none of ours", 2))
    device.connect()
    device.greet(refused={"a": 3, "none of ours": 0})
    device.get(*entries("a", 4, 5))
    assert device.take() == []
    unsaved = device.save()
    assert {(c.log, c.seq) for _, c in unsaved.cursors} == {("a", 3), ("none of ours", 0)}
    lost, forgotten, *rest = device.take()
    assert lost == PositionLost(conversation_id="a", seq=3)
    assert forgotten == PositionLost(conversation_id="none of ours", seq=0)
    assert seqs(rest) == [4, 5]
    assert [cursor.conversation_id for cursor in device.connect().cursors] == ["a"]


# Beacons


def beacon(level: bool, **positions: int) -> event_pb2.Event:
    total = sum(digest_of(name, seq) for name, seq in positions.items()) % (1 << 64)
    told = event_pb2.Beacon(level=level, digest=total, conversations=len(positions))
    return event_pb2.Event(beacon=told)


def test_the_digest_is_as_the_contract_says() -> None:
    expected = int.from_bytes(hashlib.sha256(b"inbox:alice:12").digest()[:8], "big")
    assert digest_of("inbox:alice", 12) == expected


def test_a_digest_is_compared_once_level() -> None:
    device = Device(StoredCursor("a", 5))
    device.open()
    wrong = beacon(True, a=9)
    assert device.get(wrong) == []
    complete = event_pb2.Event(sync_complete=event_pb2.SyncComplete(conversations=1))
    assert device.get(complete) == []
    assert device.get(beacon(False, a=9)) == []
    assert device.get(beacon(True, a=5)) == []
    device.get(entry("a", 6), entry("b", 1))
    # What was received counts, whether or not it was handed on.
    assert device.get(beacon(True, a=6, b=1)) == []
    (action,) = device.get(beacon(True, a=6, b=2))
    assert isinstance(action, Reconnect)


# The rest


def test_the_servers_word_becomes_an_action() -> None:
    device = Device()
    device.open()
    away = event_pb2.GoingAway(reconnect_delay_ms=1500)
    expiring = event_pb2.TokenExpiring(token_expire_time=Timestamp(seconds=5))
    assert device.get(
        event_pb2.Event(token_expiring=expiring), event_pb2.Event(going_away=away)
    ) == [RefreshToken(), GoAway(1.5)]
    assert device.core.token_expire_ms == 5000
    ended = event_pb2.SessionEnded(error=error(10, "INCARNATION_CHANGED"), reconnect=True)
    (action,) = device.get(event_pb2.Event(session_ended=ended), entry("a", 1))
    assert isinstance(action, Reconnect)
    assert action.error.reason == "INCARNATION_CHANGED"
    assert device.take() == []


def test_a_state_of_another_device_is_not_used() -> None:
    device = Device(session=StoredSession("alice", "laptop", "one"))
    device.connect()
    (action,) = device.greet()
    assert isinstance(action, End)
    assert isinstance(action.error, StateError)


def test_an_own_entry_with_other_content_is_no_proof() -> None:
    device = Device()
    device.open()
    content = message_pb2.MessageContent(text="mine").SerializeToString()
    item = device.core.sends.enqueue("a", content, 0.0)
    device.core.sends.stored(item, 0.0)
    message_id = item.message.message_id

    def own(log: str, text: str) -> event_pb2.Event:
        event = entry(log, 1, "alice", message=message_pb2.MessageContent(text=text))
        event.entry.id = message_id
        return event

    device.get(own("b", "mine"), own("a", "another's"))
    assert len(device.core.outbox) == 1
    device.get(own("a", "mine"))
    assert len(device.core.outbox) == 1, "an old position"
    event = own("a", "mine")
    event.entry.seq = 2
    device.get(event)
    assert len(device.core.outbox) == 0
    (sent,) = [event for event in device.take() if isinstance(event, MessageSent)]
    assert (sent.message_id, sent.seq) == (message_id, 2)


def test_frames_are_bounded() -> None:
    device = Device()
    device.connect()
    device.greet()
    device.core.limits.max_commands_in_flight = 4000
    content = message_pb2.MessageContent(text="x" * 16_000).SerializeToString()
    for _ in range(100):
        device.core.sends.stored(device.core.sends.enqueue("a", content, 0.0), 0.0)
    frames = device.frames()
    assert sum(len(frame.commands) for frame in frames) == 100
    assert all(frame.ByteSize() < 300_000 for frame in frames)
    for _ in range(3000):
        device.core.sends.stored(device.core.sends.enqueue("a", b"", 0.0), 0.0)
    assert max(len(frame.commands) for frame in device.frames()) <= 1000
