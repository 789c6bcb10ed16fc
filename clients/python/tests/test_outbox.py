"""The outbox, message by message."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings import Code, StoredMessage, TidingsError
from tidings._backoff import Backoff
from tidings._outbox import Outbox, Outgoing, SendState, is_retryable
from tidings._state import StoredFailure
from tidings.errors import error_for


class Highest(random.Random):
    """Randomness that always draws the longest wait."""

    def uniform(self, a: float, b: float) -> float:
        return b


def outbox() -> Outbox:
    return Outbox(Backoff(1.0, 8.0), Highest(1))


def add(box: Outbox, name: str, conversation: str = "c") -> Outgoing:
    message = StoredMessage(box.next_position(), conversation, name, b"", 0, sealed=True)
    item = box.add(message)
    box.stored(item)
    return item


def send_all(box: Outbox, now: float = 0.0, room: int = 100) -> list[tuple[str, str | None]]:
    """What goes out now: each id with the predecessor that it names."""
    box.wake(now)
    sent = []
    while (item := box.next_send(now, room)) is not None:
        after = item.after.message.message_id if item.after is not None else None
        sent.append((item.message.message_id, after))
    return sent


def refusal(code: Code, reason: str = "", retry_after: float | None = None) -> TidingsError:
    return error_for(code, "refused", reason=reason, retry_after=retry_after)


UNAVAILABLE = refusal(Code.UNAVAILABLE, "STORE_UNAVAILABLE")
MISSING = refusal(Code.FAILED_PRECONDITION, "PREDECESSOR_MISSING")


AHEAD = refusal(Code.INVALID_ARGUMENT, "ID_AHEAD")


def test_only_what_was_not_sent_before_is_refused_for_an_id_ahead() -> None:
    box = outbox()
    item = add(box, "1")
    send_all(box)
    assert not box.may_be_taken_later(item, AHEAD)
    box.reconnect()
    send_all(box)
    # The attempt before may have reached a server whose clock is ahead, and be committed yet.
    assert box.may_be_taken_later(item, AHEAD)
    assert not box.may_be_taken_later(item, refusal(Code.PERMISSION_DENIED, "RIGHT_MISSING"))


def test_what_a_process_before_may_have_sent_is_not_refused_for_an_id_ahead() -> None:
    box = outbox()
    sealed = box.restore(StoredMessage(1, "a", "1", b"", 0, sealed=True))
    unsealed = box.restore(StoredMessage(2, "b", "2", b"", 0, sealed=False))
    send_all(box)
    assert box.may_be_taken_later(sealed, AHEAD)
    assert not box.may_be_taken_later(unsealed, AHEAD)


def test_each_names_its_predecessor_in_the_same_conversation() -> None:
    box = outbox()
    for name, conversation in (("1", "a"), ("2", "b"), ("3", "a"), ("4", "a"), ("5", "b")):
        add(box, name, conversation)
    assert sorted(send_all(box)) == [
        ("1", None),
        ("2", None),
        ("3", "1"),
        ("4", "3"),
        ("5", "2"),
    ]
    assert box.in_flight == 5


def test_an_acknowledged_predecessor_is_not_named() -> None:
    box = outbox()
    first, second = add(box, "1"), add(box, "2")
    send_all(box)
    box.accepted(first)
    add(box, "3")
    assert send_all(box) == [("3", "2")]
    box.accepted(second)
    assert [item.message.message_id for item in box] == ["3"]


def test_conversations_take_turns() -> None:
    box = outbox()
    for n in range(4):
        add(box, f"a{n}", "a")
    add(box, "b0", "b")
    assert [name for name, _ in send_all(box, room=3)] == ["a0", "b0", "a1"]


def test_a_refusal_holds_back_those_behind_it_until_it_is_tried_again() -> None:
    box = outbox()
    first, second, third = (add(box, name) for name in "123")
    send_all(box)
    box.retry(first, UNAVAILABLE, 10.0)
    box.retry(second, MISSING, 10.0)
    assert send_all(box, 10.5) == []
    assert box.wake_at() == 11.0
    assert send_all(box, 11.0) == [("1", None), ("2", "1")]
    assert third.state is SendState.IN_FLIGHT
    box.retry(third, MISSING, 11.0)
    # Its predecessor is in flight as well: it may overtake it once more, so there is a wait.
    assert box.wake_at() == 13.0


def test_one_failure_of_a_flight_counts_once() -> None:
    box = outbox()
    items = [add(box, str(n)) for n in range(5)]
    send_all(box)
    for item in items:
        box.retry(item, UNAVAILABLE, 0.0)
    assert box.wake_at() == 1.0
    send_all(box, 1.0)
    for item in items:
        box.retry(item, UNAVAILABLE, 1.0)
    assert box.wake_at() == 3.0


def test_the_wait_that_the_server_asks_for_is_kept() -> None:
    box = outbox()
    items = [add(box, str(n)) for n in range(2)]
    send_all(box)
    box.retry(items[0], UNAVAILABLE, 0.0)
    box.retry(items[1], refusal(Code.RESOURCE_EXHAUSTED, retry_after=20.0), 0.0)
    assert box.wake_at() == 20.0


def test_waits_start_anew_after_a_success() -> None:
    box = outbox()
    first = add(box, "1")
    for now in (0.0, 1.0, 3.0):
        send_all(box, now)
        box.retry(first, UNAVAILABLE, now)
    assert box.wake_at() == 7.0
    send_all(box, 7.0)
    second = add(box, "2")
    send_all(box, 7.0)
    box.accepted(first)
    box.retry(second, UNAVAILABLE, 8.0)
    assert box.wake_at() == 9.0


def test_those_behind_a_failure_name_the_one_before_it() -> None:
    box = outbox()
    first, second, third = (add(box, name) for name in "123")
    send_all(box)
    box.hold(second)
    box.retry(third, MISSING, 0.0)
    # Until it is durable that the second failed, the third waits: a crash could bring the second back.
    assert send_all(box, 0.0) == []
    box.fail(second)
    assert send_all(box, 0.0) == [("3", "1")]
    assert second.state is SendState.FAILED
    assert second in list(box)
    box.drop(second)
    assert [item.message.message_id for item in box] == ["1", "3"]
    box.accepted(first)
    box.accepted(third)
    assert box.in_flight == 0


def test_one_that_is_being_stored_holds_back_those_behind_it() -> None:
    box = outbox()
    first = box.add(StoredMessage(box.next_position(), "c", "1", b"", 0, sealed=True))
    add(box, "2")
    add(box, "3", "other")
    assert send_all(box) == [("3", None)]
    box.stored(first)
    assert send_all(box) == [("1", None), ("2", "1")]


def test_one_that_could_not_be_stored_lets_those_behind_it_go() -> None:
    box = outbox()
    first = box.add(StoredMessage(box.next_position(), "c", "1", b"", 0, sealed=True))
    add(box, "2")
    box.drop(first)
    assert send_all(box) == [("2", None)]


def test_what_was_in_flight_is_sent_again_in_order_after_a_reconnect() -> None:
    box = outbox()
    items = [add(box, str(n)) for n in range(4)]
    send_all(box, room=3)
    box.retry(items[1], UNAVAILABLE, 0.0)
    box.reconnect()
    assert box.in_flight == 0
    assert send_all(box, 0.0) == [("0", None), ("1", "0"), ("2", "1"), ("3", "2")]


def test_one_accepted_while_it_waits_is_not_sent_again() -> None:
    box = outbox()
    first = add(box, "1")
    add(box, "2")
    send_all(box)
    box.retry(first, UNAVAILABLE, 0.0)
    box.accepted(first)
    box.reconnect()
    assert send_all(box, 100.0) == [("2", None)]


def test_what_is_restored_keeps_its_order_and_comes_before_what_is_new() -> None:
    box = outbox()
    failure = StoredFailure(7, "RIGHT_MISSING", "", "no")
    for position, name in ((5, "5"), (9, "9")):
        box.restore(StoredMessage(position, "c", name, b"", 0, sealed=True))
    failed = box.restore(StoredMessage(7, "c", "7", b"", 0, sealed=True, failure=failure))
    assert failed.state is SendState.FAILED
    add(box, "new")
    assert send_all(box) == [("5", None), ("9", "5"), ("new", "9")]


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (Code.UNAVAILABLE, "OUTCOME_UNKNOWN", True),
        (Code.UNAVAILABLE, "STORE_UNAVAILABLE", True),
        (Code.UNAVAILABLE, "DRAINING", True),
        (Code.RESOURCE_EXHAUSTED, "TOO_MANY_IN_FLIGHT", True),
        (Code.RESOURCE_EXHAUSTED, "TOO_LARGE", False),
        (Code.ABORTED, "SESSION_REPLACED", True),
        (Code.FAILED_PRECONDITION, "PREDECESSOR_MISSING", True),
        (Code.FAILED_PRECONDITION, "HELLO_EXPECTED", True),
        (Code.FAILED_PRECONDITION, "DIRECT_FIXED", False),
        (Code.INTERNAL, "INTERNAL", True),
        (Code.UNAUTHENTICATED, "TOKEN_EXPIRED", True),
        (Code.INVALID_ARGUMENT, "INVALID_FIELD", False),
        (Code.INVALID_ARGUMENT, "ID_AHEAD", False),
        (Code.NOT_FOUND, "CONVERSATION_NOT_FOUND", False),
        (Code.PERMISSION_DENIED, "DENIED", False),
        (Code.ALREADY_EXISTS, "ID_REUSED", False),
    ],
)
def test_what_may_pass(code: Code, reason: str, expected: bool) -> None:
    assert is_retryable(refusal(code, reason)) is expected


@given(st.integers(0, 10_000), st.floats(0, 100), st.integers())
def test_waits_are_jittered_in_full_and_capped(attempt: int, at_least: float, seed: int) -> None:
    delay = Backoff(0.5, 30.0).delay(attempt, random.Random(seed), at_least)
    assert at_least <= delay <= at_least + min(30.0, 0.5 * 2 ** min(attempt, 100))
