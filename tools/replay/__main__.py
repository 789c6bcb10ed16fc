"""`python -m tools.replay`: plays real conversations to many devices and verifies every one of them."""

from __future__ import annotations

import gc
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import uvloop
from rich.console import Console

# The server is started by fork and exec, which is no business of grpc's; it reads this when it is first imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from tools.stack.cassandra import CannotStart
from tools.stack.cluster import ClusterOptions
from tools.stack.faults import FAULTS
from tools.stack.server import ServerFailed

from .api import Refused
from .markdown import as_markdown
from .player import Cast
from .progress import Display
from .run import Options, Stalled, replay

_SAMPLE = Path(__file__).parents[2] / "tests" / "data" / "chat"
_PATTERNS = ("chat_*.jsonl.gz", "dialogues_*.jsonl.gz", "edge_cases.jsonl.gz")


@click.command(context_settings={"show_default": True})
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=_SAMPLE,
    show_default="the sample in tests/data/chat",
    help="The folder with the conversations.",
)
@click.option(
    "--file", "names", multiple=True, help="Only files of this name (glob); may be repeated."
)
@click.option("--messages", type=click.IntRange(1), help="The most messages to play: all.")
@click.option(
    "--silent-members/--no-silent-members",
    default=True,
    help="Whether those are members too who say nothing in what is played.",
)
@click.option("--devices", default=300, type=click.IntRange(1), help="Connected devices.")
@click.option(
    "--sdk-devices", default=10, type=click.IntRange(0), help="How many of them are the Python SDK."
)
@click.option(
    "--visitors",
    default=100,
    type=click.IntRange(0),
    help="How many other people may be connected for a while at once.",
)
@click.option(
    "--in-flight", default=256, type=click.IntRange(1), help="The most unacknowledged messages."
)
@click.option(
    "--ahead",
    default=2000,
    type=click.IntRange(1),
    help="The same with those that wait for what they answer.",
)
@click.option(
    "--in-order", is_flag=True, help="Rooms wait for each message, and so keep the files' order."
)
@click.option(
    "--speed",
    help="Times the original speed, such as 1000x; pauses are cut at a second. As fast as it goes.",
)
@click.option("--rate", type=click.FloatRange(0.1), help="Messages a second. As fast as it goes.")
@click.option("--kill", default=0, type=click.IntRange(0), help="How often to kill -9 the server.")
@click.option(
    "--stop-cont", default=0, type=click.IntRange(0), help="How often to stop it for a while."
)
@click.option(
    "--cluster",
    is_flag=True,
    help="Play against two servers on Cassandra and Redis, started here, instead of one on SQLite.",
)
@click.option(
    "--cassandra-nodes", default=3, type=click.IntRange(1, 3), help="How many nodes the ring has."
)
@click.option(
    "--fault",
    "fault_names",
    multiple=True,
    type=click.Choice([*FAULTS, "all"]),
    help="What is done to the cluster, once each; may be repeated.",
)
@click.option("--seed", default=0, help="For random choices.")
@click.option("--server", "target", help="The address of a server that runs already.")
@click.option(
    "--secret",
    envvar="TIDINGS_AUTH__HS256_SECRET",
    default="",
    show_default=False,
    help="Its HS256 secret, better given by TIDINGS_AUTH__HS256_SECRET.",
)
@click.option("--pid", type=int, help="Its process id, to measure its CPU.")
@click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the store and the server's log in this new folder.",
)
@click.option(
    "--report",
    "reports",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the report here, as Markdown or, to a name that ends in .json, as JSON.",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
def main(
    *,
    data: Path,
    names: Sequence[str],
    messages: int | None,
    silent_members: bool,
    devices: int,
    sdk_devices: int,
    visitors: int,
    in_flight: int,
    ahead: int,
    in_order: bool,
    speed: str | None,
    rate: float | None,
    kill: int,
    stop_cont: int,
    cluster: bool,
    cassandra_nodes: int,
    fault_names: Sequence[str],
    seed: int,
    target: str | None,
    secret: str,
    pid: int | None,
    store: Path | None,
    reports: Sequence[Path],
    quiet: bool,
) -> None:
    """Play real conversations to many connected devices, and verify every one of them.

    The exit code is 1 when anything is wrong, 2 when it could not be played.
    """
    files = sorted({path for name in names or _PATTERNS for path in data.glob(name)})
    if not files:
        raise click.UsageError(f"{data} has no such files")
    if target is not None and (kill or stop_cont or not secret):
        raise click.UsageError("a server that runs already needs a secret, and is not killed")
    if cluster and (kill or stop_cont or target is not None):
        raise click.UsageError("a cluster is started here, and has faults of its own: --fault")
    if fault_names and not cluster:
        raise click.UsageError("these faults are those of a cluster")
    if store is not None and store.exists() and any(store.iterdir()):
        raise click.UsageError(f"{store} is not empty")
    faults = [fault for name, fault in FAULTS.items() if {name, "all"} & set(fault_names)]
    folder = store or Path(tempfile.mkdtemp(prefix="tidings-replay-"))
    options = Options(
        files=files,
        folder=folder,
        cast=Cast(devices, sdk_devices, visitors, in_flight, ahead, in_order, _times(speed), rate),
        messages=messages,
        silent_members=silent_members,
        kills=kill,
        freezes=stop_cont,
        seed=seed,
        target=target,
        secret=secret,
        pid=pid,
        cluster=ClusterOptions(
            cassandra_nodes=cassandra_nodes,
            # They cost as much as the clients get.
            client_proxies=any(fault.of_clients for fault in faults),
        )
        if cluster
        else None,
        faults=faults,
        command=shlex.join(["python", "-m", "tools.replay", *_without_secret(sys.argv[1:])]),
    )
    # What is made here mostly stays to the end: the collector would only look at it again and again.
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)
    report, code = None, 0
    try:
        with Display(Console(stderr=True), quiet=quiet) as display:
            report = uvloop.run(replay(options, display))
    except* Stalled as problems:
        code = _tell(problems, 1)
    except* (OSError, ValueError, ServerFailed, Refused, CannotStart) as problems:
        code = _tell(problems, 2)
    finally:
        if store is None:
            shutil.rmtree(folder, ignore_errors=True)
    if report is None:
        sys.exit(code)
    for path in reports:
        path.parent.mkdir(parents=True, exist_ok=True)
        as_json = path.suffix == ".json"
        text = json.dumps(report.as_json(), indent=1) if as_json else as_markdown(report)
        path.write_text(text, encoding="utf-8")
    click.echo(as_markdown(report))
    sys.exit(0 if report.right else 1)


def _tell(problems: BaseExceptionGroup[Exception], code: int) -> int:
    """Says what went wrong, in a line each. Returns the code to exit with."""
    for problem in problems.exceptions:
        if isinstance(problem, BaseExceptionGroup):
            _tell(problem, code)
        else:
            click.echo(f"replay: {problem}", err=True)
    return code


def _times(speed: str | None) -> float | None:
    if speed is None:
        return None
    try:
        times = float(speed.removesuffix("x"))
    except ValueError:
        times = 0.0
    if not times > 0:
        raise click.BadParameter(f"{speed} is no speed such as 1000x", param_hint="--speed")
    return times


def _without_secret(arguments: list[str]) -> list[str]:
    """The arguments without a secret: they go into reports."""
    kept = []
    hide = False
    for argument in arguments:
        if hide or argument.startswith("--secret="):
            hide = False
            continue
        hide = argument == "--secret"
        if not hide:
            kept.append(argument)
    return kept


if __name__ == "__main__":
    # The store's path is the server's business; settings of a server that runs here would be those of another.
    os.environ.pop("TIDINGS_STORE__PATH", None)
    main()
