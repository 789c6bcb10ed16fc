"""Chatting through WebSockets: the same frames, the same promise."""

from __future__ import annotations

import asyncio
import base64

import pytest
from websockets.exceptions import InvalidStatus

from tests.integration.bridge.browser import JSON, PROTO, WebDevice, dial
from tests.integration.conftest import Serve, Served
from tests.integration.wire import ChatRequest, Command, reason_name, token
from tidings.v1 import chat_service_pb2

BOTH = pytest.mark.parametrize("subprotocol", [PROTO, JSON])


async def web(server: Served, user: str, **options: object) -> WebDevice:
    """A device that has not said hello."""
    assert server.running.http_port is not None
    return server.keep(await dial(server.running.http_port, user, **options))  # type: ignore[arg-type]


@BOTH
@pytest.mark.parametrize("in_subprotocol", [False, True])
async def test_two_devices_chat(server: Served, subprotocol: str, in_subprotocol: bool) -> None:
    log = await server.caller("alice").group("bob")
    alice = await web(server, "alice", subprotocol=subprotocol, in_subprotocol=in_subprotocol)
    await alice.open()
    bob = await server.device("bob")
    assert await alice.post(log, "hello") == 2
    assert await bob.post(log, "hello yourself, ünïcode 👋") == 3
    for device in (alice, bob):
        await device.level(log, 3)
        assert device.texts(log) == ["hello", "hello yourself, ünïcode 👋"]
    alice.events.clear()
    await alice.close()
    assert await bob.post(log, "are you there?") == 4
    back = await web(server, "alice", subprotocol=subprotocol)
    await back.open({log: 3, "inbox:alice": 1})
    assert back.texts(log) == ["are you there?"]


@BOTH
async def test_frames_may_follow_the_opening_at_once(server: Served, subprotocol: str) -> None:
    log = await server.caller("alice").group("bob")
    alice = await web(server, "alice", subprotocol=subprotocol, bearer="")
    await alice.show(token("alice", "browser"))
    alice.read_on()
    hello = Command(command_id=alice.number(), hello=chat_service_pb2.Hello())
    posts = [alice.message(log, str(i)) for i in range(50)]
    await alice.send(hello)
    for post in posts:
        await alice.send(post)
    await alice.level(log, 51)
    assert alice.texts(log) == [str(i) for i in range(50)]


@BOTH
async def test_what_is_no_frame_does_not_end_the_session(server: Served, subprotocol: str) -> None:
    alice = await web(server, "alice", subprotocol=subprotocol)
    await alice.open()
    bad: list[str | bytes] = [b"\xff\xff", b"\x0a\x05"]
    if subprotocol == JSON:
        bad = ["", "{", "[1]", '{"nothing": 1}', '{"commands": [{"commandId": "x"}]}', "[" * 5000]
        bad += [
            '{"commands": 7}',
            '{"acks": [{"seq": 1e400}]}',
            '{"acks":[{"conversationId":"\\ud800"}]}',
        ]
    for message in bad:
        await alice.socket.send(message)
    refused = await alice.until(
        lambda: alice.results()[-len(bad) :] if len(alice.results()) > len(bad) else []
    )
    assert {reason_name(r.error.reason) for r in refused} == {"MALFORMED_FRAME"}
    assert {r.command_id for r in refused} == {0}
    assert await alice.post(await server.caller("alice").group("bob"), "still here") == 2


@BOTH
async def test_tokens_that_are_refused(server: Served, subprotocol: str) -> None:
    expired = token("alice", ttl_s=-60)
    for bearer, code, reason in (
        ("nonsense", 4116, "TOKEN_INVALID"),
        (token("alice", issuer="other"), 4116, "TOKEN_INVALID"),
        (expired, 4016, "TOKEN_EXPIRED"),
    ):
        for in_subprotocol in (False, True):
            device = await web(
                server,
                "alice",
                subprotocol=subprotocol,
                bearer=bearer,
                in_subprotocol=in_subprotocol,
            )
            assert await device.over() == (code, reason)
    empty = await web(server, subprotocol=subprotocol, user="")
    await empty.show("")
    assert await empty.over() == (4116, "TOKEN_INVALID")
    # A bridge apart does not ask what an empty one is good for.
    assert server.node.counters.auth_failures["TOKEN_INVALID"] in {4, 5}
    malformed = await web(server, subprotocol=subprotocol, user="")
    await malformed.socket.send("{}{" if subprotocol == JSON else b"\xff")
    assert await malformed.over() == (4103, "MALFORMED_FRAME")
    assert not server.node.hub.sessions


