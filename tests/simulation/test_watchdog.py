"""A world in which something spins ends, with a story."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tidings_server.delivery.session import Session

from .bugs import replaced
from .many import story_of
from .run import Outcome, run_seed


def _run_with(recheck: Callable[[Session], Any]) -> Outcome:
    with replaced(Session, "beat", lambda session, _now_ms: recheck(session)):
        return run_seed(0, step_cpu_s=0.4)


def _spin_forgiving(_session: Session) -> None:
    while True:
        # As code that goes on after whatever goes wrong.
        with suppress(Exception):
            sum(range(1000))


def _spin_stubborn(_session: Session) -> None:
    times = 0
    while times < 3:
        try:
            while True:
                sum(range(1000))
        except BaseException:  # noqa: BLE001
            times += 1


@pytest.mark.parametrize("spin", [_spin_forgiving, _spin_stubborn])
def test_a_step_that_does_not_end(spin: Callable[[Session], None]) -> None:
    outcome = _run_with(spin)
    assert outcome.invariant == "Runaway"
    assert "does not end" in outcome.failure
    assert spin.__name__ in outcome.failure
    assert outcome.story
    assert len(story_of(outcome).splitlines()) < 100


def test_steps_that_follow_each_other_without_time_going_on() -> None:
    async def again() -> None:
        while True:  # noqa: ASYNC110 - the mistake itself
            await asyncio.sleep(0)

    tasks = []

    def begin(_session: Session) -> None:
        tasks.append(asyncio.get_running_loop().create_task(again()))

    outcome = _run_with(begin)
    assert outcome.invariant == "Runaway"
    assert "again" in outcome.failure
    assert outcome.story


def test_what_is_fair_is_not_disturbed() -> None:
    assert run_seed(0, step_cpu_s=0.4).failure == ""
