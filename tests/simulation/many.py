"""Many seeds at once, in processes of their own, and what is told of a failing one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from .bugs import BUGS
from .config import draw
from .run import Outcome, run_seed

SEEDS = 1000
"""How many worlds are simulated when nobody says how many, as CI does: seeds from 0 on."""
_STORY_LINES = 60
_AT_ONCE = 5


def run_one(seed: int, bug: str | None = None) -> Outcome:
    """The outcome of a seed, with a bug planted if one is named, where it can show."""
    if bug is None:
        return run_seed(seed)
    planted = BUGS[bug]
    with planted.plant():
        return run_seed(seed, config=planted.where(draw(seed)))


def new_pool(processes: int = 2) -> ProcessPoolExecutor:
    """Processes for worlds, each a fresh interpreter: nothing of this one reaches into the worlds."""
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))


def run_many(
    pool: ProcessPoolExecutor, seeds: Sequence[int], *, bug: str | None = None
) -> Iterator[Outcome]:
    """The outcomes of seeds, in their order. Whoever stops iterating stops the rest."""
    return pool.map(run_one, seeds, [bug] * len(seeds), chunksize=_AT_ONCE)


def command_for(outcome: Outcome, bug: str | None = None) -> str:
    """The command that runs a seed again, exactly."""
    planted = f" --bug {bug}" if bug else ""
    return f"python -m tests.simulation --seed {outcome.seed}{planted}"


def story_of(outcome: Outcome) -> str:
    """What happened last, and what was wrong with it."""
    lines = [f"{h.at:10.3f} s  {h.kind:<8} {h.what}" for h in outcome.story[-_STORY_LINES:]]
    lines.append(
        f"{outcome.invariant} broken: {outcome.failure}"
        if outcome.failure
        else f"all held: {outcome.steps} steps, {outcome.seconds:.1f} simulated seconds"
    )
    return "\n".join(lines)
