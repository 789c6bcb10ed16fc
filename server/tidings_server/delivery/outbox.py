"""The outbox: what waits to be written to one device, as joined pieces of frames.

Whatever waits is written as one frame: at once when idle, one write in flight.

There are no tasks: a write is a coroutine that the outbox runs on itself whenever what it waits for is there. A task
for each burst would cost as much again as the outbox does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from ..telemetry.counters import Counters

MAX_FRAME_BYTES = 2 << 20
"""A frame of several pieces is at most this large: clients of gRPC take 4 MiB unless they are told otherwise."""


class Sink(Protocol):
    """Where a session's frames go: a Chat stream, a WebSocket, a simulated wire."""

    def write(self, frame: bytes) -> Coroutine[Any, Any, None]:
        """Writes a frame; returns when the transport takes more. Raises ConnectionError when the
        device is gone.

        The coroutine runs in no task: it awaits futures, and does not ask for the current task, as
        asyncio.timeout would.
        """
        ...


class Outbox:
    """Collects pieces and writes them.

    `max_bytes` bounds the pieces that may be refused; results and control pieces are always taken,
    since commands are bounded elsewhere. `emptied` is called when everything was written, `lost`
    once when the device is gone.
    """

    __slots__ = (
        "_awaited",
        "_began",
        "_busy",
        "_counters",
        "_emptied",
        "_finishing",
        "_lost",
        "_max_bytes",
        "_oldest",
        "_pieces",
        "_relief",
        "_sealed",
        "_sink",
        "_size",
        "_write",
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
        # A write is under way, or about to be.
        self._busy = False
        self._write: Coroutine[Any, Any, None] | None = None
        self._awaited: asyncio.Future[Any] | None = None
        self._size = 0
        self._began = 0.0
        self._finishing: asyncio.Future[None] | None = None
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
        if not self._busy and self._pieces:
            self._busy = True
            # What else is put in this turn of the event loop goes with it.
            asyncio.get_running_loop().call_soon(self._go_on)

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
        if not self._busy and self._pieces:
            self._busy = True
            self._go_on()

    async def relieved(self) -> None:
        """Returns when the outbox is no longer congested, or is closed."""
        while self.congested and not self.closed:
            if self._relief is None:
                self._relief = asyncio.get_running_loop().create_future()
            await self._relief

    async def finish(self) -> None:
        """Returns when what waits was written, or is lost."""
        while self._busy:
            if self._finishing is None:
                self._finishing = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._finishing])

    def close(self) -> None:
        """Drops what waits; nothing is taken any more."""
        self.closed = True
        self._counters.outbox_bytes -= self.bytes
        self.bytes = 0
        self._pieces.clear()
        if self._awaited is not None and self._write is not None:
            self._awaited.remove_done_callback(self._resume)
            self._awaited.add_done_callback(_forgotten)
            self._awaited = None
            self._write.close()
            self._rest()
        self._relieve()

    def _go_on(self) -> None:
        """Writes what waits, until a write has to wait itself."""
        while self._pieces:
            frame = self._next_frame()
            self._size = len(frame)
            self._began = self._oldest
            self._write = self._sink.write(frame)
            if not self._advance():
                return
        self._rest()
        if not self.closed:
            self._emptied()

    def _resume(self, _: asyncio.Future[Any] | None) -> None:
        self._awaited = None
        # Closed in the same turn in which the future was done, it has no write any more.
        if self._write is not None and self._advance():
            self._go_on()

    def _advance(self) -> bool:
        """Runs the write on. Returns whether it has ended and the device is there."""
        assert self._write is not None
        try:
            # As a task does: the coroutine gives the future that it waits for.
            awaited: asyncio.Future[Any] | None = self._write.send(None)
        except StopIteration:
            self._written()
            return True
        except (ConnectionError, asyncio.CancelledError):
            self._gone()
            return False
        except Exception as problem:  # noqa: BLE001  # other outboxes may be flushed by the same caller
            self._gone()
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a transport is at fault", "exception": problem}
            )
            return False
        if self.closed:
            if awaited is not None:
                awaited.add_done_callback(_forgotten)
            self._write.close()
            self._rest()
        elif awaited is None:
            asyncio.get_running_loop().call_soon(self._resume, None)
        else:
            awaited._asyncio_future_blocking = False  # noqa: SLF001  # the way in which tasks await
            awaited.add_done_callback(self._resume)
            self._awaited = awaited
        return False

    def _written(self) -> None:
        counters, size = self._counters, self._size
        counters.delivery_duration_seconds.observe(asyncio.get_running_loop().time() - self._began)
        # Counted until the transport has taken them: memory is held that long.
        if not self.closed:
            self.bytes -= size
            counters.outbox_bytes -= size
        counters.frames_out += 1
        counters.frame_bytes_out += size
        if self._relief is not None and not self.congested:
            self._relieve()

    def _gone(self) -> None:
        self._rest()
        if not self.closed:
            self.close()
            self._lost()

    def _rest(self) -> None:
        self._busy = False
        self._write = None
        if self._finishing is not None:
            self._finishing.set_result(None)
            self._finishing = None

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


def _forgotten(awaited: asyncio.Future[Any]) -> None:
    """What a write waited for that was given up. asyncio would log a failure that nobody looks at as an error."""
    if not awaited.cancelled():
        awaited.exception()
