"""One replay from beginning to end: start, set up, play, verify, report."""

from __future__ import annotations

import asyncio
import random
import resource
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import psutil

from tools.bench.machine import describe
from tools.stack.cluster import Cluster, ClusterOptions
from tools.stack.faults import Fault
from tools.stack.server import Server, ServerFailed
from tools.stack.stage import Stage

from .api import Api
from .board import Board
from .chaos import Chaos, Plan, plan_of
from .findings import Findings
from .ledger import Ledger
from .player import Cast, Player
from .progress import Display
from .report import Costs, Report, Room, way_of
from .script import Script, load
from .verifier import Verifier
from .world import World

_MOST_FILES: Final = 1 << 20
_STALLED_S: Final = 180.0
_WATCH_S: Final = 0.5
_EMBEDDED: Final = "`tidings-server serve` on SQLite"

Beside = Callable[[World, Api, asyncio.Event], Coroutine[None, None, None]]
"""Something that goes on during a play. The event tells when the play and all blows are over."""


class Stalled(Exception):
    """Messages are not acknowledged any more. The text tells which."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is to be done.

    Attributes:
        files: The files of conversations.
        folder: Where the store, the server's log and the states of SDK devices go.
        cast: Who plays.
        messages: The most messages to play, or None for all.
        silent_members: Whether those are members too who say nothing in what is played.
        kills: How often the server is killed.
        freezes: How often it is stopped for a while.
        seed: For random choices; the order in which things happen is the machine's all the same.
        target: The address of a server that runs already, or None to start one. Then there are no kills, and users and
            titles get a prefix of their own.
        secret: The HS256 secret of that server.
        pid: Its process id, to measure its CPU, or None.
        cluster: The cluster to be started instead of one server, or None.
        running: A stage that runs already and goes on running, or None. Users get a prefix then as well.
        faults: What is done to the cluster, or to what runs already, each once.
        within: The part of the play in which kills, freezes and faults begin.
        command: The command line, for the report.
    """

    files: list[Path]
    folder: Path
    cast: Cast
    messages: int | None = None
    silent_members: bool = True
    kills: int = 0
    freezes: int = 0
    seed: int = 0
    target: str | None = None
    secret: str = ""
    pid: int | None = None
    cluster: ClusterOptions | None = None
    running: Stage | None = None
    faults: Sequence[Fault[Any]] = ()
    within: tuple[float, float] = (0.05, 0.95)
    command: str = ""


async def replay(
    options: Options,
    display: Display,
    *,
    beside: Beside | None = None,
    before_verification: Callable[[World, Player], Awaitable[None]] | None = None,
) -> Report:
    """Plays and verifies.

    `before_verification` is for those who test the verification, to spoil something.

    Raises OSError and ValueError for files that can't be read, ServerFailed, Refused and Stalled, also in groups.
    """
    _raise_file_limit()
    prefix = f"r{secrets.token_hex(3)}." if options.target or options.running else ""
    began = datetime.now(UTC)
    script = load(
        options.files,
        messages=options.messages,
        prefix=prefix,
        silent_members=options.silent_members,
    )
    options.folder.mkdir(parents=True, exist_ok=True)
    findings = Findings()
    rng = random.Random(options.seed)
    stage = _stage(options)
    if options.target is None and options.running is None:
        took = await stage.start()
        display.say(f"the servers serve on {', '.join(stage.addresses)} after {took:.1f} s")
    known_complaints = set(stage.complaints()) if options.running else set()
    meter = _Meter(stage, options.pid)
    world = World(
        addresses=[options.target] if options.target else stage.addresses,
        secret=stage.secret,
        board=Board(script, findings),
        ledger=Ledger(findings),
        findings=findings,
        rng=rng,
    )
    api = Api(world)
    player = Player(world, api, script, options.cast, options.folder)
    report = _begin(options, script, stage, began)
    chaos = Chaos(
        world.board,
        rng,
        _plan(options, stage, rng),
        lambda: sum(device.connected for device in player.steady),
        player.spread,
        options.within,
    )
    loop = asyncio.get_running_loop()
    watching = [loop.create_task(_watch(stage))]
    if len(world.addresses) > 1:
        watching.append(loop.create_task(world.watch_health()))
    try:
        await player.gather()
        report.setup = meter.lap()
        display.say(
            f"{player.connected} devices are connected, {len(script.rooms)} rooms made"
            f" in {report.setup.seconds:.1f} s"
        )
        applied = player.applied
        async with display.playing(player, chaos):
            await _play(player, chaos, stage, beside)
        report.play = meter.lap()
        report.deliveries = player.applied - applied
        if before_verification is not None:
            await before_verification(world, player)
        verifier = Verifier(world, api, script, player, display.step)
        report.verified = await verifier.run()
        report.verification = meter.lap()
    finally:
        chaos.close()
        await player.leave()
        for task in watching:
            task.cancel()
        await asyncio.wait(watching)
        await api.close()
        if options.running is None:
            await stage.stop()
    if options.target is None:
        report.complaints = [x for x in stage.complaints() if x not in known_complaints]
        report.database = stage.database_bytes()
        if not any(fault.complains for fault in options.faults):
            for line in report.complaints:
                findings.add("fault", f"the server's log: {line[:300]}")
    _fill(report, player, chaos, stage)
    report.conclude(findings)
    return report