async def test_a_token_that_ends_and_a_newer_session(server: Served) -> None:
    short = await web(server, "alice", bearer=token("alice", "browser", ttl_s=1))
    await short.open()
    assert await short.over() == (4016, "TOKEN_EXPIRED")
    older = await web(server, "alice")
    await older.open()
    newer = await web(server, "alice")
    await newer.open()
    assert await older.over() == (4110, "SESSION_REPLACED")
    assert not older.of("session_ended")[0].session_ended.reconnect
    # The same device by another way.
    await server.device("alice", "browser")
    assert await newer.over() == (4110, "SESSION_REPLACED")


async def test_a_drain_sends_everybody_away(serve: Serve) -> None:
    server = await serve(drain={"delay_spread_s": 0, "grace_s": 1})
    alice, idle = await web(server, "alice"), await web(server, "bob")
    await alice.open()
    server.node.announce_drain(0)
    late = await web(server, "carol")
    late.read_on()
    await late.send(Command(command_id=late.number(), hello=chat_service_pb2.Hello()))
    code, reason = await late.over()
    assert code == 4014
    # A bridge apart may know by then that the server takes nobody.
    assert reason in {"DRAINING", "UNAVAILABLE"}
    await server.node.stop()
    assert await alice.over() == (4014, "DRAINING")
    assert alice.of("going_away")
    assert alice.of("session_ended")[0].session_ended.reconnect
    await idle.close()


async def test_handshakes_that_are_refused(serve: Serve) -> None:
    server = await serve(bridge={"allowed_origins": "https://chat.example.com"})
    port = server.running.http_port

    async def status(**options: object) -> int:
        with pytest.raises(InvalidStatus) as refused:
            await web(server, "alice", **options)
        return refused.value.response.status_code

    assert await status(subprotocol="graphql-ws") == 400
    assert await status(path="/elsewhere") == 404
    assert await status(origin="https://evil.example.com") == 403
    assert await status(origin="null") == 403
    assert await status(additional_headers={"Sec-WebSocket-Version": "12"}) == 400
    for origin in ("https://chat.example.com", f"http://127.0.0.1:{port}"):
        device = await web(server, "alice", origin=origin)
        await device.open()
        await device.close()
    # Nothing of a URL is taken for a token.
    device = await web(server, "", path=f"/ws?token={token('alice')}&access_token={token('alice')}")
    await device.write(ChatRequest().SerializeToString())
    assert await device.over() == (4116, "TOKEN_INVALID")


async def http(port: int | None, text: str) -> bytes:
    """What is answered to a raw request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text.encode())
    try:
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()


async def test_plain_requests(server: Served) -> None:
    port = server.running.http_port
    close = "Host: x\r\nConnection: close\r\n\r\n"
    async with asyncio.timeout(20):
        # It is ready once the store was tried.
        while b" 200 " not in await http(port, f"GET /readyz HTTP/1.1\r\n{close}"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/ws", 426), ("/", 404)):
        answer = await http(port, f"GET {path} HTTP/1.1\r\n{close}")
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b" 405 " in await http(port, f"POST /healthz HTTP/1.1\r\n{close}")
    assert b" 400 " in await http(port, "nonsense\r\n\r\n")
    assert b" 431 " in await http(port, "GET / HTTP/1.1\r\n" + "A: " + "x" * 300_000)


async def test_no_compression_is_agreed_to(server: Served) -> None:
    key = base64.b64encode(b"0123456789abcdef").decode()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.running.http_port)
    writer.write(
        "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: {PROTO}\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in head
    assert b"extensions" not in head.lower()
    # Whoever sends what is compressed all the same, be it a bomb, breaks the protocol.
    writer.write(bytes([0xC2, 0x85, 0, 0, 0, 0]) + b"bombs")
    frame = await reader.read(4)
    assert (frame[0], int.from_bytes(frame[2:4], "big")) == (0x88, 1002)
    writer.close()
