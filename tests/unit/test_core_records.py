"""Records behave like frozen dataclasses, but for what the type checker alone forbids."""

from __future__ import annotations

from dataclasses import replace

from tidings_server.core.records import record


@record(frozen=True, slots=True)
class Point:
    x: int
    y: int = 0


def test_records_are_values() -> None:
    assert Point(1, 2) == Point(x=1, y=2) != Point(1)
    assert hash(Point(1, 2)) == hash(Point(1, 2))
    assert {Point(1): "a"}[Point(1, 0)] == "a"
    assert repr(Point(1)) == "Point(x=1, y=0)"
    assert replace(Point(1, 2), y=3) == Point(1, 3)


def test_records_have_no_dictionary() -> None:
    assert not hasattr(Point(1), "__dict__")


def test_records_match_by_position() -> None:
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)
