"""Simulates worlds from the command line: many seeds, or one whose story is told.

python -m tests.simulation --seeds 500
python -m tests.simulation --seed 17
python -m tests.simulation --seeds 100 --bug no-window
"""

from __future__ import annotations

import sys
import time

import click

from .bugs import BUGS
from .many import SEEDS, command_for, new_pool, run_many, run_one, story_of


@click.command()
@click.option(
    "--seeds", type=click.IntRange(min=1), default=SEEDS, show_default=True, help="How many worlds."
)
@click.option("--first", type=int, default=0, show_default=True, help="The first seed.")
@click.option("--seed", type=int, help="Only this one; its story is told.")
@click.option("--bug", type=click.Choice(sorted(BUGS)), help="Plant this bug first.")
@click.option("--processes", type=click.IntRange(min=1), default=2, show_default=True)
def main(seeds: int, first: int, seed: int | None, bug: str | None, processes: int) -> None:
    """Simulate worlds of faults and check every invariant in each."""
    chosen = [seed] if seed is not None else list(range(first, first + seeds))
    began = time.monotonic()
    failures = entries = checks = 0
    pool = new_pool(processes)
    outcomes = run_many(pool, chosen, bug=bug) if seed is None else iter([run_one(seed, bug)])
    for outcome in outcomes:
        entries += outcome.entries
        checks += outcome.checks
        if seed is not None:
            click.echo(story_of(outcome))
        if outcome.failure:
            failures += 1
            if failures == 1 and seed is None:
                click.echo(story_of(outcome))
            click.echo(f"seed {outcome.seed}: {outcome.invariant}; {command_for(outcome, bug)}")
    pool.shutdown()
    click.echo(
        f"{len(chosen)} worlds, {entries} entries, {checks} checks in {time.monotonic() - began:.0f} s: "
        f"{failures} failed"
    )
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
