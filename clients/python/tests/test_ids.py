"""Ids and the server's time."""

from __future__ import annotations

import random
import uuid

from hypothesis import given
from hypothesis import strategies as st

from tidings._ids import IdMaker, ServerClock, id_time_ms


@given(st.lists(st.integers(0, 2**47), min_size=1, max_size=50), st.integers())
def test_ids_are_uuid7_of_their_time(times: list[int], seed: int) -> None:
    maker = IdMaker(random.Random(seed))
    made = [maker.make(ms) for ms in times]
    assert len(set(made)) == len(made)
    for text in made:
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert parsed.version == 7
        assert parsed.variant == uuid.RFC_4122


@given(st.lists(st.integers(-900, 5), max_size=300), st.integers())
def test_ids_ascend_though_the_clock_stands_or_goes_back_a_little(
    steps: list[int], seed: int
) -> None:
    maker = IdMaker(random.Random(seed))
    highest = 10**12
    made = [maker.make(highest)]
    for step in steps:
        now = highest + step
        highest = max(highest, now)
        made.append(maker.make(now))
    assert made == sorted(made)
    assert id_time_ms(made[-1]) == highest


def test_a_clock_set_back_far_is_followed() -> None:
    maker = IdMaker(random.Random(1))
    maker.make(10**12)
    assert id_time_ms(maker.make(10**12 - 86_400_000)) == 10**12 - 86_400_000


def test_the_server_is_asked_for_the_time_and_not_the_device() -> None:
    wall = 5_000
    clock = ServerClock(lambda: wall)
    assert (clock.known, clock.now_ms(0.0), clock.offset_ms(0.0)) == (False, 5_000, 0)
    clock.set(100_000, 10.0)
    assert (clock.known, clock.now_ms(12.5), clock.offset_ms(12.5)) == (True, 102_500, 97_500)
    # The device's clock is set while connected: ids don't follow it.
    wall = 999_000_000
    assert clock.now_ms(12.5) == 102_500
