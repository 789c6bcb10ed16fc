"""The player: hands each message of the script to whoever sends it, in an order that its readers could follow.

A sender's messages keep their order, and an answer is sent when what it answers was acknowledged. Otherwise the
messages of a room go on without waiting for each other, up to a number of them; a dialogue is played one message after
the other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .api import Api
from .device import Device
from .script import Conversation, Row, Script
from .sdk_device import SdkDevice
from .senders import Callers, Visitors
from .world import World

_LONGEST_PAUSE_S: Final = 1.0
_DIALOGUES_AT_ONCE: Final = 64
_ARRIVALS_AT_ONCE: Final = 32
_CALLS_AT_MOST: Final = 3
_GATHER_S: Final = 120.0
_CATCH_UP_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Cast:
    """How many devices of which kind, and how fast.

    Attributes:
        devices: Connected devices, those of the SDK included. One in ten belongs to somebody who has another, comes
            in the middle of the play, and fetches what it has missed.
        sdk_devices: How many of them are clients of the Python SDK.
        visitors: How many people of the others may be connected for a while at the same time. Those with three
            messages or fewer send them by unary calls.
        in_flight: The most messages that are sent and not acknowledged.
        ahead: The most messages that are not acknowledged, those included that wait for what they answer. It bounds
            how far a room leaves the order of its file.
        in_order: Whether a room waits for each message to be acknowledged, so that it keeps the order of the script.
        speed: Times the original speed, or None for as fast as it goes.
        rate: Messages a second, or None for as fast as it goes.
    """

    devices: int = 300
    sdk_devices: int = 10
    visitors: int = 100
    in_flight: int = 256
    ahead: int = 2000
    in_order: bool = False
    speed: float | None = None
    rate: float | None = None


@dataclass(slots=True)
class Player:
    """Plays a script with a cast. `folder` is where devices of the SDK keep their state."""

    world: World
    api: Api
    script: Script
    cast: Cast
    folder: Path
    devices: list[Device] = field(default_factory=list)
    sdk_devices: list[SdkDevice] = field(default_factory=list)
    visitors: Visitors = field(init=False)
    _callers: Callers = field(init=False)
    _by_user: dict[str, Device | SdkDevice] = field(default_factory=dict)
    _latecomers: list[Device] = field(default_factory=list)
    _messages_of: dict[str, int] = field(init=False)
    _slots: asyncio.Semaphore = field(init=False)
    _ahead: asyncio.Semaphore = field(init=False)
    _group: asyncio.TaskGroup | None = None
    _next_beat: float = 0.0
    _waiting: dict[tuple[str, str], deque[Row]] = field(default_factory=dict)
    """By conversation and sender, messages that wait for what they answer, and those after them."""

    def __post_init__(self) -> None:
        self._messages_of = self.script.by_activity()
        self.visitors = Visitors(self.world, self.cast.visitors)
        self._callers = Callers(self.world, self.api)
        self._slots = asyncio.Semaphore(self.cast.in_flight)
        self._ahead = asyncio.Semaphore(max(self.cast.ahead, self.cast.in_flight))
        self.world.board.on_ack = self._acked

    def _acked(self, _: Row) -> None:
        self._slots.release()
        self._ahead.release()

    @property
    def steady(self) -> list[Device | SdkDevice]:
        """The devices that are there to the end."""
        return [*self.devices, *self.sdk_devices]

    @property
    def connected(self) -> int:
        """How many devices are connected now."""
        return sum(device.connected for device in self.steady) + self.visitors.connected

    @property
    def applied(self) -> int:
        """How many entries all devices have applied, those of visitors included."""
        everybody = [*self.steady, *self.visitors.devices]
        return sum(device.records.applied for device in everybody)

    # Before the play

    async def gather(self) -> None:
        """The steady devices connect, and then the rooms are made with all their members."""
        people = list(self._messages_of)
        count = min(self.cast.devices, len(people))
        seconds = min(count // 10, len(people))
        first = people[: count - seconds]
        for number, user in enumerate(first):
            # Spread over the ranks, so that the SDK sends much as well as little.
            step = max(1, len(first) // max(1, self.cast.sdk_devices))
            if number % step == 0 and len(self.sdk_devices) < self.cast.sdk_devices:
                # One keeps its state in a file, the next in memory.
                keeps = len(self.sdk_devices) % 2 == 0
                state = self.folder / f"sdk-{len(self.sdk_devices)}.db" if keeps else None
                sdk = SdkDevice(self.world, user, "phone", state)
                self.sdk_devices.append(sdk)
                self._by_user[user] = sdk
            else:
                device = Device(self.world, user, "phone", fetches=self.api)
                self.devices.append(device)
                self._by_user[user] = device
        self._latecomers = [
            Device(self.world, user, "laptop", fetches=self.api) for user in first[:seconds]
        ]
        for begin in range(0, len(self.devices), _ARRIVALS_AT_ONCE):
            some = self.devices[begin : begin + _ARRIVALS_AT_ONCE]
            for device in some:
                device.start()
            await _all_connected(some)
        for sdk in self.sdk_devices:
            await sdk.start()
        await _all_connected(self.sdk_devices)
        for room in self.script.rooms:
            await self.api.create(room)

    # The play

    async def play(self) -> None:
        """Plays everything; returns when every message was acknowledged."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            late = group.create_task(self._come_late())
            for room in self.script.rooms:
                group.create_task(self._room(room))
            dialogues = iter(self.script.dialogues)
            for _ in range(_DIALOGUES_AT_ONCE):
                group.create_task(self._dialogues(dialogues))
            group.create_task(self._end(late))

    async def _end(self, late: asyncio.Task[None]) -> None:
        await self.world.board.reached(self.world.board.total)
        await late
        await self.visitors.leave()

    async def _come_late(self) -> None:
        """Second devices come one by one, over the middle of the play, without having seen its beginning."""
        board = self.world.board
        for number, device in enumerate(self._latecomers):
            share = 0.2 + 0.6 * number / len(self._latecomers)
            await board.reached(int(board.total * share))
            self.devices.append(device)
            device.start()

    async def _room(self, room: Conversation) -> None:
        pace = _Pace(self.cast.speed)
        for row in room.rows:
            await pace.wait(row)
            await self._beat()
            await self._ahead.acquire()
            await self._in_turn(row)
            if self.cast.in_order:
                await self.world.board.done(row)

    async def _dialogues(self, dialogues: Iterator[Conversation]) -> None:
        for dialogue in dialogues:
            await self.api.create(dialogue)
            pace = _Pace(self.cast.speed)
            for row in dialogue.rows:
                await pace.wait(row)
                await self._beat()
                await self._ahead.acquire()
                await self._send(row)
                await self.world.board.done(row)

    async def _beat(self) -> None:
        """Waits for the turn of the next message, whoever sends it."""
        if self.cast.rate is None:
            return
        now = asyncio.get_running_loop().time()
        self._next_beat = max(self._next_beat, now - _CATCH_UP_S) + 1 / self.cast.rate
        if self._next_beat > now:
            await asyncio.sleep(self._next_beat - now)

    async def _in_turn(self, row: Row) -> None:
        """Sends a message now, or after what it answers and after those of its sender that wait for such."""
        board = self.world.board
        key = (row.conversation.id, row.sender)
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(row)
        elif row.reply_to is not None and not board.is_done(row.reply_to):
            waiting = self._waiting[key] = deque([row])
            assert self._group is not None
            self._group.create_task(self._send_waiting(key, waiting))
        else:
            await self._send(row)

    async def _send_waiting(self, key: tuple[str, str], waiting: deque[Row]) -> None:
        while waiting:
            row = waiting[0]
            if row.reply_to is not None:
                await self.world.board.done(row.reply_to)
            await self._send(row)
            waiting.popleft()
        del self._waiting[key]

    async def _send(self, row: Row) -> None:
        await self._slots.acquire()
        board = self.world.board
        device = self._by_user.get(row.sender)
        if device is not None:
            board.begin(row, "sdk" if isinstance(device, SdkDevice) else "device")
            device.post(row)
        elif self.cast.visitors and self._messages_of[row.sender] > _CALLS_AT_MOST:
            board.begin(row, "visitor")
            await self.visitors.post(row)
        else:
            board.begin(row, "call")
            self._callers.post(row)

    def spread(self, since: float) -> None:
        """Devices that have connected since a moment go back to their own servers."""
        if len(self.world.addresses) > 1:
            for device in self.devices:
                device.move(since)

    async def leave(self) -> None:
        """All devices leave."""
        await asyncio.gather(
            *(device.stop() for device in self.devices),
            *(device.stop() for device in self.sdk_devices),
        )


class _Pace:
    """Keeps the pauses between the messages of a conversation, shortened, and long ones cut."""

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._last: float | None = None
        self._next = 0.0

    async def wait(self, row: Row) -> None:
        """Waits until it is time for a message."""
        if self._speed is None or row.at is None:
            return
        now = asyncio.get_running_loop().time()
        if self._last is None:
            self._next = now
        else:
            pause = max(0.0, row.at - self._last) / self._speed
            self._next += min(pause, _LONGEST_PAUSE_S)
        self._last = row.at
        if self._next > now:
            await asyncio.sleep(self._next - now)


async def _all_connected(devices: Sequence[Device | SdkDevice]) -> None:
    async with asyncio.timeout(_GATHER_S):
        # Only before the play: not worth an event that devices would have to set.
        while not all(device.connected for device in devices):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
