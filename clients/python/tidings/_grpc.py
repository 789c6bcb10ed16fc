"""The transport over grpc.aio: frames as raw bytes, one channel for the stream and the unary operations."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from ._config import ClientConfig
from ._transport import ConnectionLost, EndOfStream
from .errors import Code, InvalidArgument, TidingsError, error_for

_CHAT = "/tidings.v1.ChatService/Chat"
_DOMAIN = "tidings"
_CLOSE_SECONDS = 1.0
_MAX_MESSAGE_BYTES = 64 << 20


_ANY_ADDRESS = '{"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": true}}]}'
"""Of the addresses of a name any is tried first: a new connection need not lead to the same server."""


def channel_options(config: ClientConfig) -> list[tuple[str, Any]]:
    """The options of the channel."""
    return [
        # A connection for each device, also where several are in one process.
        ("grpc.use_local_subchannel_pool", 1),
        # Fixed windows of 1 MiB instead of measured ones: the pings that measure cost the server a third of its CPU.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 1 << 20),
        ("grpc.keepalive_time_ms", int(config.keepalive * 1000)),
        # grpc.keepalive_timeout_ms has no effect any more; this is what ends a connection whose pings get no answer.
        ("grpc.http2.ping_timeout_ms", 10_000),
        # A page of history may hold 1,000 messages of 16 KiB.
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        # When to try again is decided here, with jitter; the channel's own waits stay short.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.enable_retries", 0),
    ]


def addresses_of(target: str) -> tuple[str, list[str]]:
    """The scheme and the addresses of a target that lists them, such as "ipv4:10.0.0.1:443,10.0.0.2:443"; of any other,
    nothing and itself.
    """
    scheme, _, listed = target.partition(":")
    return (f"{scheme}:", listed.split(",")) if scheme in ("ipv4", "ipv6") else ("", [target])


def is_local(target: str) -> bool:
    """Whether a target is this machine, so that plain text stays on it."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    scheme, addresses = addresses_of(target)
    if scheme:
        return all(is_local(address) for address in addresses)
    host = target.removeprefix("dns:///")
    host = host[1 : host.index("]")] if host.startswith("[") else host.rpartition(":")[0] or host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class GrpcTransport:
    """A Transport over grpc.aio."""

    def __init__(self, target: str, config: ClientConfig) -> None:
        if target.startswith(("http://", "https://")):
            raise InvalidArgument("a target is host:port, not a URL", field="target")
        self._config = config
        self._tls = config.tls if config.tls is not None else not is_local(target)
        self._scheme, self._addresses = addresses_of(target)
        self._left: dict[asyncio.Task[None], grpc.aio.Channel] = {}
        self._open()

    def _open(self) -> None:
        target = self._scheme + ",".join(self._addresses)
        options = channel_options(self._config)
        if not self._scheme:
            options.append(("grpc.service_config", _ANY_ADDRESS))
        if self._tls:
            credentials = grpc.ssl_channel_credentials(self._config.root_certificates)
            self.channel = grpc.aio.secure_channel(target, credentials, options=options)
        else:
            self.channel = grpc.aio.insecure_channel(target, options=options)
        self._chat: Callable[..., Any] = self.channel.stream_stream(_CHAT)
        self._calls: dict[str, Callable[..., Any]] = {}

    async def connect(self, token: str) -> GrpcConnection:
        """See Transport."""
        return GrpcConnection(self._chat(metadata=bearer(token)))

    async def call(self, method: str, request: bytes, token: str, timeout: float) -> bytes:
        """See Transport."""
        if method not in self._calls:
            self._calls[method] = self.channel.unary_unary(f"/{method}")
        try:
            answer: bytes = await self._calls[method](
                request, timeout=timeout, metadata=bearer(token)
            )
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from error
        return answer

    def renew(self) -> None:
        """See Transport."""
        left = self.channel
        self._addresses.append(self._addresses.pop(0))
        self._open()
        leaving = asyncio.get_running_loop().create_task(left.close(self._config.call_timeout))
        self._left[leaving] = left
        leaving.add_done_callback(self._left.pop)

    async def close(self) -> None:
        """See Transport."""
        for leaving, channel in list(self._left.items()):
            leaving.cancel()
            await channel.close(None)
        await self.channel.close(None)


class GrpcConnection:
    """One Chat stream."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._closed = False

    async def send(self, frame: bytes) -> None:
        """See Connection."""
        try:
            await self._call.write(frame)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            raise ConnectionLost("the stream is over") from error
        except asyncio.CancelledError:
            self._raise_unless_ours()
            raise

    async def receive(self) -> bytes:
        """See Connection."""
        try:
            frame = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise _end_of(error_of_call(error)) from error
        except asyncio.CancelledError:
            self._raise_unless_ours()
            raise
        if frame is grpc.aio.EOF:
            raise EndOfStream
        assert isinstance(frame, bytes)
        return frame

    def _raise_unless_ours(self) -> None:
        """grpc.aio raises CancelledError also where the *call* was cancelled; only the task's own may pass."""
        task = asyncio.current_task()
        if self._call.cancelled() and (task is None or not task.cancelling()):
            raise ConnectionLost("the stream was cancelled") from None

    async def close(self, *, graceful: bool) -> None:
        """See Connection."""
        if self._closed:
            return
        self._closed = True
        if graceful and not self._call.done():
            with contextlib.suppress(
                TimeoutError, grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError
            ):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._call.done_writing()
                    await self._call.code()
        self._call.cancel()


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata that carries a token."""
    return (("authorization", f"Bearer {token}"),)


def _end_of(error: TidingsError) -> ConnectionLost | EndOfStream:
    """A status with a reason is the server's word; so is a refused token, whoever says it. The rest is the network."""
    if error.reason or error.code is Code.UNAUTHENTICATED:
        return EndOfStream(error)
    return ConnectionLost(error.message if error.code is Code.UNAVAILABLE else str(error))


def error_of_call(error: grpc.aio.AioRpcError) -> TidingsError:
    """The error of a call, with the details that the server gave."""
    code = Code(error.code().value[0])
    message = error.details() or ""
    reason = field = ""
    retry_after: float | None = None
    metadata: dict[str, str] = {}
    for key, value in _pairs(error.trailing_metadata()):
        if key != "grpc-status-details-bin" or not isinstance(value, bytes):
            continue
        status = status_pb2.Status()
        with contextlib.suppress(DecodeError):
            status.ParseFromString(value)
        for detail in status.details:
            info = error_details_pb2.ErrorInfo()
            request = error_details_pb2.BadRequest()
            retry = error_details_pb2.RetryInfo()
            if detail.Unpack(info) and info.domain == _DOMAIN:
                reason = info.reason
                metadata.update(info.metadata)
            elif detail.Unpack(request) and request.field_violations:
                field = request.field_violations[0].field
            elif detail.Unpack(retry):
                retry_after = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return error_for(
        code, message, reason=reason, field=field, retry_after=retry_after, metadata=metadata
    )


def _pairs(metadata: Any) -> Iterable[tuple[str, str | bytes]]:
    return metadata or ()
