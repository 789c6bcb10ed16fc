"""`python -m tools.bench`: runs workloads on the server and on the floors in turn, and prints a table."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click
import uvloop

from . import machine
from .figures import Figures
from .idle import raise_file_limit
from .processes import ProcessFailed, Target
from .profiler import Profiler
from .report import Outcome, table
from .workloads import Scale
from .works import FULL, KINDS, QUICK, USUAL, WORKS, Work

_FILES = 8192
_LIMIT_S = 300.0


@click.command(context_settings={"show_default": True})
@click.option(
    "--workload", "-w", "names", multiple=True, help="Only these, such as w1/1 or all of w2."
)
@click.option("--runs", default=3, type=click.IntRange(1), help="Runs of each; medians are told.")
@click.option("--seconds", type=click.FloatRange(0.1), help="How long each run is measured.")
@click.option(
    "--quick", is_flag=True, help="One small run of each: proves that all works, measures nothing."
)
@click.option(
    "--against",
    multiple=True,
    type=click.Choice(KINDS),
    help="These targets instead of " + ", ".join(USUAL) + ".",
)
@click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/bench"),
    help="The folder for databases; it must be on a real disk.",
)
@click.option(
    "--profile", type=click.Path(file_okay=False, path_type=Path), help="Leave profiles here."
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all figures here.",
)
def main(
    names: Sequence[str],
    runs: int,
    seconds: float | None,
    quick: bool,
    against: Sequence[str],
    store: Path,
    profile: Path | None,
    json_path: Path | None,
) -> None:
    """Measure what messages, deliveries and connections cost the server, beside a pass-through server.

    Every run checks that each device got each message once, in order, without a gap; one that fails the check
    fails the whole.
    """
    works = [
        w
        for w in WORKS
        if not names or any(w.name == n or w.name.startswith(n + "/") for n in names)
    ]
    if not works:
        raise click.UsageError("no such workload; there are " + ", ".join(w.name for w in WORKS))
    scale = QUICK if quick else FULL
    if seconds is not None:
        scale = scale.lasting(seconds)
    store.mkdir(parents=True, exist_ok=True)
    if profile is not None:
        profile.mkdir(parents=True, exist_ok=True)
    raise_file_limit(_FILES)
    about = machine.describe(store)
    if about["disk"].startswith(("tmpfs", "ramfs")):
        click.echo(
            "warning: the databases are in memory: --store names a folder on a disk", err=True
        )
    outcomes = [Outcome(work) for work in works]
    for number in range(1 if quick else runs):
        for outcome in outcomes:
            work = outcome.work
            kinds = [k for k in work.kinds if k in (against or USUAL)]
            profilers = {}
            if profile is not None:
                name = f"{work.name.replace('/', '-')}-{number + 1}"
                profilers = {k: Profiler(profile / f"{name}-{k}") for k in kinds}
            try:
                found = _run(work, kinds, scale, store, profilers)
            except ProcessFailed as problem:
                raise click.ClickException(f"{work.name}: {problem}") from problem
            for kind, figures in found.items():
                outcome.add(kind, figures)
                _tell(work, kind, number, figures)
    print()
    print(table(outcomes, about))
    if json_path is not None:
        runs_of = {
            o.work.name: {k: [asdict(f) for f in fs] for k, fs in o.runs.items()} for o in outcomes
        }
        json_path.write_text(json.dumps({"machine": about, "runs": runs_of}, indent=1) + "\n")
    if any(o.wrong for o in outcomes):
        raise click.ClickException(
            "messages were lost, doubled, out of order or missing: see above"
        )


def _run(
    work: Work,
    kinds: Sequence[str],
    scale: Scale,
    store: Path,
    profilers: Mapping[str, Profiler],
) -> dict[str, Figures]:
    async def run(folder: Path) -> dict[str, Figures]:
        targets = [Target(kind, folder) for kind in kinds]
        async with asyncio.timeout(_LIMIT_S):
            return await work.run(targets, scale, profilers)

    with tempfile.TemporaryDirectory(dir=store) as folder:
        gc.collect()
        # The load client makes no cycles worth stopping for.
        gc.disable()
        try:
            return uvloop.run(run(Path(folder)))
        finally:
            gc.enable()


def _tell(work: Work, kind: str, number: int, figures: Figures) -> None:
    value = f"{work.value(figures):.2f} {work.per} a {work.unit}, " if work.per else ""
    units = ", ".join(f"{unit} {count:,}" for unit, count in figures.units.items())
    result = "exactly once" if not figures.wrong else f"{figures.wrong} WRONG"
    print(
        f"{work.name} run {number + 1} {kind}: {value}{units}: {result}",
        file=sys.stderr,
        flush=True,
    )
    for problem in figures.problems:
        print(f"  {problem}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
