"""A WebSocket: the shell around websockets' state machine, between a transport and the session of a device.

There is no task for a socket that idles: what comes is handed on at once, and a task is made for what must wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, cast

import structlog
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from ..codec import events
from ..errors import DomainError
from . import handshake
from .closing import FAULT, GOING_AWAY, NO_ANSWER, SILENT, Close, close_of
from .messages import Subprotocol
from .sockets import Sockets
from .upstream import Caller, Line

log = structlog.get_logger(__name__)

OPENING_WITHIN_S = 10.0
OPENING_MAX_BYTES = 32_768
MAX_FRAGMENTS = 1_000
_WRITE_BUFFER_BYTES = 65_536
# A client that pings and does not read would have its pongs pile up here.
_MOST_PONG_BYTES = 16_384
_LINGER_S = 2.0
# It tells of each connection that comes and goes.
_library_log = logging.getLogger("websockets.server")
_library_log.setLevel(logging.ERROR)


class WebSocket(asyncio.Protocol):
    """One socket, from its handshake on. It is the sink of its session."""

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets
        self._loop = asyncio.get_running_loop()
        self._connection = ServerProtocol(max_size=OPENING_MAX_BYTES, logger=_library_log)
        self._transport: asyncio.Transport
        self._address = ""
        self._subprotocol: Subprotocol
        self._traceparent = ""
        self._line: Line | None = None
        self._gone = self._ending = False
        # What came and was not handed on yet; while there is any, a task hands it on and nothing is read.
        self._waiting: deque[bytes] = deque()
        self._work: asyncio.Task[None] | None = None
        self._fragments: list[bytes] = []
        self._opcode = Opcode.BINARY
        self._drained: asyncio.Future[None] | None = None
        self._pong_bytes = 0
        self._reading = True
        self._timer: asyncio.TimerHandle | None = None
        self._heard = False
        self._pinged = False
        self._unwritten = 0

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # uvloop's are none by their class.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if peer else ""
        self._timer = self._loop.call_later(OPENING_WITHIN_S, self._never_opened)
        self._sockets.add(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._heard = True
        connection = self._connection
        connection.receive_data(data)
        for event in connection.events_received():
            if isinstance(event, Request):
                self._shake_hands(event)
            elif isinstance(event, Frame) and connection.close_sent is None:
                self._take(event)
        self._flush()
        if connection.parser_exc is not None or connection.close_expected():
            self._end_soon()
        self._read_or_not()

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """See `asyncio.Protocol`."""
        self._gone = True
        self._sockets.discard(self)
        self._waiting.clear()
        self._fragments.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._work is not None:
            self._work.cancel()
        if self._line is not None:
            self._line.close()
        if self._drained is not None and not self._drained.done():
            self._drained.set_exception(ConnectionError("the socket is gone"))

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None
        self._pong_bytes = 0
        self._read_or_not()

    # The session's side

    async def write(self, frame: bytes) -> None:
        """See `Sink`."""
        for message in self._subprotocol.write(frame):
            if self._gone or self._connection.state is not OPEN:
                raise ConnectionError("the socket is closed")
            if self._subprotocol.text:
                self._connection.send_text(message)
            else:
                self._connection.send_binary(message)
            self._flush()
            if self._drained is not None:
                # Others may wait for the same, and each may be cancelled.
                await asyncio.shield(self._drained)

    def close(self, how: Close = GOING_AWAY) -> None:
        """Tells the client why, and ends. May be called twice."""
        if self._gone:
            return
        if self._connection.state is OPEN:
            self._connection.send_close(how.code, how.reason)
            self._flush()
        self._end_soon()

    def shutdown(self) -> None:
        """The server stops, as uvicorn says it."""
        self.close()

    # Opening

    def _shake_hands(self, request: Request) -> None:
        connection, sockets = self._connection, self._sockets
        try:
            self._address = handshake.client_address(request, self._address, sockets.proxied_rates)
            wanted = handshake.read(request, sockets.origins)
        except handshake.Refused as refused:
            self._refuse(refused.response(connection))
            return
        response = handshake.accept(connection, request, wanted)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._refuse(response)
            return
        connection.send_response(response)
        self._subprotocol, self._traceparent = wanted.subprotocol, wanted.traceparent
        if wanted.token:
            self._open(wanted.token)

    def _refuse(self, response: Response) -> None:
        self._connection.send_response(response)
        self._flush()
        self._transport.close()

    def _open(self, token: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._sockets.ping_interval_s, self._tick)
        self._connection.max_message_size = self._sockets.max_message_bytes
        if self._subprotocol.most_bytes is not None:
            self._connection.max_message_size = min(
                self._sockets.max_message_bytes, self._subprotocol.most_bytes
            )
        self._work = self._spawn(self._open_line(Caller(token, self._traceparent, self._address)))

    async def _open_line(self, caller: Caller) -> None:
        self._line = line = await self._sockets.upstream.open(caller, self)
        line.ended.add_done_callback(self._line_ended)
        await self._hand_on(line)

    def _line_ended(self, ended: asyncio.Future[Close]) -> None:
        if not ended.cancelled():
            self.close(ended.result())

    def _never_opened(self) -> None:
        self.close(SILENT)

    # Messages

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PING:
            self._pong_bytes += len(frame.data) + 2
            return
        if frame.opcode not in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            return
        if frame.opcode is not Opcode.CONT:
            self._opcode = frame.opcode
            if (frame.opcode is Opcode.TEXT) is not self._subprotocol.text:
                wanted = "text" if self._subprotocol.text else "binary"
                self._connection.fail(CloseCode.UNSUPPORTED_DATA, f"messages are {wanted} here")
                return
        self._fragments.append(bytes(frame.data))
        if len(self._fragments) > MAX_FRAGMENTS:
            self._connection.fail(CloseCode.MESSAGE_TOO_BIG, f"over {MAX_FRAGMENTS} fragments")
            self._fragments.clear()
        elif frame.fin:
            fragments, self._fragments = self._fragments, []
            self._message(fragments[0] if len(fragments) == 1 else b"".join(fragments))

    def _message(self, message: bytes) -> None:
        if self._subprotocol.text and not _is_utf8(message):
            self._connection.fail(CloseCode.INVALID_DATA, "text is UTF-8")
        elif self._work is not None:
            self._waiting.append(message)
        elif self._line is None:
            self._opening(message)
        else:
            self._waiting.append(message)
            if not self._give(self._line):
                self._work = self._spawn(self._hand_on(self._line))

    def _opening(self, message: bytes) -> None:
        try:
            token, traceparent = self._subprotocol.opening(message)
        except DomainError as problem:
            self.close(close_of(problem))
            return
        self._traceparent = traceparent or self._traceparent
        self._open(token)

    def _give(self, line: Line) -> bool:
        """Gives the session what waits; whether it took all of it and is ready for more."""
        while self._waiting:
            try:
                frame = self._subprotocol.read(self._waiting[0])
            except DomainError:
                return False
            self._waiting.popleft()
            if not line.receive(frame):
                return False
        return True

    async def _hand_on(self, line: Line) -> None:
        """Gives the session what waits, as fast as it takes it."""
        while True:
            await line.ready()
            if self._give(line):
                break
            try:
                if self._waiting:
                    self._subprotocol.read(self._waiting[0])
            except DomainError as problem:
                # What is no JSON is answered as what is no protobuf is.
                self._waiting.popleft()
                await self.write(events.result_event(0, "", problem))
        self._work = None
        self._read_or_not()

    def _read_or_not(self) -> None:
        flooded = self._drained is not None and self._pong_bytes > _MOST_PONG_BYTES
        reading = self._work is None and not flooded
        # What a closed socket still sends is read and dropped, or it might never see why it was closed.
        reading = reading or self._connection.close_sent is not None
        if reading is not self._reading and not self._gone:
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    # Keeping alive and ending

    def _tick(self) -> None:
        unwritten = self._transport.get_write_buffer_size()
        # A client that takes what is written is alive, though its pong may stand behind much.
        if self._heard or unwritten < self._unwritten:
            self._pinged = False
        elif self._pinged:
            self.close(NO_ANSWER)
            self._transport.abort()
            return
        else:
            self._pinged = True
            if self._connection.state is OPEN:
                self._connection.send_ping(b"")
                self._flush()
        self._heard, self._unwritten = False, self._transport.get_write_buffer_size()
        self._timer = self._loop.call_later(self._sockets.ping_interval_s, self._tick)

    def _flush(self) -> None:
        for data in self._connection.data_to_send():
            if self._gone or self._transport.is_closing():
                return
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()

    def _end_soon(self) -> None:
        """Ends the connection, when the client has had the time to read why. May be called twice."""
        if self._ending:
            return
        self._ending = True
        if self._timer is not None:
            self._timer.cancel()
        if self._connection.close_rcvd is not None:
            self._transport.close()
        else:
            self._timer = self._loop.call_later(_LINGER_S, self._transport.abort)
            self._read_or_not()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        task.add_done_callback(self._worked)
        return task

    def _worked(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (problem := task.exception()) is None:
            return
        if isinstance(problem, ConnectionError):
            return
        if isinstance(problem, DomainError):
            self.close(close_of(problem))
            return
        log.error("socket_failed", exc_info=problem)
        self.close(FAULT)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
