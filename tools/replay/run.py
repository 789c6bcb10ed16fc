"""One replay from beginning to end: start, set up, play, verify, report."""

from __future__ import annotations

import asyncio
import random
import resource
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil

from tools.bench.machine import describe

from .api import Api
from .board import Board
from .chaos import Chaos
from .findings import Findings
from .ledger import Ledger
from .player import Cast, Player
from .progress import Display
from .report import Costs, Report, Room, way_of
from .script import load
from .server import Server, ServerFailed
from .verifier import Verifier
from .world import World

_MOST_FILES: Final = 1 << 20
_STALLED_S: Final = 180.0


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
        kills: How often the server is killed.
        freezes: How often it is stopped for a while.
        seed: For random choices; the order in which things happen is the machine's all the same.
        target: The address of a server that runs already, or None to start one. Then there are no kills, and users and
            titles get a prefix of their own.
        secret: The HS256 secret of that server.
        pid: Its process id, to measure its CPU, or None.
        command: The command line, for the report.
    """

    files: list[Path]
    folder: Path
    cast: Cast
    messages: int | None = None
    kills: int = 0
    freezes: int = 0
    seed: int = 0
    target: str | None = None
    secret: str = ""
    pid: int | None = None
    command: str = ""


async def replay(
    options: Options,
    display: Display,
    *,
    before_verification: Callable[[World, Player], Awaitable[None]] | None = None,
) -> Report:
    """Plays and verifies. `before_verification` is for those who test the verification, to spoil something.

    Raises OSError and ValueError for files that can't be read, ServerFailed, Refused and Stalled, also in groups.
    """
    _raise_file_limit()
    prefix = f"r{secrets.token_hex(3)}." if options.target else ""
    began = datetime.now(UTC)
    script = load(options.files, messages=options.messages, prefix=prefix)
    options.folder.mkdir(parents=True, exist_ok=True)
    findings = Findings()
    rng = random.Random(options.seed)
    server = Server(options.folder, options.secret or secrets.token_hex(32))
    if options.target is None:
        took = await server.start()
        display.say(f"the server serves on {server.target} after {took:.1f} s")
    meter = _Meter(server, options.pid)
    world = World(
        target=options.target or server.target,
        secret=server.secret,
        board=Board(script, findings),
        ledger=Ledger(findings),
        findings=findings,
        rng=rng,
    )
    api = Api(world)
    player = Player(world, api, script, options.cast, options.folder)
    report = Report(
        command=options.command,
        began=began.strftime("%Y-%m-%d %H:%M UTC"),
        machine=describe(options.folder),
        files=script.files,
        rooms=[Room(room.name, len(room.members), len(room.rows)) for room in script.rooms],
        messages=len(script.rows),
        text_bytes=sum(len(row.text.encode()) for row in script.rows),
        people=len({member for c in script.conversations for member in c.members}),
        conversations=len(script.conversations),
        directs=sum(c.direct for c in script.conversations),
    )
    chaos = Chaos(
        server,
        world.board,
        rng,
        options.kills,
        options.freezes,
        lambda: sum(device.connected for device in player.steady),
    )
    watching = asyncio.get_running_loop().create_task(_watch(server))
    try:
        await player.gather()
        report.setup = meter.lap()
        display.say(
            f"{player.connected} devices are connected, {len(script.rooms)} rooms made"
            f" in {report.setup.seconds:.1f} s"
        )
        applied = player.applied
        async with display.playing(player, chaos), asyncio.TaskGroup() as group:
            guard = group.create_task(_guard(world.board, server))
            blows = group.create_task(chaos.run())
            await player.play()
            await blows
            guard.cancel()
        report.play = meter.lap()
        report.deliveries = player.applied - applied
        if before_verification is not None:
            await before_verification(world, player)
        verifier = Verifier(world, api, script, player, display.step)
        report.verified = await verifier.run()
        report.verification = meter.lap()
    finally:
        chaos.close()
        watching.cancel()
        await player.leave()
        await api.close()
        await server.stop()
    if options.target is None:
        report.complaints = server.complaints()
        report.database = server.database_bytes()
        for line in report.complaints:
            findings.add("fault", f"the server's log: {line[:300]}")
    report.devices = len(player.steady)
    report.sdk_devices = len(player.sdk_devices)
    report.second_devices = sum(device.name == "laptop" for device in player.devices)
    report.ways = {way: way_of(took) for way, took in world.board.ack_seconds.items()}
    report.peak_rss = server.peak_rss
    report.own_peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    report.blows = chaos.blows
    report.tally = world.tally
    report.conclude(findings)
    return report


class _Meter:
    """Times and CPU since the last lap."""

    def __init__(self, server: Server, pid: int | None) -> None:
        self._server = server
        self._process = psutil.Process(pid) if pid is not None else None
        self._last = self._now()

    def lap(self) -> Costs:
        """What was used since the last lap."""
        now = self._now()
        last, self._last = self._last, now
        return Costs(*(a - b for a, b in zip(now, last, strict=True)))

    def _now(self) -> tuple[float, float, float]:
        cpu = self._server.cpu_s()
        if self._process is not None:
            times = self._process.cpu_times()
            cpu = times.user + times.system
        return time.perf_counter(), cpu, time.process_time()


async def _guard(board: Board, server: Server) -> None:
    """Raises Stalled when nothing moves any more, and ServerFailed when the server ended by itself."""
    acked, since = -1, time.monotonic()
    while True:
        if server.ended_by_itself:
            raise ServerFailed(f"the server has ended:\n{server.said()}")
        if board.acked != acked:
            acked, since = board.acked, time.monotonic()
        elif time.monotonic() > since + _STALLED_S:
            raise Stalled(
                f"nothing was acknowledged for {_STALLED_S:.0f} s, at {acked} of {board.total} messages;"
                f" waiting for {board.waiting()}"
            )
        await asyncio.sleep(1)


async def _watch(server: Server) -> None:
    """Looks at the server's memory now and then, to know the largest."""
    while True:
        server.cpu_s()
        await asyncio.sleep(0.5)


def _raise_file_limit() -> None:
    """Each device needs a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
