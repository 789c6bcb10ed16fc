"""The bridge as a process of its own: each device gets a Chat stream to a server, shown the device's own token.

The bridge speaks for nobody: it has no rights, knows no user, and passes frames on without looking into them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

import grpc
import grpc.aio
import structlog
from google.rpc import error_details_pb2, status_pb2

from ..codec.status import to_status
from ..delivery.outbox import Sink
from ..errors import DomainError, Reason
from ..operations.unary import WhenTaken
from .closing import FAULT, Close, close_for
from .upstream import Caller, CallRefused

log = structlog.get_logger(__name__)

_CHAT = "/tidings.v1.ChatService/Chat"
_DETAILS = "grpc-status-details-bin"
_MOST_TOKEN_BYTES = 16_384
_MOST_TRACE_BYTES = 64
_CALL_WITHIN_S = 60.0
_OPTIONS: tuple[tuple[str, Any], ...] = (
    # Over all addresses of a name, and only to those whose health says that clients may come.
    (
        "grpc.service_config",
        '{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}',
    ),
    ("grpc.max_receive_message_length", 16 << 20),
    # What a device does not read is held back by the server: here it would be memory.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 262_144),
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

Call = grpc.aio.StreamStreamCall[bytes, bytes]


class RemoteUpstream:
    """Chat streams to servers, in turn. `authorities` (PEM) are believed with `tls`, or else the system's."""

    def __init__(
        self, servers: Sequence[str], *, tls: bool = False, authorities: bytes | None = None
    ) -> None:
        credentials = grpc.ssl_channel_credentials(authorities) if tls else None
        self._channels = [
            grpc.aio.insecure_channel(server, _OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(server, credentials, _OPTIONS)
            for server in servers
        ]
        self._turn = count()
        for channel in self._channels:
            channel.get_state(try_to_connect=True)

    @property
    def reachable(self) -> bool:
        """Whether a server takes sessions, as far as is known."""
        return any(self._is_ready(channel) for channel in self._channels)

    async def open(self, caller: Caller, sink: Sink) -> _RemoteLine:
        """See `Upstream`. What the server says to the token comes by the end of the line."""
        call: Call = self._channel().stream_stream(_CHAT)(metadata=_metadata(caller))
        return _RemoteLine(call, sink)

    async def call(self, path: str, caller: Caller, request: bytes, when_taken: WhenTaken) -> bytes:
        """See `Upstream`. How much of a user is under way at once, the server knows."""
        del when_taken
        try:
            metadata = _metadata(caller)
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel().unary_unary(path)
            return await call(request, metadata=metadata, timeout=_CALL_WITHIN_S)
        except DomainError as problem:
            raise CallRefused(to_status(problem)) from None
        except grpc.aio.AioRpcError as problem:
            raise CallRefused(_status_of(problem)) from None

    async def close(self) -> None:
        """Ends all streams."""
        for channel in self._channels:
            await channel.close()

    def _channel(self) -> grpc.aio.Channel:
        start, number = next(self._turn), len(self._channels)
        turns = [self._channels[(start + i) % number] for i in range(number)]
        return next((channel for channel in turns if self._is_ready(channel)), turns[0])

    def _is_ready(self, channel: grpc.aio.Channel) -> bool:
        return channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY


class _RemoteLine:
    """A Chat stream."""

    def __init__(self, call: Call, sink: Sink) -> None:
        self._call = call
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Close] = loop.create_future()
        self._writing: asyncio.Task[None] | None = None
        self._reading = loop.create_task(self._read(sink))
        self._reading.add_done_callback(self._failed)

    def receive(self, frame: bytes) -> bool:
        """See `Line`."""
        assert self._writing is None or self._writing.done(), "one frame at a time"
        self._writing = asyncio.get_running_loop().create_task(self._write(frame))
        return False

    async def ready(self) -> None:
        """See `Line`."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    def close(self) -> None:
        """See `Line`."""
        self._call.cancel()
        self._reading.cancel()

    async def _write(self, frame: bytes) -> None:
        # That the stream has ended is told by its status, to whoever reads.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.write(frame)

    async def _read(self, sink: Sink) -> None:
        try:
            # The next is taken when the device has taken this one: what it does not read stays at the server.
            while isinstance(frame := await self._call.read(), bytes):
                await sink.write(frame)
        except grpc.aio.AioRpcError:
            pass
        except ConnectionError:
            self._call.cancel()
            return
        code, trailers = await self._call.code(), await self._call.trailing_metadata()
        self._end(_close_for(code, trailers or ()))

    def _failed(self, reading: asyncio.Task[None]) -> None:
        if not reading.cancelled() and (problem := reading.exception()) is not None:
            log.error("line_failed", exc_info=problem)
            self._end(FAULT)

    def _end(self, how: Close) -> None:
        if not self.ended.done():
            self.ended.set_result(how)


def _metadata(caller: Caller) -> tuple[tuple[str, str], ...]:
    """What the server is told of a caller. Raises DomainError for a token that can't be one."""
    token = caller.token
    if not _is_visible(token) or len(token) > _MOST_TOKEN_BYTES:
        raise DomainError(Reason.TOKEN_INVALID, "The token is not accepted here.")
    found = [("authorization", f"Bearer {token}")]
    if caller.address:
        found.append(("x-forwarded-for", caller.address))
    if _is_visible(caller.traceparent) and len(caller.traceparent) <= _MOST_TRACE_BYTES:
        found.append(("traceparent", caller.traceparent))
    return tuple(found)


def _is_visible(text: str) -> bool:
    return bool(text) and all("!" <= one <= "~" for one in text)


def _status_of(problem: grpc.aio.AioRpcError) -> status_pb2.Status:
    for key, value in problem.trailing_metadata() or ():
        if key == _DETAILS and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    # Not in the words of grpc, which name addresses.
    text = "The server can't be reached; nobody knows what became of the call."
    return status_pb2.Status(code=int(problem.code().value[0]), message=text)


def _close_for(code: grpc.StatusCode, trailers: Iterable[tuple[str, str | bytes]]) -> Close:
    reason, waiting_helps = "", False
    for key, value in trailers:
        if key != _DETAILS or not isinstance(value, bytes):
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                reason = info.reason
            waiting_helps |= detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
    return close_for(int(code.value[0]), code.name, reason, waiting_helps=waiting_helps)
