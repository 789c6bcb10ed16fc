"""A device of the load client: one connection with one Chat stream. It acknowledges as the SDK does and checks what
it gets.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from .frames import FrameReader, Received, ack_frame, hello_frame
from .ledger import Ledger

CHAT = "/tidings.v1.ChatService/Chat"
WINDOW = 1024
ACK_AFTER_S = 0.1
CHANNEL_OPTIONS: Sequence[tuple[str, int]] = (
    # As in the SDK: fixed windows of 1 MiB instead of measured ones.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 20),
    # A connection for each device.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 64 << 20),
)


def ignore(_: Received) -> None:
    """Does nothing with a frame."""


class Device:
    """One device of a user.

    `on_frame` is called with each frame after its entries were checked and applied. `ended` is set when the stream is
    over.
    """

    def __init__(
        self, user: str, token: str, ledger: Ledger, reader: FrameReader, name: str = ""
    ) -> None:
        self.user = user
        self.name = name or user
        self.on_frame: Callable[[Received], None] = ignore
        self.ended = asyncio.Event()
        self.incarnation = ""
        self.frames_sent = 0
        self.frames_got = 0
        self._token = token
        self._ledger = ledger
        self._reader = reader
        self.cursors = ledger.device(self.name)
        self._synced: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None
        self._reading: asyncio.Task[None] | None = None
        self._pending: list[bytes] = []
        self._writing: asyncio.Task[None] | None = None
        self._unacked: dict[str, int] = {}
        self._unacked_count = 0
        self._ack_timer: asyncio.TimerHandle | None = None

    async def open(self, address: str, metadata: Sequence[tuple[str, str]] = ()) -> None:
        """Opens the connection and the stream; returns when the connection is there."""
        self.ended.clear()
        self._pending.clear()
        self._unacked.clear()
        self._unacked_count = 0
        self._synced = asyncio.get_running_loop().create_future()
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        await self._channel.channel_ready()
        self._call = self._channel.stream_stream(CHAT)(
            metadata=(("authorization", f"Bearer {self._token}"), *metadata)
        )
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def hello(self, *, resume: bool = False) -> None:
        """Says hello and returns when the device is level. Raises ConnectionError when the stream ends first."""
        cursors = dict(self.cursors) if resume else {}
        self.send(hello_frame(cursors, self.incarnation, WINDOW))
        await self._synced

    def send(self, frame: bytes) -> None:
        """Writes a frame, together with others that wait while a write is under way."""
        self._pending.append(frame)
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def close(self) -> None:
        """Ends the stream and the connection."""
        self._stop_acks()
        tasks = [task for task in (self._reading, self._writing) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._channel is not None:
            await self._channel.close()

    async def _write(self) -> None:
        try:
            while self._pending:
                pending, self._pending = self._pending, []
                self.frames_sent += 1
                await self._call.write(pending[0] if len(pending) == 1 else b"".join(pending))
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            # The reader learns of it too.
            self._pending.clear()
        finally:
            self._writing = None

    async def _read(self) -> None:
        call = self._call
        try:
            while True:
                frame = await call.read()
                if frame is grpc.aio.EOF:
                    break
                self.frames_got += 1
                self._take(self._reader.read(frame))
        except grpc.aio.AioRpcError:
            pass
        except Exception as problem:
            # Whatever it is, nothing more is read: no run may pass for that.
            self._ledger.problem(f"{self.name}: {problem!r}")
            raise
        finally:
            self._stop_acks()
            if not self._synced.done():
                self._synced.set_exception(ConnectionError(f"{self.name}: the stream has ended"))
                with contextlib.suppress(ConnectionError):
                    self._synced.result()
            self.ended.set()

    def _take(self, received: Received) -> None:
        for entry in received.entries:
            self._ledger.entry(self.name, self.cursors, entry)
            self._unacked[entry[0]] = entry[1]
        if received.entries:
            self._unacked_count += len(received.entries)
            if self._unacked_count >= WINDOW // 4:
                self._ack()
            elif self._ack_timer is None:
                self._ack_timer = asyncio.get_running_loop().call_later(ACK_AFTER_S, self._ack)
        if received.incarnation:
            self.incarnation = received.incarnation
        for gap in received.gaps:
            self._ledger.problem(f"{self.name}: {gap}")
        if received.ended:
            self._ledger.problem(f"{self.name}: session ended: {received.ended}")
        self.on_frame(received)
        if received.synced and not self._synced.done():
            self._synced.set_result(None)

    def _ack(self) -> None:
        self._stop_acks()
        if not self.ended.is_set():
            self.send(ack_frame(self._unacked))
        self._unacked.clear()
        self._unacked_count = 0

    def _stop_acks(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