def _stage(options: Options) -> Server | Stage:
    """What is played against."""
    secret = options.secret or secrets.token_hex(32)
    if options.running is not None:
        return options.running
    if options.cluster is not None:
        return Cluster(options.folder, options.cluster, secret=secret)
    return Server(options.folder, secret)


def _told(stage: Server | Stage) -> str:
    return stage.told if isinstance(stage, Stage) else _EMBEDDED


def _plan(options: Options, stage: Server | Stage, rng: random.Random) -> Plan:
    if isinstance(stage, Server):
        return plan_of(stage, rng, options.kills, options.freezes)
    return [(fault.name, partial(fault.deal, stage)) for fault in options.faults]


async def _play(player: Player, chaos: Chaos, stage: Server | Stage, beside: Beside | None) -> None:
    """Everything is played, and every blow is dealt."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        guard = group.create_task(_guard(player.world.board, stage))
        blows = group.create_task(chaos.run())
        more = group.create_task(beside(player.world, player.api, over)) if beside else None
        await player.play()
        await blows
        over.set()
        if more is not None:
            await more
        guard.cancel()


def _fill(report: Report, player: Player, chaos: Chaos, stage: Server | Stage) -> None:
    """What is known afterwards."""
    world = player.world
    report.devices = len(player.steady)
    report.sdk_devices = len(player.sdk_devices)
    report.second_devices = sum(device.name == "laptop" for device in player.devices)
    report.ways = {way: way_of(took) for way, took in world.board.ack_seconds.items()}
    report.peak_rss = stage.peak_rss
    report.own_peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    report.blows = chaos.blows
    report.tally = world.tally


def _begin(options: Options, script: Script, stage: Server | Stage, began: datetime) -> Report:
    """The report, as far as it is known before."""
    return Report(
        command=options.command,
        began=began.strftime("%Y-%m-%d %H:%M UTC"),
        stage=_told(stage) if options.target is None else "a server that ran already",
        machine=describe(options.folder),
        files=script.files,
        rooms=[Room(room.name, len(room.members), len(room.rows)) for room in script.rooms],
        messages=len(script.rows),
        text_bytes=sum(len(row.text.encode()) for row in script.rows),
        people=len({member for c in script.conversations for member in c.members}),
        conversations=len(script.conversations),
        directs=sum(c.direct for c in script.conversations),
    )


class _Meter:
    """Times and CPU since the last lap."""

    def __init__(self, stage: Server | Stage, pid: int | None) -> None:
        self._stage = stage
        self._process = psutil.Process(pid) if pid is not None else None
        self._last = self._now()

    def lap(self) -> Costs:
        """What was used since the last lap."""
        now = self._now()
        last, self._last = self._last, now
        return Costs(*(a - b for a, b in zip(now, last, strict=True)))

    def _now(self) -> tuple[float, float, float]:
        cpu = self._stage.cpu_s()
        if self._process is not None:
            times = self._process.cpu_times()
            cpu = times.user + times.system
        return time.perf_counter(), cpu, time.process_time()


async def _guard(board: Board, stage: Server | Stage) -> None:
    """Raises Stalled when nothing moves any more, and ServerFailed when the server ended by itself."""
    acked, since = -1, time.monotonic()
    while True:
        if stage.ended_by_itself:
            raise ServerFailed(f"a server has ended:\n{stage.said()}")
        if board.acked != acked:
            acked, since = board.acked, time.monotonic()
        elif time.monotonic() > since + _STALLED_S:
            raise Stalled(
                f"nothing was acknowledged for {_STALLED_S:.0f} s, at {acked} of {board.total} messages;"
                f" waiting for {board.waiting()}"
            )
        await asyncio.sleep(1)


async def _watch(stage: Server | Stage) -> None:
    """Looks at the memory now and then, to know the largest."""
    while True:
        stage.cpu_s()
        await asyncio.sleep(_WATCH_S)


def _raise_file_limit() -> None:
    """Each device needs a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
