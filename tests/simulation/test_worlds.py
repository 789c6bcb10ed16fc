"""Worlds of faults in which every invariant holds, and bugs that are found when they are planted."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from subprocess import run

import pytest

from .bugs import BUGS
from .many import SEEDS, command_for, new_pool, run_many, story_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with new_pool() as pool:
        yield pool


def test_every_invariant_holds_in_every_world(pool: ProcessPoolExecutor) -> None:
    worlds = entries = 0
    for outcome in run_many(pool, range(SEEDS)):
        assert not outcome.failure, f"{story_of(outcome)}\n{command_for(outcome)}"
        worlds += 1
        entries += outcome.entries
    assert worlds == SEEDS
    assert entries > SEEDS


@pytest.mark.parametrize("name", sorted(BUGS))
def test_a_planted_bug_is_found(pool: ProcessPoolExecutor, name: str) -> None:
    for outcome in run_many(pool, range(BUGS[name].within), bug=name):
        if outcome.failure:
            return
    pytest.fail(f"{BUGS[name].what}: not found within {BUGS[name].within} seeds")


def test_a_seed_replays_exactly_in_another_process() -> None:
    digests = set()
    code = "from tests.simulation.run import run_seed; print(run_seed(7, trace=True).trace)"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout)
    assert len(digests) == 1
    assert len(digests.pop()) > 10
