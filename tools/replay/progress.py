"""Progress on a terminal, or a line now and then where there is none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .chaos import Chaos
from .player import Player

_REFRESH_S: Final = 0.5
_LINE_S: Final = 15.0


class Display:
    """Shows how far a replay is. `quiet` shows nothing."""

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self._console = console
        self._quiet = quiet
        self._bar = not quiet and console.is_terminal
        self._lines = not quiet and not console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[more]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not self._bar,
        )
        self._tasks: dict[str, TaskID] = {}
        self._said = ""

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """A line of its own."""
        if not self._quiet:
            self._console.print(text, highlight=False, markup=False)

    def step(self, what: str, done: int, total: int, more: str = "") -> None:
        """How far a step is."""
        task = self._tasks.get(what)
        if task is None:
            task = self._tasks[what] = self._progress.add_task(what, total=total, more=more)
        self._progress.update(task, completed=done, total=total, more=more)
        if self._lines and done == total and self._said != what:
            self._said = what
            self.say(f"{what}: {total}")

    @contextlib.asynccontextmanager
    async def playing(self, player: Player, chaos: Chaos) -> AsyncIterator[None]:
        """Follows a play until the context is left."""
        task = asyncio.get_running_loop().create_task(self._follow(player, chaos))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _follow(self, player: Player, chaos: Chaos) -> None:
        loop = asyncio.get_running_loop()
        board = player.world.board
        last, last_acked, last_applied, next_line = loop.time(), 0, 0, 0.0
        while True:
            await asyncio.sleep(_REFRESH_S)
            now, acked, applied = loop.time(), board.acked, player.applied
            passed = now - last
            more = (
                f"{(acked - last_acked) / passed:,.0f} messages/s,"
                f" {(applied - last_applied) / passed:,.0f} deliveries/s,"
                f" slowest device {slowest(player):,} behind,"
                f" {player.connected} connected, {len(chaos.blows)} blows"
            )
            if chaos.now:
                more += f" ({chaos.now}!)"
            last, last_acked, last_applied = now, acked, applied
            self.step("play", acked, board.total, more)
            if self._lines and now >= next_line:
                next_line = now + _LINE_S
                self.say(f"{acked:,} of {board.total:,}; {more}")


def slowest(player: Player) -> int:
    """How many entries the device is behind that is furthest from the heads of the rooms."""
    heads = player.world.board.heads
    rooms = [(room.id, heads.get(room.id, 0)) for room in player.script.rooms]
    behind = 0
    for device in player.steady:
        logs = device.records.logs
        for room, head in rooms:
            record = logs.get(room)
            if record is not None and head - record.seq > behind:
                behind = head - record.seq
    return behind
