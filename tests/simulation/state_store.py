"""What a simulated device keeps on its disk: the SDK's state, with the durability that its port promises and no more.

It outlives the process. A loss of power takes back the newest of what was only "kept".
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Mapping

from tidings import StateError, StoredCursor, StoredMessage, StoredSession, StoredState

_Change = Callable[["DeviceDisk"], None]


class DeviceDisk:
    """The state of one device as it is on its disk."""

    def __init__(self) -> None:
        self.session = StoredSession()
        self.cursors: dict[str, StoredCursor] = {}
        self.messages: dict[str, StoredMessage] = {}
        self._durable: tuple[StoredSession, dict[str, StoredCursor], dict[str, StoredMessage]]
        self._kept: list[_Change] = []
        self._sync()

    def change(self, change: _Change, *, durable: bool) -> None:
        """Changes it. What is durable is so with everything before it."""
        change(self)
        if durable:
            self._sync()
        else:
            self._kept.append(change)

    def lose_power(self, rng: random.Random) -> None:
        """Takes back some of the newest changes that were only kept."""
        session, cursors, messages = self._durable
        self.session, self.cursors, self.messages = session, dict(cursors), dict(messages)
        kept = self._kept[: rng.randint(0, len(self._kept))]
        for change in kept:
            change(self)
        self._sync()

    def _sync(self) -> None:
        self._durable = (self.session, dict(self.cursors), dict(self.messages))
        self._kept = []

    def snapshot(self) -> StoredState:
        """What it holds."""
        messages = sorted(self.messages.values(), key=lambda message: message.position)
        return StoredState(self.session, tuple(self.cursors.values()), tuple(messages))


class SimStateStore:
    """A state store over a `DeviceDisk`: each call takes up to `delay` seconds and fails with the chance `failing`."""

    def __init__(
        self, disk: DeviceDisk, rng: random.Random, *, delay: float = 0.0, failing: float = 0.0
    ) -> None:
        self._disk = disk
        self._rng = rng
        self.delay = delay
        self.failing = failing
        self._last: asyncio.Future[None] | None = None

    async def open(self) -> StoredState:
        """See `StateStore`."""
        return self._disk.snapshot()

    async def add(self, messages: Collection[StoredMessage]) -> None:
        """See `StateStore`."""
        added = tuple(messages)

        def change(disk: DeviceDisk) -> None:
            disk.messages.update((message.message_id, message) for message in added)

        await self._write(change, durable=True)

    async def update(self, messages: Mapping[str, StoredMessage]) -> None:
        """See `StateStore`."""
        updated = dict(messages)

        def change(disk: DeviceDisk) -> None:
            for old_id, message in updated.items():
                if disk.messages.pop(old_id, None) is not None:
                    disk.messages[message.message_id] = message

        await self._write(change, durable=True)

    async def remove(self, message_ids: Collection[str]) -> None:
        """See `StateStore`."""
        removed = tuple(message_ids)

        def change(disk: DeviceDisk) -> None:
            for message_id in removed:
                disk.messages.pop(message_id, None)

        await self._write(change, durable=False)

    async def save_cursors(self, cursors: Collection[StoredCursor]) -> None:
        """See `StateStore`."""
        saved = tuple(cursors)

        def change(disk: DeviceDisk) -> None:
            for cursor in saved:
                if cursor.seq:
                    disk.cursors[cursor.log] = cursor
                else:
                    disk.cursors.pop(cursor.log, None)

        await self._write(change, durable=False)

    async def save_session(
        self, session: StoredSession, cursors: Collection[StoredCursor] | None = None
    ) -> None:
        """See `StateStore`."""
        saved = None if cursors is None else tuple(cursors)

        def change(disk: DeviceDisk) -> None:
            disk.session = session
            if saved is not None:
                disk.cursors = {cursor.log: cursor for cursor in saved}

        await self._write(change, durable=True)

    async def close(self) -> None:
        """See `StateStore`."""

    async def _write(self, change: _Change, *, durable: bool) -> None:
        """Carries out a change. Calls take effect in the order in which they were made."""
        before, done = self._last, asyncio.get_running_loop().create_future()
        self._last = done
        try:
            if before is not None and not before.done():
                await asyncio.shield(before)
            if self.delay:
                await asyncio.sleep(self._rng.random() * self.delay)
            if self.failing and self._rng.random() < self.failing:
                raise StateError("the device's disk failed")
            self._disk.change(change, durable=durable)
        finally:
            done.set_result(None)
