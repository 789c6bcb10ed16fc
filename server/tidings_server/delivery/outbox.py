"""The outbox: what waits to be written to one device, as joined pieces of frames.

Whatever waits is written as one frame: at once when idle, one write in flight. There is no writer
task that waits: a burst makes one when it begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from ..telemetry.counters import Counters

MAX_FRAME_BYTES = 2 << 20
"""A frame of several pieces is at most this large: clients of gRPC take 4 MiB unless they are told otherwise."""


class Sink(Protocol):
    """Where a session's frames go: a Chat stream, a WebSocket, a simulated wire."""

    async def write(self, frame: bytes) -> None:
        """Writes a frame; returns when the transport takes more. Raises ConnectionError when the
        device is gone.
        """
        ...


class Outbox:
    """Collects pieces and writes them.

    `max_bytes` bounds the pieces that may be refused; results and control pieces are always taken,
    since commands are bounded elsewhere. `emptied` is called when everything was written, `lost`
    once when the device is gone.
    """

    __slots__ = (
        "_counters",
        "_emptied",
        "_flushing",
        "_lost",
        "_max_bytes",
        "_oldest",
        "_pieces",
        "_relief",
        "_sealed",
        "_sink",
        "bytes",
        "closed",
    )

    def __init__(
        self,
        sink: Sink,
        max_bytes: int,
        counters: Counters,
        emptied: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self._sink = sink
        self._max_bytes = max_bytes
        self._counters = counters
        self._emptied = emptied
        self._lost = lost
        self._pieces: list[bytes] = []
        self._flushing: asyncio.Task[None] | None = None
        self._relief: asyncio.Future[None] | None = None
        self._oldest = 0.0
        self._sealed = False
        self.bytes = 0
        self.closed = False

    def room(self, size: int) -> bool:
        """Whether a piece of this size may be put, of those that may be refused."""
        return self.bytes + size <= self._max_bytes or not self.bytes

    @property
    def congested(self) -> bool:
        """Whether so much waits that nothing should be read from the device."""
        return self.bytes > self._max_bytes

    def put(self, piece: bytes) -> None:
        """Takes a piece and sees that it is written."""
        self.put_deferred(piece)
        if self._flushing is None:
            self.flush()

    def put_last(self, piece: bytes) -> None:
        """Takes a piece after which nothing is taken any more."""
        self.put(piece)
        self._sealed = True

    def put_deferred(self, piece: bytes) -> None:
        """Takes a piece; whoever puts it calls `flush` soon."""
        if self.closed or self._sealed:
            return
        if not self._pieces:
            self._oldest = asyncio.get_running_loop().time()
        self._pieces.append(piece)
        size = len(piece)
        self.bytes += size
        self._counters.outbox_bytes += size

    def flush(self) -> None:
        """Begins to write what waits, unless a write is under way, which goes on with it."""
        if self._flushing is None and self._pieces and not self.closed:
            self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def relieved(self) -> None:
        """Returns when the outbox is no longer congested, or is closed."""
        while self.congested and not self.closed:
            if self._relief is None:
                self._relief = asyncio.get_running_loop().create_future()
            await self._relief

    async def finish(self) -> None:
        """Returns when what waits was written, or is lost."""
        while self._flushing is not None:
            await asyncio.wait([self._flushing])

    def close(self) -> None:
        """Drops what waits; nothing is taken any more."""
        self.closed = True
        self._counters.outbox_bytes -= self.bytes
        self.bytes = 0
        self._pieces.clear()
        if self._flushing is not None:
            self._flushing.cancel()
        self._relieve()

    async def _flush(self) -> None:
        counters, loop = self._counters, asyncio.get_running_loop()
        try:
            while self._pieces:
                frame = self._next_frame()
                began = self._oldest
                await self._sink.write(frame)
                counters.delivery_duration_seconds.observe(loop.time() - began)
                size = len(frame)
                # Counted until the transport has taken them: memory is held that long.
                if not self.closed:
                    self.bytes -= size
                    counters.outbox_bytes -= size
                counters.frames_out += 1
                counters.frame_bytes_out += size
                if self._relief is not None and not self.congested:
                    self._relieve()
        except ConnectionError:
            self._flushing = None
            self.close()
            self._lost()
            return
        finally:
            self._flushing = None
        self._emptied()

    def _next_frame(self) -> bytes:
        pieces = self._pieces
        if len(pieces) == 1:
            return pieces.pop()
        count = len(pieces)
        if self.bytes > MAX_FRAME_BYTES:
            size = count = 0
            for piece in pieces:
                size += len(piece)
                if count and size > MAX_FRAME_BYTES:
                    break
                count += 1
        frame = b"".join(pieces[:count])
        del pieces[:count]
        return frame

    def _relieve(self) -> None:
        if self._relief is not None and not self._relief.done():
            self._relief.set_result(None)
        self._relief = None
