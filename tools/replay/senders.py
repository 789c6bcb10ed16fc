"""People who are not connected all the time: visitors, who come, say what they have to say and leave, and callers, who
send each message by a unary call.
"""

from __future__ import annotations

import asyncio
from typing import Final

from .api import Api, Refused
from .device import Device
from .script import Row
from .world import World

_CATCH_UP: Final = 20


class Visitors:
    """Devices of less active people: at most `room` at once, the longest idle leaves first.

    Each keeps its records when it leaves, and resumes from there when it comes again.
    """

    def __init__(self, world: World, room: int) -> None:
        self._world = world
        self._room = room
        self._here: dict[str, Device] = {}
        self._known: dict[str, Device] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}

    @property
    def devices(self) -> list[Device]:
        """All that ever came."""
        return list(self._known.values())

    @property
    def connected(self) -> int:
        """How many are here."""
        return sum(device.connected for device in self._here.values())

    async def post(self, row: Row) -> None:
        """Sends a message; returns when it is on its way."""
        user = row.sender
        device = self._here.get(user)
        if device is None:
            device = await self._arrive(user)
        device.last_used = asyncio.get_running_loop().time()
        device.post(row)

    async def leave(self) -> None:
        """All leave."""
        for device in list(self._here.values()):
            self._dismiss(device)
        await asyncio.gather(*self._leaving.values())

    async def _arrive(self, user: str) -> Device:
        leaving = self._leaving.get(user)
        if leaving is not None:
            await leaving
        device = self._here.get(user)
        if device is not None:
            return device
        idle = [device for device in self._here.values() if not device.busy]
        idle.sort(key=lambda device: device.last_used)
        for one in idle[: max(0, len(self._here) + 1 - self._room)]:
            self._dismiss(one)
        device = self._known.get(user)
        if device is None:
            device = Device(self._world, user, "visit", catch_up_limit=_CATCH_UP, fetches=None)
            self._known[user] = device
        self._here[user] = device
        self._world.tally.visits += 1
        device.start()
        return device

    def _dismiss(self, device: Device) -> None:
        del self._here[device.user]
        task = asyncio.get_running_loop().create_task(device.stop())
        self._leaving[device.user] = task
        task.add_done_callback(lambda _: self._leaving.pop(device.user, None))


class Callers:
    """People who send by unary calls, each one message after the other."""

    def __init__(self, world: World, api: Api) -> None:
        self._world = world
        self._api = api
        self._last: dict[str, asyncio.Task[None]] = {}

    def post(self, row: Row) -> None:
        """Sends a message after all that its sender has sent before."""
        before = self._last.get(row.sender)
        task = asyncio.get_running_loop().create_task(self._send(row, before))
        self._last[row.sender] = task
        task.add_done_callback(lambda done: self._forget(row.sender, done))

    async def _send(self, row: Row, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        board = self._world.board
        message_id = self._world.new_id()
        board.name(row, message_id)
        try:
            board.ack(row, await self._api.send(row, message_id, board.reply_id(row)))
        except Refused as problem:
            board.fail(row, str(problem))

    def _forget(self, user: str, done: asyncio.Task[None]) -> None:
        if self._last.get(user) is done:
            del self._last[user]
