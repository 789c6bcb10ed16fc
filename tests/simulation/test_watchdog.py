"""A world in which something spins ends, with a story."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from tidings_server.delivery.session import Session

from .many import new_pool, story_of
from .planting import replaced
from .run import Outcome, run_seed

Recheck = Callable[[Session], Any]


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    # A world that is left where it stood leaves open connections, which this process would hear of.
    with new_pool(1) as pool:
        yield pool


def _run_with(recheck: Recheck) -> Outcome:
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


async def _again() -> None:
    while True:  # noqa: ASYNC110 - the mistake itself
        await asyncio.sleep(0)


_TASKS: list[asyncio.Task[None]] = []


def _spin_in_a_task(_session: Session) -> None:
    _TASKS.append(asyncio.get_running_loop().create_task(_again()))


@pytest.mark.parametrize("spin", [_spin_forgiving, _spin_stubborn])
def test_a_step_that_does_not_end(pool: ProcessPoolExecutor, spin: Recheck) -> None:
    outcome = pool.submit(_run_with, spin).result()
    assert outcome.invariant == "Runaway"
    assert "does not end" in outcome.failure
    assert spin.__name__ in outcome.failure
    assert outcome.story
    assert len(story_of(outcome).splitlines()) < 100


def test_steps_that_follow_each_other_without_time_going_on(pool: ProcessPoolExecutor) -> None:
    outcome = pool.submit(_run_with, _spin_in_a_task).result()
    assert outcome.invariant == "Runaway"
    assert "_again" in outcome.failure
    assert outcome.story


def test_what_is_fair_is_not_disturbed(pool: ProcessPoolExecutor) -> None:
    assert pool.submit(run_seed, 0, step_cpu_s=0.4).result().failure == ""
