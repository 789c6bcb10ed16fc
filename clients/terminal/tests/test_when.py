from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from tidings_chat import when

NOW = datetime(2026, 6, 3, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (timedelta(seconds=20), "just now"),
        (timedelta(minutes=5), "5 min ago"),
        (timedelta(hours=3, minutes=10), "3 h ago"),
        (timedelta(hours=13), "yesterday at 23:00"),
        (timedelta(days=3), "on Sun"),
        (timedelta(days=40), "on 24 Apr"),
        (timedelta(seconds=-30), "just now"),
    ],
)
def test_how_long_ago(before: timedelta, expected: str) -> None:
    assert when.ago(NOW - before, NOW) == expected


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (timedelta(hours=3), "09:00"),
        (timedelta(days=1), "Yesterday"),
        (timedelta(days=6), "Thu"),
        (timedelta(days=7), "27 May"),
        (timedelta(days=400), "29 Apr 25"),
        (timedelta(days=-1), "12:00"),
    ],
)
def test_moments_in_a_list(before: timedelta, expected: str) -> None:
    assert when.short(NOW - before, date(2026, 6, 3)) == expected
