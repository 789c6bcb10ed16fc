"""The gRPC transport against a server that answers as the test wants, over real connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from tidings import (
    ClientConfig,
    Code,
    ConnectionLost,
    EndOfStream,
    InvalidArgument,
    ResourceExhausted,
    TidingsError,
)
from tidings._grpc import GrpcConnection, GrpcTransport, channel_options, is_local

Chat = Callable[..., Any]
Unary = Callable[..., Any]
PATIENCE = 30.0


class Handlers(grpc.GenericRpcHandler):
    """Answers every Chat and every unary call by one function each."""

    def __init__(self, chat: Chat, unary: Unary) -> None:
        self.chat = chat
        self.unary = unary
        self.metadata: list[dict[str, str]] = []

    def service(self, details: Any) -> Any:
        self.metadata.append(dict(details.invocation_metadata))
        if details.method.endswith("/Chat"):
            return grpc.stream_stream_rpc_method_handler(self.chat)
        return grpc.unary_unary_rpc_method_handler(self.unary)


async def unexpected(*_: Any) -> Any:
    raise AssertionError("nobody was to call this")


@asynccontextmanager
async def served(
    chat: Chat = unexpected, unary: Unary = unexpected
) -> AsyncIterator[tuple[GrpcTransport, grpc.aio.Server, Handlers]]:
    server = grpc.aio.server()
    handlers = Handlers(chat, unary)
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    transport = GrpcTransport(f"127.0.0.1:{port}", ClientConfig())
    try:
        async with asyncio.timeout(PATIENCE):
            yield transport, server, handlers
    finally:
        await transport.close()
        await server.stop(None)


def status(code: int, *details: Any) -> Any:
    made = status_pb2.Status(code=code, message="why")
    for detail in details:
        made.details.add().Pack(detail)
    return rpc_status.to_status(made)


INFO = error_details_pb2.ErrorInfo(
    reason="TOO_MANY_IN_FLIGHT", domain="tidings", metadata={"seq": "7"}
)


async def echo(_: Any, context: Any) -> None:
    while (frame := await context.read()) is not grpc.aio.EOF:
        await context.write(b"<" + frame + b">")


async def connected(transport: GrpcTransport) -> GrpcConnection:
    return await transport.connect("a token")


async def test_frames_go_both_ways_as_they_are() -> None:
    async with served(echo) as (transport, _, handlers):
        connection = await connected(transport)
        for frame in (b"", b"\x00\xff", b"x" * 1_000_000):
            await connection.send(frame)
            assert await connection.receive() == b"<" + frame + b">"
        assert handlers.metadata[0]["authorization"] == "Bearer a token"
        await connection.close(graceful=False)
        await connection.close(graceful=False)


async def test_closing_gracefully_carries_over_what_was_sent() -> None:
    got: list[bytes] = []
    ended = asyncio.Event()

    async def collect(_: Any, context: Any) -> None:
        while (frame := await context.read()) is not grpc.aio.EOF:
            got.append(frame)
        ended.set()

    async with served(collect) as (transport, _, _h):
        connection = await connected(transport)
        reading = asyncio.create_task(connection.receive())
        for n in range(100):
            await connection.send(b"%d" % n)
        await connection.close(graceful=True)
        await ended.wait()
        assert got == [b"%d" % n for n in range(100)]
        with pytest.raises(EndOfStream):
            await reading


async def test_a_server_that_returns_ends_the_stream() -> None:
    async def once(_: Any, context: Any) -> None:
        await context.write(b"last")

    async with served(once) as (transport, _, _h):
        connection = await connected(transport)
        assert await connection.receive() == b"last"
        with pytest.raises(EndOfStream) as ended:
            await connection.receive()
        assert ended.value.error.code is Code.OK
        with pytest.raises(ConnectionLost):
            await connection.send(b"too late")


async def test_a_status_with_a_reason_is_the_servers_word() -> None:
    async def refuse(_: Any, context: Any) -> None:
        await context.abort_with_status(status(code_pb2.RESOURCE_EXHAUSTED, INFO))

    async with served(refuse) as (transport, _, _h):
        connection = await connected(transport)
        with pytest.raises(EndOfStream) as ended:
            await connection.receive()
        assert ended.value.error.code is Code.RESOURCE_EXHAUSTED
        assert ended.value.error.reason == "TOO_MANY_IN_FLIGHT"


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (grpc.StatusCode.UNAVAILABLE, False),
        (grpc.StatusCode.CANCELLED, False),
        (grpc.StatusCode.UNIMPLEMENTED, False),
        (grpc.StatusCode.PERMISSION_DENIED, False),
        # Also from a proxy: another token may help.
        (grpc.StatusCode.UNAUTHENTICATED, True),
    ],
)
async def test_a_status_without_a_reason_is_the_networks(code: grpc.StatusCode, word: bool) -> None:
    async def refuse(_: Any, context: Any) -> None:
        await context.abort(code, "no reason given")

    async with served(refuse) as (transport, _, _h):
        connection = await connected(transport)
        with pytest.raises(EndOfStream if word else ConnectionLost):
            await connection.receive()


async def test_a_server_that_dies_is_a_lost_connection() -> None:
    async with served(echo) as (transport, server, _):
        connection = await connected(transport)
        await connection.send(b"x")
        await connection.receive()
        reading = asyncio.create_task(connection.receive())
        await server.stop(None)
        with pytest.raises(ConnectionLost):
            await reading
        with pytest.raises(ConnectionLost):
            await connection.send(b"x")
        with pytest.raises(ConnectionLost):
            await (await connected(transport)).receive()


async def test_a_stream_cancelled_by_us_is_a_lost_connection_and_no_cancelled_task() -> None:
    async with served(echo) as (transport, _, _h):
        connection = await connected(transport)
        await connection.send(b"x")
        assert await connection.receive() == b"<x>"
        reading = asyncio.create_task(connection.receive())
        await asyncio.sleep(0)
        await connection.close(graceful=False)
        with pytest.raises((ConnectionLost, EndOfStream)):
            await reading
        assert not reading.cancelled()


async def test_a_cancelled_task_stays_cancelled() -> None:
    async with served(echo) as (transport, _, _h):
        connection = await connected(transport)
        reading = asyncio.create_task(connection.receive())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading


async def test_what_begins_after_a_renewal_goes_to_another_server() -> None:
    began, answered = asyncio.Event(), asyncio.Event()

    async def hello(_: Any, context: Any) -> None:
        await context.write(b"server 0")
        await context.read()

    async def late(_: bytes, context: Any) -> bytes:
        began.set()
        await answered.wait()
        return b"from server 0"

    async def other_hello(_: Any, context: Any) -> None:
        await context.write(b"server 1")

    async def at_once(_: bytes, context: Any) -> bytes:
        return b"from server 1"

    method = "tidings.v1.MessageService/GetMessage"
    servers = [grpc.aio.server() for _ in range(2)]
    ports = []
    for server, chat, unary in zip(servers, (hello, other_hello), (late, at_once), strict=True):
        server.add_generic_rpc_handlers((Handlers(chat, unary),))
        ports.append(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
    transport = GrpcTransport(
        "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports), ClientConfig()
    )
    async with asyncio.timeout(PATIENCE):
        for _ in range(2):
            assert await (await connected(transport)).receive() == b"server 0"
        under_way = asyncio.create_task(transport.call(method, b"", "t", 20.0))
        await began.wait()
        transport.renew()
        assert await (await connected(transport)).receive() == b"server 1"
        assert await transport.call(method, b"", "t", 20.0) == b"from server 1"
        answered.set()
        assert await under_way == b"from server 0"
        transport.renew()
        assert await (await connected(transport)).receive() == b"server 0"
    await transport.close()
    for server in servers:
        await server.stop(None)


async def test_closing_lets_go_of_channels_that_were_left() -> None:
    began = asyncio.Event()

    async def hang(_: bytes, context: Any) -> bytes:
        began.set()
        await asyncio.Event().wait()
        return b""

    async with served(unary=hang) as (transport, _, _h):
        method = "tidings.v1.MessageService/GetMessage"
        under_way = asyncio.create_task(transport.call(method, b"", "t", 20.0))
        await began.wait()
        transport.renew()
        await transport.close()
        with pytest.raises((TidingsError, asyncio.CancelledError)):
            await under_way


async def test_errors_of_calls_carry_their_details() -> None:
    async def refuse(_: bytes, context: Any) -> bytes:
        request = error_details_pb2.BadRequest()
        request.field_violations.add(field="user_ids[0]", description="wrong")
        await context.abort_with_status(
            status(
                code_pb2.RESOURCE_EXHAUSTED,
                INFO,
                request,
                error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000)),
            )
        )
        raise AssertionError

    async with served(unary=refuse) as (transport, _, _h):
        with pytest.raises(ResourceExhausted) as refused:
            await transport.call("tidings.v1.MessageService/GetMessage", b"", "t", 5.0)
        error = refused.value
        assert (error.reason, error.field, error.retry_after) == (
            "TOO_MANY_IN_FLIGHT",
            "user_ids[0]",
            2.5,
        )
        assert error.metadata == {"seq": "7"}
        assert str(error) == "RESOURCE_EXHAUSTED (TOO_MANY_IN_FLIGHT): user_ids[0]: why"


async def test_a_reason_of_somebody_else_is_none_of_ours() -> None:
    async def refuse(_: bytes, context: Any) -> bytes:
        info = error_details_pb2.ErrorInfo(reason="QUOTA", domain="proxy.example")
        await context.abort_with_status(status(code_pb2.UNAVAILABLE, info))
        raise AssertionError

    async with served(unary=refuse) as (transport, _, _h):
        with pytest.raises(TidingsError) as refused:
            await transport.call("tidings.v1.MessageService/GetMessage", b"", "t", 5.0)
        assert (refused.value.code, refused.value.reason) == (Code.UNAVAILABLE, "")


async def test_calls_have_a_deadline() -> None:
    async def hang(_: bytes, context: Any) -> bytes:
        await asyncio.Event().wait()
        return b""

    async with served(unary=hang) as (transport, _, _h):
        with pytest.raises(TidingsError) as late:
            await transport.call("tidings.v1.MessageService/GetMessage", b"", "t", 0.05)
        assert late.value.code is Code.DEADLINE_EXCEEDED


async def test_answers_larger_than_the_default_limit_are_taken() -> None:
    async def large(_: bytes, context: Any) -> bytes:
        return b"x" * (17 << 20)

    async with served(unary=large) as (transport, _, _h):
        answer = await transport.call("tidings.v1.MessageService/ListHistory", b"", "t", 20.0)
        assert len(answer) == 17 << 20


def certificate() -> tuple[bytes, bytes]:
    """A key and a certificate for localhost, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2120, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ), made.public_bytes(pem)


