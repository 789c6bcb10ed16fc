"""Unary calls over HTTP: as JSON, and by the clients of Connect and gRPC-Web."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any

import pytest
from connectrpc.client import ConnectClient
from connectrpc.code import Code
from connectrpc.compat import google_protobuf_codecs
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.protocol import ProtocolType
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2

from tests.integration.conftest import Serve, Served
from tests.integration.wire import message, new_id, token
from tidings.v1 import conversation_service_pb2, message_pb2, message_service_pb2
from tidings_server.operations.unary import UNARY, path_of

METHODS = {path_of(m): m for service in UNARY for m in service.methods}


@dataclass
class Answer:
    """What an HTTP request was answered."""

    status: int
    headers: dict[str, str]
    body: bytes
    details: dict[str, Any] = field(default_factory=dict)

    def json(self) -> Any:
        return json.loads(self.body)

    def error(self) -> tuple[int, str, str, str, bool]:
        """The status, Connect's code, the reason, the field, and whether waiting helps."""
        told = self.json()
        reason = at = ""
        waits = False
        for detail in told.get("details", ()):
            raw = base64.b64decode(detail["value"] + "==")
            match detail["type"]:
                case "google.rpc.ErrorInfo":
                    info = error_details_pb2.ErrorInfo.FromString(raw)
                    assert info.domain == "tidings"
                    reason = info.reason
                case "google.rpc.BadRequest":
                    at = error_details_pb2.BadRequest.FromString(raw).field_violations[0].field
                case "google.rpc.RetryInfo":
                    waits = True
        return self.status, told["code"], reason, at, waits


