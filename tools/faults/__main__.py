"""`python -m tools.faults`: deals every fault to real processes under load, and verifies everything."""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import uvloop
from rich.console import Console

# Servers are started by fork and exec, which is no business of grpc's; it reads this when it is first imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from tools.bench.machine import describe
from tools.replay.api import Api, Refused
from tools.replay.player import Cast
from tools.replay.progress import Display
from tools.replay.run import Options, Stalled, replay
from tools.replay.world import World
from tools.stack.cassandra import CannotStart
from tools.stack.cluster import Cluster, ClusterOptions
from tools.stack.faults import ALONE, FAULTS, Fault
from tools.stack.server import ServerFailed
from tools.stack.stage import Alone, Stage

from .report import FaultRuns, Outcome, Part
from .witness import Witness

_ROOT: Final = Path(__file__).parents[2]
_SAMPLE: Final = _ROOT / "tests" / "data" / "chat"
_QUICK: Final = ("commit-answers-lost", "nodes-half-open")
_CAST: Final = Cast(devices=24, sdk_devices=4, visitors=8, rate=60.0)
_SECONDS: Final = 12
_QUICK_SECONDS: Final = 5
_WITHIN: Final = (0.15, 0.2)
_SUITES: Final = (
    (
        "tests/faults/test_disk.py",
        "embedded: a full disk, I/O errors, a database that can only be read",
    ),
    ("tests/faults/test_sync.py", "embedded: fsync fails"),
    ("tests/faults/test_kill.py", "embedded: kill -9 again and again, SIGSTOP"),
    (
        "tests/faults/test_two_nodes.py",
        "two servers: a kill between commit and publication and then silence",
    ),
    ("tests/contract/test_sqlite_backup.py", "restore from a backup"),
    (
        "tests/integration/test_sdk.py::test_a_restored_store_is_noticed_and_followed",
        "devices of the SDK after a restore",
    ),
)


@click.command(context_settings={"show_default": True})
@click.option(
    "--only",
    "names",
    multiple=True,
    type=click.Choice([*FAULTS, *ALONE]),
    help="These faults.",
)
@click.option(
    "--quick", is_flag=True, help=f"One node of Cassandra, less load: {', '.join(_QUICK)}."
)
@click.option(
    "--cassandra-nodes", type=click.IntRange(1, 3), help="How many nodes the ring has: 3."
)
@click.option("--seed", default=0, help="For random choices.")
@click.option("--progress", is_flag=True, help="Tell how far each is.")
@click.option("--keep", is_flag=True, help="Keep the files of the cluster, with the servers' logs.")
@click.option(
    "--report",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the report here, as Markdown.",
)
def main(
    *,
    names: Sequence[str],
    quick: bool,
    cassandra_nodes: int | None,
    seed: int,
    progress: bool,
    keep: bool,
    page: Path | None,
) -> None:
    """Deal faults to two servers on Cassandra and Redis, and to one on SQLite, under load; verify all after each.

    Without --only and --quick the test suites of other faults are run as well. The exit code is 1 when anything is
    wrong, 2 when the cluster can't be started.
    """
    wanted = names or (_QUICK if quick else (*FAULTS, *ALONE))
    nodes = cassandra_nodes or (1 if quick else 3)
    folder = Path(tempfile.mkdtemp(prefix="tidings-faults-"))
    began = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    cluster = Cluster(
        folder / "cluster", ClusterOptions(cassandra_nodes=nodes, lease_s=2 if quick else 4)
    )
    runs = FaultRuns(
        command=shlex.join(["python", "-m", "tools.faults", *sys.argv[1:]]),
        began=began,
        machine=describe(folder),
        versions=cluster.versions(),
        devices=_CAST.devices,
        rate=_CAST.rate or 0.0,
    )
    stages: list[tuple[Stage, list[Fault[Any]]]] = [
        (cluster, [fault for name, fault in FAULTS.items() if name in wanted]),
        (Alone(folder / "alone"), [fault for name, fault in ALONE.items() if name in wanted]),
    ]
    try:
        with Display(Console(stderr=True), quiet=not progress) as display:
            seconds = _QUICK_SECONDS if quick else _SECONDS
            for stage, faults in stages:
                if faults:
                    part = Part(stage.told)
                    runs.parts.append(part)
                    uvloop.run(_all(stage, faults, part, display, seconds, seed))
    except (CannotStart, ServerFailed, OSError) as problem:
        click.echo(f"faults: {problem}", err=True)
        sys.exit(2)
    finally:
        if keep:
            click.echo(f"everything is in {folder}", err=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if not names and not quick:
        runs.suites = [_suite(path, what) for path, what in _SUITES]
    text = runs.as_markdown()
    if page is not None:
        page.write_text(text, encoding="utf-8")
    click.echo(text)
    sys.exit(0 if runs.right else 1)


async def _all(
    stage: Stage,
    faults: Sequence[Fault[Any]],
    part: Part,
    display: Display,
    seconds: int,
    seed: int,
) -> None:
    async with AsyncExitStack() as stack:
        stack.push_async_callback(stage.stop)
        took = await stage.start()
        click.echo(f"{stage.told}: after {took:.1f} s", err=True)
        for fault in faults:
            try:
                outcome = await _one(stage, fault, display, seconds, seed)
            except* (Stalled, Refused, ServerFailed, TimeoutError) as problems:
                # The others are tried all the same, on what is left.
                why = "; ".join(f"{type(p).__name__}: {p}" for p in _leaves(problems))
                part.broken.append((fault, why.splitlines()[0]))
                click.echo(f"{fault.name}: broken: {why}", err=True)
                stage.heal()
            else:
                part.outcomes.append(outcome)
                wrong = sum(outcome.report.wrong.values())
                click.echo(f"{fault.name}: {f'{wrong} wrong' if wrong else 'right'}", err=True)
                for examples in outcome.report.examples.values():
                    click.echo("\n".join(examples), err=True)


async def _one(
    stage: Stage, fault: Fault[Any], display: Display, seconds: int, seed: int
) -> Outcome:
    """Deals one fault under load."""
    witnesses: list[Witness] = []

    async def beside(world: World, api: Api, over: asyncio.Event) -> None:
        witness = Witness(world, api, f"witness-{secrets.token_hex(4)}")
        witnesses.append(witness)
        await witness.run(over)

    options = Options(
        files=sorted(_SAMPLE.glob("chat_*.jsonl.gz")),
        folder=stage.folder / fault.name,
        cast=_CAST,
        messages=int(seconds * (_CAST.rate or 1)),
        running=stage,
        faults=[fault],
        within=_WITHIN,
        seed=seed,
    )
    report = await replay(options, display, beside=beside)
    (witness,) = witnesses
    return Outcome(fault, report, len(witness.acked), len(witness.refused))


def _suite(path: str, what: str) -> tuple[str, str, str]:
    click.echo(f"{path} …", err=True)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    last = run.stdout.strip().splitlines()[-1].strip("= ") if run.stdout.strip() else run.stderr
    ended = last.partition(" in ")[0]
    return path, what, ended if run.returncode == 0 else f"**{ended}**"


def _leaves(problems: BaseExceptionGroup[Exception]) -> list[BaseException]:
    found: list[BaseException] = []
    for problem in problems.exceptions:
        found += _leaves(problem) if isinstance(problem, BaseExceptionGroup) else [problem]
    return found


if __name__ == "__main__":
    main()
