"""Between nodes: the gRPC server that hosts what others forward, and the links to other nodes."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import grpc
import structlog

from tidings.v1 import node_service_pb2

from ..errors import DomainError
from ..messaging.forwarding import Link, Listener
from ..messaging.hosting import Host
from ..presence.base import NodeInfo
from ..storage.base import StoreUnavailable

log = structlog.get_logger(__name__)

SERVICE = node_service_pb2.DESCRIPTOR.services_by_name["NodeService"]
_APPEND = f"/{SERVICE.full_name}/Append"
_WITNESS = f"/{SERVICE.full_name}/Witness"
_KEY = "tidings-node-key"
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),
    # Many small frames at once, over links that last: what is asked of a home must not wait behind a window.
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)
Context = grpc.aio.ServicerContext[bytes, bytes]
Witness = Callable[[bytes], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class NodeSecurity:
    """How nodes know each other: by a key that all share, by certificates that one authority has signed, or by both.
    `server_name` is the name in all the certificates, or empty when each has its own address.
    """

    key: str = field(default="", repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str = ""

    @property
    def tls(self) -> bool:
        """Whether connections are secured by certificates."""
        return self.cert_file is not None

    def files(self) -> tuple[bytes, bytes, bytes]:
        """What is in the files: authority, certificate, private key. Raises OSError."""
        assert self.ca_file is not None
        assert self.cert_file is not None
        assert self.key_file is not None
        return self.ca_file.read_bytes(), self.cert_file.read_bytes(), self.key_file.read_bytes()


class NodeServer:
    """Listens for other nodes at an address of its own, which clients have no business with."""

    def __init__(self, address: str, security: NodeSecurity) -> None:
        """Raises OSError when the address or the files can't be had."""
        self._key = security.key.encode()
        self._host: Host | None = None
        self._witness: Witness | None = None
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    SERVICE.full_name,
                    {
                        "Append": grpc.stream_stream_rpc_method_handler(self._append),
                        "Witness": grpc.unary_unary_rpc_method_handler(self._tell),
                    },
                ),
            )
        )
        try:
            if security.tls:
                authority, certificate, private = security.files()
                self.port = self._server.add_secure_port(
                    address,
                    grpc.ssl_server_credentials(
                        [(private, certificate)], authority, require_client_auth=True
                    ),
                )
            else:
                self.port = self._server.add_insecure_port(address)
        except RuntimeError as problem:
            raise OSError(f"can't listen for other nodes on {address}") from problem

    async def start(self, host: Host, witness: Witness | None = None) -> None:
        """Begins to serve. `witness` raises ValueError when the bytes are no question."""
        self._host = host
        self._witness = witness
        await self._server.start()

    async def stop(self) -> None:
        """Ends all connections."""
        await self._server.stop(0)

    async def _append(self, frames: AsyncIterator[bytes], context: Context) -> None:
        if not self._knows(context):
            # Returning with a status, where abort would wait.
            context.set_code(grpc.StatusCode.UNAUTHENTICATED)
            context.set_details("The metadata does not show the key of this deployment.")
            return
        assert self._host is not None
        # Else the first frame does it, and a stream can't be ended while that is being written.
        await context.send_initial_metadata(())
        writer = _Writer(context)
        guest = self._host.open(writer.send)
        try:
            async for frame in frames:
                guest.receive(frame)
        except ValueError:
            context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
            context.set_details("A frame is no tidings.v1.AppendRequest.")
        finally:
            guest.close()
            writer.close()

    async def _tell(self, frame: bytes, context: Context) -> bytes:
        if not self._knows(context):
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED,
                "The metadata does not show the key of this deployment.",
            )
        if self._witness is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "This node tells nothing.")
        try:
            return await self._witness(frame)
        except (ValueError, DomainError, StoreUnavailable):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "This node can't tell.")

    def _knows(self, context: Context) -> bool:
        if not self._key:
            return True
        for key, value in context.invocation_metadata() or ():
            if key == _KEY and isinstance(value, str):
                return hmac.compare_digest(value.encode(), self._key)
        return False


