"""A person with a device that comes back whenever it is cut off, sends again what was not acknowledged, and keeps what
it applies: the least that a client must do, and all that is needed for exactly once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc.aio

from tests.integration.wire import Device, error_of, new_id, reason_name
from tidings.v1 import event_pb2

AGAIN = {
    "STORE_UNAVAILABLE",
    "OUTCOME_UNKNOWN",
    "PREDECESSOR_MISSING",
    "TOO_MANY_IN_FLIGHT",
    "DRAINING",
}


@dataclass
class Post:
    """A message on its way. It keeps its id over all attempts."""

    log: str
    text: str
    after: str
    change_id: str = field(default_factory=new_id)
    seq: int = 0


class Person:
    """One user with one device. `address` tells where the server is now, or "" while there is none."""

    def __init__(self, user: str, address: Callable[[], str], logs: list[str]) -> None:
        self.user = user
        self.logs = logs
        self.posts: list[Post] = []
        self.waiting: list[Post] = []
        self.applied: dict[str, list[event_pb2.Event]] = {}
        self.refused: list[str] = []
        self.sessions = 0
        self.stopping = False
        self._address = address
        self._last: dict[str, str] = {}
        self._open: dict[int, Post] = {}
        self._stale = False
        self._task = asyncio.get_running_loop().create_task(self._live())

    def post(self, log: str) -> None:
        """Says something, after what was said before in this conversation."""
        made = Post(log, f"{self.user} says {len(self.posts)}", self._last.get(log, ""))
        self._last[log] = made.change_id
        self.posts.append(made)
        self.waiting.append(made)

    async def stop(self) -> None:
        self.stopping = True
        await self._task

    def level(self, heads: dict[str, int]) -> bool:
        """Whether everything is sent and everything has come."""
        return not self.waiting and all(
            len(self.applied.get(log, [])) == heads[log] for log in self.logs
        )

    async def _live(self) -> None:
        while not self.stopping:
            address = self._address()
            if address:
                device = Device(address, self.user)
                try:
                    await self._session(device)
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError, ConnectionError):
                    pass
                finally:
                    await device.close()
            await asyncio.sleep(0.02)

    async def _session(self, device: Device) -> None:
        self._open.clear()
        read = 0
        cursors = {log: len(entries) for log, entries in self.applied.items()}
        await device.open(cursors, synced=False)
        self.sessions += 1
        await device.until(lambda: device.events or device.ended)
        sent: set[str] = set()
        acked = dict(cursors)
        while not self.stopping and device.ended is None:
            while read < len(device.events):
                self._take(device.events[read])
                read += 1
            if self._stale:
                # Something was not taken: all of it again, in order, once nothing is on its way.
                if not self._open:
                    self._stale = False
                    sent.clear()
            else:
                for made in self.waiting:
                    if made.change_id not in sent and len(self._open) < 50:
                        sent.add(made.change_id)
                        command = device.message(
                            made.log, made.text, change_id=made.change_id, after=made.after
                        )
                        self._open[command.command_id] = made
                        await device.send(command)
            positions = {log: len(entries) for log, entries in self.applied.items()}
            news = [(log, seq) for log, seq in positions.items() if acked.get(log) != seq]
            if news:
                await device.send(acks=news)
                acked.update(news)
            await asyncio.sleep(0.01)

    def _take(self, event: event_pb2.Event) -> None:
        match event.WhichOneof("event"):
            case "entry":
                entries = self.applied.setdefault(event.entry.conversation_id, [])
                assert event.entry.seq == len(entries) + 1, "a gap or a double"
                entries.append(event)
            case "gap" | "skipped":
                raise AssertionError("nothing is hidden here, and no backlog is that long")
            case "result" if event.result.command_id in self._open:
                made = self._open.pop(event.result.command_id)
                if event.result.HasField("send_message"):
                    made.seq = event.result.send_message.seq
                    self.waiting.remove(made)
                else:
                    code, reason, _ = error_of(event.result)
                    assert reason in AGAIN, (code, reason)
                    self.refused.append(reason)
                    self._stale = True
            case "session_ended":
                assert event.session_ended.reconnect, reason_name(event.session_ended.error.reason)
