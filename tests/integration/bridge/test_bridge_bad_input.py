"""What WebSockets of ill will get: a clear close, little memory, and others undisturbed."""

from __future__ import annotations

import asyncio
import contextlib
import struct

import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol

from tests.integration.bridge.browser import JSON, PROTO, WebDevice, dial
from tests.integration.conftest import Serve, Served
from tests.integration.wire import ChatRequest, Command, reason_name, token, until
from tidings.v1 import bridge_pb2, chat_service_pb2
from tidings_server.bridge.messages import JSON_MAX_BYTES


async def web(server: Served, user: str, **options: object) -> WebDevice:
    """A device that has not said hello."""
    assert server.running.http_port is not None
    return server.keep(await dial(server.running.http_port, user, **options))  # type: ignore[arg-type]


async def others_are_well(server: Served) -> None:
    """Two others chat."""
    log = await server.caller("carol").group("dave")
    carol, dave = await web(server, "carol"), await server.device("dave")
    await carol.open()
    seq = await carol.post(log, "all is well")
    await dave.level(log, seq)
    await carol.close()


class Raw:
    """A client that writes frames as it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, server: Served, user: str = "", *, subprotocol: str = PROTO) -> Raw:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.running.http_port)
        made = server.keep(cls(reader, writer))
        writer.write(
            "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head, head
        if user:
            made.frame(
                Opcode.BINARY, bridge_pb2.Opening(token=token(user, "raw")).SerializeToString()
            )
        return made

    def frame(self, opcode: Opcode, data: bytes, *, fin: bool = True) -> None:
        self.writer.write(Frame(opcode, data, fin).serialize(mask=True))

    def head(self, opcode: Opcode, length: int) -> None:
        """The head of a frame whose data does not follow yet."""
        self.writer.write(bytes([0x80 | opcode, 0xFF]) + struct.pack("!Q", length) + bytes(4))

    def hello(self, **fields: int) -> None:
        hello = Command(command_id=1, hello=chat_service_pb2.Hello(**fields))  # type: ignore[arg-type]
        self.frame(Opcode.BINARY, ChatRequest(commands=[hello]).SerializeToString())

    async def closed(self) -> int:
        """The code of the close; 1006 when there is none."""
        try:
            async with asyncio.timeout(20):
                while True:
                    first, second = await self.reader.readexactly(2)
                    size = second & 0x7F
                    if size > 125:
                        wide = 2 if size == 126 else 8
                        size = int.from_bytes(await self.reader.readexactly(wide), "big")
                    data = await self.reader.readexactly(size)
                    if first & 0x0F == Opcode.CLOSE:
                        return int.from_bytes(data[:2], "big")
        except (asyncio.IncompleteReadError, ConnectionError):
            return 1006

    async def close(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


async def test_text_on_the_binary_protocol_and_the_other_way(server: Served) -> None:
    for subprotocol, message in ((PROTO, "text"), (JSON, b"binary")):
        for shown in (False, True):
            device = await web(server, "alice" if shown else "", subprotocol=subprotocol)
            await device.socket.send(message)
            assert (await device.over())[0] == 1003
    raw = await Raw.open(server, subprotocol=JSON)
    raw.frame(Opcode.TEXT, b'{"token": "\xff"}')
    assert await raw.closed() == 1007
    await raw.close()
    await others_are_well(server)


async def test_messages_that_are_too_large(server: Served) -> None:
    limit = server.node.limits.max_frame_bytes
    alice = await web(server, "alice")
    await alice.open()
    await alice.write(bytes(limit + 1))
    (refused,) = await alice.until(lambda: alice.results()[1:])
    assert reason_name(refused.error.reason) == "TOO_LARGE"
    # In fragments it is the same.
    await alice.socket.send([bytes(limit // 4)] * 5)
    await alice.until(lambda: alice.results()[2:])
    await alice.write(bytes(limit * 2 + 1))
    assert (await alice.over())[0] == 1009
    json = await web(server, "alice", subprotocol=JSON)
    await json.socket.send(" " * (JSON_MAX_BYTES + 1))
    assert (await json.over())[0] == 1009
    await others_are_well(server)


async def test_a_hundred_megabytes(server: Served) -> None:
    """Neither a frame that says so nor fragments that become so much are gathered."""
    process = psutil.Process()
    before = process.memory_info().rss
    for user in ("", "alice"):
        raw = await Raw.open(server, user)
        raw.head(Opcode.BINARY, 100 << 20)
        with contextlib.suppress(ConnectionError):
            for _ in range(1600):
                raw.writer.write(bytes(65_536))
                await raw.writer.drain()
        assert process.memory_info().rss - before < 50 << 20
        raw = await Raw.open(server, user)
        raw.head(Opcode.BINARY, 100 << 20)
        assert await raw.closed() == 1009
        await raw.close()
        raw = await Raw.open(server, user)
        raw.frame(Opcode.BINARY, bytes(30_000), fin=False)
        for _ in range(80):
            raw.frame(Opcode.CONT, bytes(30_000), fin=False)
        assert await raw.closed() == 1009
        await raw.close()
    assert process.memory_info().rss - before < 50 << 20
    await others_are_well(server)


async def test_no_end_of_fragments(server: Served) -> None:
    raw = await Raw.open(server, "alice")
    raw.frame(Opcode.BINARY, b"", fin=False)
    for _ in range(2000):
        raw.frame(Opcode.CONT, b"", fin=False)
    assert await raw.closed() == 1009
    await raw.close()
    raw = await Raw.open(server, "alice")
    hello = Command(command_id=1, hello=chat_service_pb2.Hello())
    frame = ChatRequest(commands=[hello]).SerializeToString()
    raw.frame(Opcode.BINARY, frame[:1], fin=False)
    for i in range(1, len(frame)):
        raw.frame(Opcode.PING, b"between")
        raw.frame(Opcode.CONT, frame[i : i + 1], fin=i == len(frame) - 1)
    await until(lambda: server.node.hub.sessions)
    await raw.close()


async def test_frames_that_break_the_protocol(server: Served) -> None:
    for bad in (
        b"\x82\x01x",  # not masked
        b"\x83\x80\0\0\0\0",  # an opcode that is none
        b"\x80\x80\0\0\0\0",  # a continuation of nothing
        b"\xc2\x80\0\0\0\0",  # a bit of an extension
        b"\x09\x80\0\0\0\0",  # a ping in fragments
        b"\x88\x81\0\0\0\0x",  # a close code of one byte
    ):
        for user in ("", "alice"):
            raw = await Raw.open(server, user)
            raw.writer.write(bad)
            assert await raw.closed() == 1002, bad
            await raw.close()
    await others_are_well(server)


async def test_a_client_that_does_not_read(server: Served) -> None:
    """The outbox bounds what is held for it, and the log has the rest."""
    log = await server.caller("alice").group("bob")
    raw = await Raw.open(server, "bob")
    raw.hello(window=8192)
    (session,) = await until(lambda: server.node.hub.sessions)
    alice = await server.device("alice", window=8192)
    # Before the outbox, what is on the way fills up, and where a bridge stands between, twice.
    for _ in range(60):
        if server.node.counters.outbox_overflows:
            break
        sent = [alice.message(log, "x" * 16_000) for _ in range(50)]
        await alice.send(*sent)
        await asyncio.gather(*(alice.result(command.command_id) for command in sent))
        await alice.send(acks=[(log, alice.applied(log))])
    assert session.outbox.bytes <= server.node.limits.outbox_bytes + (256 << 10)
    assert server.node.counters.outbox_overflows > 0
    await others_are_well(server)
    await raw.close()
    bob = await web(server, "bob", device="raw")
    await bob.open({log: 0}, window=8192)
    await bob.level(log, alice.applied(log))


async def flood(raw: Raw, data: bytes) -> None:
    """A hundred megabytes and more."""
    for _ in range(800):
        raw.writer.write(data)
        await raw.writer.drain()


async def test_a_client_that_pings_and_does_not_read(server: Served) -> None:
    """Its pongs do not pile up: what it writes is left unread."""
    raw = await Raw.open(server, "alice")
    ping = Frame(Opcode.PING, bytes(125), fin=True).serialize(mask=True) * 1000
    before = psutil.Process().memory_info().rss
    flooding = asyncio.ensure_future(flood(raw, ping))
    # It gets nowhere: a hundred megabytes are written in less.
    await asyncio.wait([flooding], timeout=3)
    assert not flooding.done()
    flooding.cancel()
    assert psutil.Process().memory_info().rss - before < 30 << 20
    await others_are_well(server)
    # Once it reads, it is served again.
    closed = asyncio.ensure_future(raw.closed())
    raw.frame(Opcode.CLOSE, struct.pack("!H", 1000))
    assert await closed == 1000
    await raw.close()


async def test_ghosts_are_found(serve: Serve) -> None:
    server = await serve(bridge={"ping_interval_s": 0.2})
    ghost = await Raw.open(server, "alice")
    ghost.hello()
    alive = await web(server, "bob")
    await alive.open()
    await until(lambda: len(server.node.hub.sessions) == 2)
    # It says nothing, and no pong either.
    assert await ghost.closed() in {4004, 1006}
    await until(lambda: len(server.node.hub.sessions) == 1)
    assert await alive.post(await server.caller("bob").group("alice"), "still here") == 2
    await ghost.close()


async def test_no_token_and_no_hello(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidings_server.bridge.socket.OPENING_WITHIN_S", 0.2)
    silent = await web(server, "")
    assert await silent.over() == (4009, "HELLO_EXPECTED")
    monkeypatch.setattr("tidings_server.delivery.expiry.HELLO_WITHIN_S", 0.2)
    ungreeted = await web(server, "alice")
    assert await ungreeted.over() == (4009, "HELLO_EXPECTED")
    monkeypatch.setattr("tidings_server.bridge.http.REQUEST_WITHIN_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.running.http_port)
    slow = server.keep(Raw(reader, writer))
    writer.write(b"GET /healthz HTTP/1.1\r\n")
    assert await slow.closed() == 1006


async def test_a_thousand_connects_from_one_address(serve: Serve) -> None:
    server = await serve(bridge={"connects_a_second": 20, "connects_at_once": 30})
    port = server.running.http_port
    outcomes: list[int] = []

    async def come() -> None:
        try:
            socket = await connect(
                f"ws://127.0.0.1:{port}/ws", subprotocols=[Subprotocol(PROTO)], open_timeout=30
            )
            outcomes.append(101)
            await socket.close()
        except InvalidStatus as refused:
            waits = refused.response.headers["Retry-After"] == "1"
            outcomes.append(refused.response.status_code if waits else 0)
        except (ConnectionClosed, InvalidMessage, ConnectionError):
            outcomes.append(0)

    for _ in range(5):
        await asyncio.gather(*(come() for _ in range(200)))
    assert outcomes.count(429) > 500, {o: outcomes.count(o) for o in set(outcomes)}
    assert outcomes.count(101) >= 30
    assert not outcomes.count(0)
    # Streams are not touched by it, and after a while the address may come again.
    await server.device("dave")
    await asyncio.sleep(0.3)
    await others_are_well(server)


async def test_no_more_connections_than_are_allowed(serve: Serve) -> None:
    server = await serve(bridge={"max_connections": 3})
    devices = [await web(server, f"user-{i}") for i in range(3)]
    for device in devices:
        await device.open()
    with pytest.raises(InvalidStatus) as refused:
        await web(server, "late")
    assert refused.value.response.status_code == 503
    await devices[0].close()
    await until(lambda: len(server.node.hub.sessions) == 2)
    await (await web(server, "late")).open()


async def test_addresses_that_a_proxy_tells(serve: Serve) -> None:
    server = await serve(
        bridge={"behind_proxy": True, "connects_a_second": 0.001, "connects_at_once": 2}
    )

    async def come(forwarded: str) -> int:
        try:
            device = await web(server, "alice", additional_headers={"X-Forwarded-For": forwarded})
        except InvalidStatus as refused:
            return refused.response.status_code
        await device.close()
        return 101

    # Only what the proxy itself has added is believed.
    assert [await come(f"10.0.0.{i}, 192.0.2.1") for i in range(3)] == [101, 101, 429]
    assert await come("192.0.2.2") == 101
