"""Where a device starts: against a model that decides position by position."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidings_server.core.entries import Role
from tidings_server.core.memberships import Interval, Membership
from tidings_server.delivery.position import OPEN_END, Position
from tidings_server.delivery.resume import start, visible_ranges


@st.composite
def situations(draw: st.DrawFn) -> dict[str, object]:
    """What is known of one log when its device says hello."""
    stays = draw(st.integers(1, 3))
    borders = sorted(draw(st.sets(st.integers(1, 24), min_size=2 * stays, max_size=2 * stays)))
    ranges = list(zip(borders[::2], borders[1::2], strict=True))
    head = draw(st.integers(borders[-1], 26))
    if draw(st.booleans()):
        ranges[-1] = (ranges[-1][0], OPEN_END)
    end = min(head, ranges[-1][1])
    return {
        "named": draw(st.one_of(st.none(), st.integers(0, end))),
        "remembered": draw(st.one_of(st.none(), st.integers(0, 30))),
        "end": end,
        "ranges": tuple(ranges),
        "limit": draw(st.integers(0, 26)),
    }


def visible(seq: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(low <= seq <= high for low, high in ranges)


@given(situations())
def test_every_position_is_sent_or_passed_over_once(situation: dict[str, object]) -> None:
    named, end, limit = situation["named"], situation["end"], situation["limit"]
    ranges = situation["ranges"]
    assert isinstance(end, int)
    assert isinstance(limit, int)
    assert isinstance(ranges, tuple)
    begin = start(**situation)  # type: ignore[arg-type]
    told: dict[int, str] = {}
    known = named if isinstance(named, int) else 0
    at = known
    for kind, first, last in begin.passed:
        # Ascending, without holes, never empty: a device advances its position by each.
        assert first == at + 1
        assert last >= first
        told.update(dict.fromkeys(range(first, last + 1), kind))
        at = last
    assert begin.sent == at
    # What follows is what catching up does from there.
    position = Position("a log", begin.sent, end, ranges, end)
    sent: list[int] = []
    while (part := position.next_part()) is not None:
        kind, first, last = part
        assert first == position.sent + 1
        told.update(dict.fromkeys(range(first, last + 1), kind))
        if kind == "read":
            sent.extend(range(first, last + 1))
        position.pass_to(last)
    assert sorted(told) == list(range(known + 1, max(position.sent, known) + 1))
    for seq, kind in told.items():
        assert visible(seq, ranges) == (kind != "skip"), (seq, kind)
    # All that may be seen is told of, and no more than the limit is sent: the newest.
    assert {seq for seq in range(known + 1, end + 1) if visible(seq, ranges)} <= set(told)
    assert len(sent) <= limit
    assert not sent or sent[-1] == end


@given(situations())
def test_nothing_is_left_out_within_the_limit(situation: dict[str, object]) -> None:
    end, named = situation["end"], situation["named"]
    assert isinstance(end, int)
    situation = {**situation, "limit": 30}
    begin = start(**situation)  # type: ignore[arg-type]
    gaps = [part for part in begin.passed if part[0] == "gap"]
    if named is not None:
        # The device says itself where it is: all that it misses is sent.
        assert not gaps
    remembered = situation["remembered"]
    assert isinstance(remembered, int | None)
    assert all(last <= (remembered or 0) for _, _, last in gaps)


@given(situations())
def test_a_device_is_not_taken_back(situation: dict[str, object]) -> None:
    named = situation["named"]
    begin = start(**situation)  # type: ignore[arg-type]
    assert begin.sent >= (named if isinstance(named, int) else 0)
    end = situation["end"]
    assert isinstance(end, int)
    assert begin.sent <= end


def test_a_new_device_gets_the_newest_and_is_told_of_the_others() -> None:
    begin = start(named=None, remembered=None, end=100, ranges=((1, OPEN_END),), limit=30)
    assert begin.sent == 70
    assert begin.passed == (("gap", 1, 70),)


def test_what_came_before_joining_is_skipped() -> None:
    begin = start(named=None, remembered=None, end=100, ranges=((41, OPEN_END),), limit=30)
    assert begin.passed == (("skip", 1, 40), ("gap", 41, 70))


def test_a_device_that_comes_back_within_the_limit_misses_nothing() -> None:
    begin = start(named=60, remembered=10, end=100, ranges=((1, OPEN_END),), limit=40)
    assert (begin.sent, begin.passed) == (60, ())


def test_a_named_cursor_beats_the_remembered_one() -> None:
    begin = start(named=20, remembered=90, end=100, ranges=((1, OPEN_END),), limit=1000)
    assert (begin.sent, begin.passed) == (20, ())


def test_a_removed_user_gets_what_came_before_the_removal() -> None:
    membership = Membership("bob", Role.MEMBER, 50, (Interval(3, 0, 20), Interval(40, 9, 50)))
    ranges = visible_ranges(membership)
    assert ranges == ((3, 20), (40, 50))
    begin = start(named=15, remembered=None, end=50, ranges=ranges, limit=1000)
    position = Position("a log", begin.sent, 80, ranges, 80)
    parts = []
    while (part := position.next_part()) is not None:
        parts.append(part)
        position.pass_to(part[2])
    assert parts == [("read", 16, 20), ("skip", 21, 39), ("read", 40, 50)]