async def ask(
    server: Served,
    path: str,
    body: bytes | Any = None,
    *,
    user: str = "alice",
    method: str = "POST",
    kind: str = "application/json",
    **headers: str,
) -> Answer:
    """One request, as curl would make it."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    made = {"Content-Type": kind} | {k.replace("_", "-"): v for k, v in headers.items()}
    if user:
        made.setdefault("Authorization", f"Bearer {token(user, 'caller')}")
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.running.http_port}{path}", data, made, method=method
    )

    def send() -> Answer:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return Answer(response.status, dict(response.headers), response.read())
        except urllib.error.HTTPError as refused:
            with refused:
                return Answer(refused.code, dict(refused.headers), refused.read())

    return await asyncio.to_thread(send)


SEND = "/tidings.v1.MessageService/SendMessage"
LIST = "/tidings.v1.ConversationService/ListConversations"
HISTORY = "/tidings.v1.MessageService/ListHistory"


async def test_curl_is_enough(server: Served) -> None:
    made = await ask(
        server,
        "/tidings.v1.ConversationService/CreateConversation",
        {
            "kind": "CONVERSATION_KIND_GROUP",
            "userIds": ["bob"],
            "title": "Plan",
            "requestId": new_id(),
        },
    )
    assert made.status == 200
    log = made.json()["conversation"]["conversationId"]
    bob = await server.device("bob")
    sent = await ask(
        server,
        SEND,
        {"conversationId": log, "messageId": new_id(), "content": {"text": "hello, ünïcode 👋"}},
    )
    assert sent.json()["seq"] == "2"
    await bob.level(log, 2)
    assert bob.texts(log) == ["hello, ünïcode 👋"]
    # Names as they stand in the contract are taken, too.
    listed = await ask(server, HISTORY, {"conversation_id": log, "page_size": 1})
    (event,) = listed.json()["events"]
    assert event["entry"]["message"]["text"] == "hello, ünïcode 👋"
    assert listed.headers["content-type"] == "application/json"


async def test_every_method_is_served(server: Served) -> None:
    """Each is authorised, carried out, and refuses what it does not like with a reason."""
    for path in METHODS:
        assert (await ask(server, path, {}, user="")).error()[:3] == (
            401,
            "unauthenticated",
            "TOKEN_INVALID",
        ), path
        answer = await ask(server, path, {})
        if path.startswith("/tidings.v1.AdminService/"):
            assert answer.error()[:3] == (403, "permission_denied", "DENIED"), path
        elif answer.status != 200:
            status, code, reason, at, _ = answer.error()
            assert (status, code, reason) == (400, "invalid_argument", "INVALID_FIELD"), path
            assert at
        raw = await ask(server, path, b"", kind="application/proto")
        assert raw.status == answer.status, path


async def test_errors_say_why(server: Served) -> None:
    log = await server.caller("alice").group("bob")
    change = new_id()
    post = {"conversationId": log, "messageId": change, "content": {"text": "x"}}
    assert (await ask(server, SEND, post)).status == 200
    for body, expected in (
        (
            post | {"content": {"text": "y"}},
            (409, "already_exists", "ID_REUSED", "message_id", False),
        ),
        (
            post | {"conversationId": new_id()},
            (404, "not_found", "CONVERSATION_NOT_FOUND", "conversation_id", False),
        ),
        (
            post | {"messageId": "7"},
            (400, "invalid_argument", "INVALID_FIELD", "message_id", False),
        ),
        (post | {"nonsense": 1}, (400, "invalid_argument", "MALFORMED_FRAME", "", False)),
        (b"{", (400, "invalid_argument", "MALFORMED_FRAME", "", False)),
        (b"[" * 10_000, (400, "invalid_argument", "MALFORMED_FRAME", "", False)),
        (b"\xff", (400, "invalid_argument", "MALFORMED_FRAME", "", False)),
        (b" " * 131_073, (429, "resource_exhausted", "TOO_LARGE", "", False)),
        (b" " * 1_000_000, (429, "resource_exhausted", "TOO_LARGE", "", False)),
        (
            post | {"content": {"text": "x" * 20_000}},
            (429, "resource_exhausted", "TOO_LARGE", "content.text", False),
        ),
    ):
        assert (await ask(server, SEND, body)).error() == expected, str(body)[:80]
    malformed = await ask(server, SEND, b"\xff\xff", kind="application/proto")
    assert malformed.error() == (400, "invalid_argument", "MALFORMED_FRAME", "", False)
    # An unknown field is an error in protobuf, too.
    request = message(log, "x").SerializeToString() + b"\xf8\x3f\x01"
    unknown = await ask(server, SEND, request, kind="application/proto")
    assert unknown.error()[:3] == (400, "invalid_argument", "UNKNOWN_FIELD")
    for bearer in ("Bearer nonsense", "Basic abc", "Bearer"):
        refused = await ask(server, LIST, {}, Authorization=bearer)
        assert refused.error()[:3] == (401, "unauthenticated", "TOKEN_INVALID"), bearer
    assert (await ask(server, LIST, {}, Authorization="Bearer \xe9")).status == 400
    expired = f"Bearer {token('alice', ttl_s=-60)}"
    refused = await ask(server, LIST, {}, Authorization=expired)
    assert refused.error()[:3] == (401, "unauthenticated", "TOKEN_EXPIRED")


async def test_what_is_not_served(server: Served) -> None:
    for path, options, status in (
        ("/tidings.v1.MessageService/Nothing", {}, 404),
        ("/tidings.v1.ChatService/Chat", {}, 404),
        ("/tidings.v1.NodeService/Witness", {}, 404),
        (LIST, {"kind": "application/grpc"}, 415),
        (LIST, {"kind": "application/grpc+proto"}, 415),
        (LIST, {"kind": "text/plain"}, 415),
        (LIST, {"Content_Encoding": "br"}, 501),
    ):
        answer = await ask(server, path, {}, **options)
        assert answer.status == status, (path, options, answer)
    bomb = gzip.compress(bytes(100 << 20))
    for kind in ("application/json", "application/proto"):
        answer = await ask(server, LIST, bomb, kind=kind, Content_Encoding="gzip")
        assert answer.error()[:3] == (429, "resource_exhausted", "TOO_LARGE")
    small = await ask(server, LIST, gzip.compress(b"{}"), Content_Encoding="gzip")
    assert small.status == 200
    # Nothing by GET: requests in URLs end up in logs.
    for query in ("", "?encoding=json&message={}", "?access_token=x"):
        assert (await ask(server, LIST + query, method="GET")).status == 405


async def test_pages_of_other_sites(serve: Serve) -> None:
    server = await serve(bridge={"allowed_origins": "https://chat.example.com"})
    wanted = {
        "Access_Control_Request_Method": "POST",
        "Access_Control_Request_Headers": "authorization,content-type",
    }
    ours, theirs = "https://chat.example.com", "https://evil.example.com"
    asked = await ask(server, LIST, method="OPTIONS", user="", Origin=ours, **wanted)
    assert asked.status == 204
    assert asked.headers["access-control-allow-origin"] == ours
    assert "authorization" in asked.headers["access-control-allow-headers"]
    assert asked.headers["vary"] == "Origin"
    answer = await ask(server, LIST, {}, Origin=ours)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, ours)
    refused = await ask(server, LIST, {}, user="", Origin=ours)
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, ours)
    for method in ("OPTIONS", "POST"):
        answer = await ask(server, LIST, b"{}", method=method, Origin=theirs)
        assert answer.status == 403
        assert "access-control-allow-origin" not in answer.headers
    assert "access-control-allow-origin" not in (await ask(server, LIST, {})).headers


def info(path: str) -> MethodInfo[Any, Any]:
    method = METHODS[path]
    return MethodInfo(
        name=method.name,
        service_name=method.containing_service.full_name,
        input=GetMessageClass(method.input_type),
        output=GetMessageClass(method.output_type),
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=StreamType.UNARY,
    )


@pytest.mark.parametrize("protocol", [ProtocolType.CONNECT, ProtocolType.GRPC_WEB])
@pytest.mark.parametrize("codec", google_protobuf_codecs(), ids=lambda codec: codec.name())
async def test_generated_clients(server: Served, protocol: ProtocolType, codec: Any) -> None:
    log = await server.caller("alice").group("bob")
    address = f"http://127.0.0.1:{server.running.http_port}"
    headers = {"authorization": f"Bearer {token('alice', 'caller')}"}
    async with ConnectClient(address, codec=codec, protocol=protocol) as client:

        async def call(path: str, request: Message) -> Any:
            return await client.execute_unary(request=request, method=info(path), headers=headers)

        sent = await call(SEND, message(log, "hello"))
        assert isinstance(sent, message_pb2.SendMessageResponse)
        assert sent.seq == 2
        listed = await call(HISTORY, message_service_pb2.ListHistoryRequest(conversation_id=log))
        assert [e.entry.seq for e in listed.events] == [2, 1]
        with pytest.raises(ConnectError) as refused:
            await call(
                "/tidings.v1.ConversationService/GetConversation",
                conversation_service_pb2.GetConversationRequest(conversation_id=new_id()),
            )
        assert refused.value.code is Code.NOT_FOUND
        names = {detail.type_name for detail in refused.value.details}
        assert names == {"google.rpc.ErrorInfo", "google.rpc.BadRequest"}


async def test_a_fault_tells_nothing(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any, **__: Any) -> bytes:
        raise RuntimeError("a secret of the server's")

    monkeypatch.setattr("tidings_server.bridge.local.LocalUpstream.call", fail)
    monkeypatch.setattr("tidings_server.bridge.remote.RemoteUpstream.call", fail)
    for kind in ("application/json", "application/grpc-web+proto"):
        answer = await ask(server, LIST, b"\0\0\0\0\0" if "grpc" in kind else {}, kind=kind)
        assert b"secret" not in answer.body
        assert "secret" not in str(answer.headers)
    assert (await ask(server, LIST, {})).error()[:3] == (500, "internal", "INTERNAL")


async def test_answers_that_nobody_reads(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are dropped with their connection; until then they count as calls under way."""
    monkeypatch.setattr("tidings_server.bridge.http.STALL_S", 0.3)
    log = await server.caller("alice").group("bob")
    alice = await server.device("alice")
    for _ in range(4):
        sent = [alice.message(log, "x" * 16_000) for _ in range(30)]
        await alice.send(*sent)
        await asyncio.gather(*(alice.result(command.command_id) for command in sent))
        await alice.send(acks=[(log, alice.applied(log))])
    body = json.dumps({"conversationId": log, "pageSize": 1000}).encode()
    head = (
        f"POST {HISTORY} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token('alice', 'caller')}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    # More at once than a user may have: the last of them wait for the first to be dropped.
    opened = [
        await asyncio.open_connection("127.0.0.1", server.running.http_port, limit=1024)
        for _ in range(20)
    ]
    for _, writer in opened:
        writer.write(head.encode() + body)
    listed = await asyncio.wait_for(ask(server, HISTORY, {"conversationId": log}), 30)
    assert listed.status == 200
    for reader, writer in opened:
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(30):
                while await reader.read(1 << 20):
                    pass
        writer.close()


async def test_the_description_is_published(server: Served) -> None:
    answer = await ask(server, "/openapi.json", method="GET", user="")
    assert answer.headers["content-type"] == "application/json"
    described = answer.json()
    assert set(described["paths"]) == set(METHODS)
    schemas = described["components"]["schemas"]

    def follow(part: Any) -> None:
        if isinstance(part, dict):
            if "$ref" in part and part["$ref"].startswith("#/components/schemas/"):
                assert part["$ref"].rpartition("/")[2] in schemas
            for value in part.values():
                follow(value)
        elif isinstance(part, list):
            for value in part:
                follow(value)

    follow(described)
    sent = schemas["SendMessageRequest"]["properties"]
    assert set(sent) >= {"conversationId", "messageId", "content"}
    assert all(
        p["description"]
        for schema in schemas.values()
        for p in schema.get("properties", {}).values()
        if "$ref" not in p and schema is not schemas["Error"]
    )
