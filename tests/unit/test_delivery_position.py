"""Positions and the window: what was sent and not acknowledged is counted entry by entry, in a model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings_server.delivery.position import OPEN_END, Position, Window


def at(sent: int, head: int, *ranges: tuple[int, int]) -> Position:
    return Position("a log", sent, head, ranges, head)


@pytest.mark.parametrize(
    ("position", "part"),
    [
        (at(0, 0, (1, OPEN_END)), None),
        (at(0, 5, (1, OPEN_END)), ("read", 1, 5)),
        (at(5, 5, (1, OPEN_END)), None),
        (at(2, 5, (1, OPEN_END)), ("read", 3, 5)),
        (at(0, 5, (3, OPEN_END)), ("skip", 1, 2)),
        (at(2, 5, (3, OPEN_END)), ("read", 3, 5)),
        (at(0, 5, (1, 3)), ("read", 1, 3)),
        (at(3, 5, (1, 3)), None),
        (at(3, 9, (1, 3), (7, OPEN_END)), ("skip", 4, 6)),
        (at(6, 9, (1, 3), (7, OPEN_END)), ("read", 7, 9)),
        (at(3, 6, (1, 3), (7, OPEN_END)), None),
        (at(4, 9, (1, 3), (7, 8)), ("skip", 5, 6)),
        (at(8, 9, (1, 3), (7, 8)), None),
    ],
)
def test_what_comes_next(position: Position, part: tuple[str, int, int] | None) -> None:
    assert position.next_part() == part


def test_a_removal_closes_the_range_that_is_open() -> None:
    position = at(4, 9, (1, 3), (7, OPEN_END))
    before = (position.open, position.end)
    position.close_at(8)
    assert before == (True, 9)
    assert (position.open, position.end) == (False, 8)
    assert position.ranges == ((1, 3), (7, 8))


def test_an_old_removal_does_not_close_a_new_stay() -> None:
    position = at(4, 9, (1, 3), (7, OPEN_END))
    position.close_at(3)
    assert position.ranges == ((1, 3), (7, OPEN_END))


def test_a_removal_is_noted_once() -> None:
    position = at(4, 9, (1, 5))
    position.close_at(8)
    assert position.ranges == ((1, 5),)


class Model:
    """What a device got, one log: entries and positions passed over, in order."""

    def __init__(self, sent: int) -> None:
        self.position = at(sent, sent, (1, OPEN_END))
        self.entries: list[int] = []

    def send(self, window: Window, count: int) -> None:
        first = self.position.sent + 1
        self.entries += range(first, first + count)
        self.position.sent += count
        window.unacked += count

    def waiting(self) -> int:
        return sum(seq > self.position.acked for seq in self.entries)


STEPS = st.lists(
    st.tuples(st.sampled_from(["send", "pass", "ack"]), st.integers(0, 2), st.integers(0, 9)),
    max_size=40,
)


@given(st.lists(st.integers(0, 20), min_size=3, max_size=3), STEPS)
def test_the_window_counts_entries_that_were_not_acknowledged(
    starts: list[int], steps: list[tuple[str, int, int]]
) -> None:
    window = Window(100)
    logs = [Model(sent) for sent in starts]
    for step, which, number in steps:
        model = logs[which]
        position = model.position
        if step == "send":
            model.send(window, number)
        elif step == "pass" and number:
            position.pass_to(position.sent + number)
        elif step == "ack":
            seq = position.sent - 4 + number
            before = position.acked
            news = window.acked(position, seq)
            # Beyond what was sent counts as what was sent, and nothing goes back.
            assert position.acked == max(before, min(seq, position.sent))
            assert news == (position.acked > before)
        assert window.unacked == sum(m.waiting() for m in logs)
        assert window.room() == 100 - window.unacked
    for model in logs:
        window.acked(model.position, model.position.sent)
    assert window.unacked == 0