async def test_tls_trusts_the_certificates_that_it_is_given_and_no_others() -> None:
    key, trusted = certificate()
    _, other = certificate()

    async def answer(_: bytes, context: Any) -> bytes:
        return b"answer"

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handlers(unexpected, answer),))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, trusted)]))
    await server.start()
    target = f"localhost:{port}"
    try:
        async with asyncio.timeout(PATIENCE):
            for roots, works in ((trusted, True), (other, False), (None, False)):
                config = ClientConfig(tls=True, root_certificates=roots)
                transport = GrpcTransport(target, config)
                call = transport.call("tidings.v1.MessageService/GetMessage", b"", "t", 5.0)
                if works:
                    assert await call == b"answer"
                else:
                    with pytest.raises(TidingsError) as refused:
                        await call
                    assert refused.value.code is Code.UNAVAILABLE
                await transport.close()
    finally:
        await server.stop(None)


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("localhost:50051", True),
        ("localhost", True),
        ("127.0.0.1:1", True),
        ("127.8.8.8:1", True),
        ("[::1]:50051", True),
        ("ipv4:127.0.0.1:5", True),
        ("ipv4:127.0.0.1:5,127.0.0.1:6", True),
        ("ipv6:[::1]:5,[2001:db8::1]:5", False),
        ("dns:///localhost:5", True),
        ("unix:/run/tidings", True),
        ("chat.example.com:443", False),
        ("dns:///chat.example.com", False),
        ("10.0.0.1:50051", False),
        ("localhost.example.com:1", False),
        ("127.example.com:1", False),
        ("[2001:db8::1]:1", False),
    ],
)
def test_plain_text_stays_on_this_machine(target: str, local: bool) -> None:
    assert is_local(target) is local


def test_a_url_is_no_target() -> None:
    with pytest.raises(InvalidArgument):
        GrpcTransport("https://chat.example.com", ClientConfig())


def test_the_options_that_matter_are_set() -> None:
    options = dict(channel_options(ClientConfig(keepalive=15.0)))
    assert options["grpc.http2.bdp_probe"] == 0
    assert options["grpc.http2.lookahead_bytes"] == 1 << 20
    assert options["grpc.keepalive_time_ms"] == 15_000
    assert options["grpc.http2.ping_timeout_ms"] == 10_000
    assert options["grpc.use_local_subchannel_pool"] == 1
