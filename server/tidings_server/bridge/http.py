"""HTTP connections: uvicorn's, with bounds on how many there are, how often they come, and how slow they may be."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .gate import Rates

REQUEST_WITHIN_S = 30.0
MAX_HEAD_BYTES = 65_536
STALL_S = 15.0
DRAINED = "tidings.drained"
"""An extension of the ASGI scope: its `wait` returns when the client has taken nearly all that was written."""
_LINGER_S = 2.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What holds for connections. `rates` is None where they are a proxy's: it tells whose they are."""

    max_connections: int
    rates: Rates | None


class HttpConnection(HttpToolsProtocol):
    """One connection. A request must be there, with its body, within some time of its beginning."""

    def __init__(self, bounds: Bounds, open_now: dict[Any, None], **given: Any) -> None:
        super().__init__(**given)
        self._bounds = bounds
        self._open_now = open_now
        self._refusal: HTTPStatus | None = None
        self._refused = False
        self._deadline: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_bytes = 0
        self._stall: asyncio.TimerHandle | None = None
        self._unwritten = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        bounds = self._bounds
        if len(self.connections) + len(self._open_now) > bounds.max_connections:
            self._refusal = HTTPStatus.SERVICE_UNAVAILABLE
        elif bounds.rates is not None and not bounds.rates.take(str(peer[0]) if peer else ""):
            self._refusal = HTTPStatus.TOO_MANY_REQUESTS
        self._hurry(REQUEST_WITHIN_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._no_hurry()
        self._no_stall()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        # Not before the request is there: bytes that nobody has read would cut off the answer.
        if self._refusal is not None:
            self._refuse(self._refusal)
            self.transport.close()
            return
        if self._refused:
            return
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                # What comes still is read and dropped for a while: closing at once would cut off the answer.
                if self.transport.can_write_eof():
                    self.transport.write_eof()
                self._hurry(_LINGER_S)

    def on_message_begin(self) -> None:
        """See `HttpToolsProtocol`."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._hurry(REQUEST_WITHIN_S)

    def on_headers_complete(self) -> None:
        """See `HttpToolsProtocol`."""
        self._in_head = False
        self.scope["extensions"] = {DRAINED: {"wait": self.flow.drain}}
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """See `HttpToolsProtocol`."""
        self._no_hurry()
        super().on_message_complete()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().pause_writing()
        self._unwritten = self.transport.get_write_buffer_size()
        self._stall = self.loop.call_later(STALL_S, self._stalled)

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().resume_writing()
        self._no_stall()

    def timeout_keep_alive_handler(self) -> None:
        """See `HttpToolsProtocol`."""
        super().timeout_keep_alive_handler()
        # Who does not take the rest of an answer is not waited for.
        self._hurry(STALL_S)

    def _stalled(self) -> None:
        """Drops a client that takes nothing of what is written."""
        unwritten = self.transport.get_write_buffer_size()
        if unwritten >= self._unwritten:
            self.transport.abort()
            return
        self._unwritten = unwritten
        self._stall = self.loop.call_later(STALL_S, self._stalled)

    def _no_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _refuse(self, status: HTTPStatus) -> None:
        self._refused = True
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\nContent-Length: 0\r\n"
        )
        self.transport.write(f"{head}Retry-After: 1\r\n\r\n".encode())

    def _hurry(self, within_s: float) -> None:
        self._no_hurry()
        self._deadline = self.loop.call_later(within_s, self.transport.abort)

    def _no_hurry(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