class NodeLinks:
    """Links to other nodes: a `Dial`."""

    def __init__(self, security: NodeSecurity) -> None:
        """Raises OSError when the files can't be had."""
        self._security = security
        self._credentials: grpc.ChannelCredentials | None = None
        if security.tls:
            authority, certificate, private = security.files()
            self._credentials = grpc.ssl_channel_credentials(authority, private, certificate)

    def __call__(self, node: NodeInfo, listener: Listener) -> Link:
        """See `Dial`."""
        return _Link(self._channel(node), self._metadata(), listener)

    async def ask(self, node: NodeInfo, frame: bytes) -> bytes:
        """What the witness of a node tells. Raises ConnectionError."""
        async with self._channel(node) as channel:
            witness: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_WITNESS)
            try:
                return await witness(frame, metadata=self._metadata())
            except grpc.aio.AioRpcError as problem:
                raise ConnectionError(f"{problem.code().name}: {problem.details()}") from None

    def _channel(self, node: NodeInfo) -> grpc.aio.Channel:
        options: list[tuple[str, int | str]] = list(_OPTIONS)
        if self._credentials is None:
            return grpc.aio.insecure_channel(node.address, options=options)
        if self._security.server_name:
            options.append(("grpc.ssl_target_name_override", self._security.server_name))
        return grpc.aio.secure_channel(node.address, self._credentials, options=options)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return ((_KEY, self._security.key),) if self._security.key else ()


class _Writable(Protocol):
    async def write(self, frame: bytes, /) -> None: ...


class _Link:
    """One stream to another node, on a channel of its own."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        metadata: tuple[tuple[str, str], ...],
        listener: Listener,
    ) -> None:
        self._channel = channel
        self._listener: Listener | None = listener
        append: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(_APPEND)
        self._call = append(metadata=metadata)
        self._writer = _Writer(self._call)
        self._reading = asyncio.get_running_loop().create_task(self._read())

    def send(self, frame: bytes) -> None:
        """See `Link`."""
        self._writer.send(frame)

    def close(self) -> None:
        """See `Link`."""
        self._listener = None
        self._writer.close()
        self._reading.cancel()

    async def _read(self) -> None:
        cause = "the node has ended the stream"
        try:
            async for frame in self._call:
                if self._listener is None:
                    return
                self._listener.heard(frame)
        except grpc.aio.AioRpcError as problem:
            cause = f"{problem.code().name}: {problem.details()}"
        except Exception as problem:
            # Whoever has the link would wait for it, and make no other.
            log.exception("link_failed")
            cause = type(problem).__name__
        finally:
            self._call.cancel()
            self._writer.close()
            await self._channel.close()
        if self._listener is not None:
            self._listener.broken(cause)


class _Writer:
    """Writes frames to a stream, one after the other."""

    def __init__(self, stream: _Writable) -> None:
        self._stream = stream
        self._frames: list[bytes] = []
        self._writing: asyncio.Task[None] | None = None
        self._closed = False

    def send(self, frame: bytes) -> None:
        """Takes a frame. Never blocks, never raises."""
        if self._closed:
            return
        self._frames.append(frame)
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Writes no more."""
        self._closed = True
        self._frames.clear()
        if self._writing is not None:
            self._writing.cancel()

    async def _run(self) -> None:
        try:
            while self._frames:
                frames, self._frames = self._frames, []
                for frame in frames:
                    await self._write(frame)
        except ConnectionError:
            # Whoever reads the stream learns of its end.
            self._closed = True
        finally:
            self._writing = None

    async def _write(self, frame: bytes) -> None:
        try:
            await self._stream.write(frame)
        except asyncio.CancelledError:
            raise
        except Exception as problem:  # grpc's own errors have no common base
            raise ConnectionError("the stream has ended") from problem
