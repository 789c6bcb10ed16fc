"""A device of the tests' own: raw frames over a real Chat stream, and raw unary calls."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from tidings.v1 import (
    chat_service_pb2,
    conversation_service_pb2,
    conversation_service_pb2_grpc,
    event_pb2,
    message_pb2,
    message_service_pb2_grpc,
    presence_service_pb2_grpc,
    receipt_service_pb2_grpc,
)
from tidings_server.app import Running, serving
from tidings_server.auth import TokenPolicy, mint
from tidings_server.config import Settings
from tidings_server.core.clock import SystemClock
from tidings_server.core.ids import uuid7

SECRET = "a secret for tests, of 32 bytes and more"
DEADLINE_S = 20.0
rng = random.Random()

CHAT = "/tidings.v1.ChatService/Chat"
Stream = grpc.aio.StreamStreamMultiCallable[bytes, bytes]
Call = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
Metadata = tuple[tuple[str, str], ...]


def new_id(ahead_ms: int = 0) -> str:
    """A UUIDv7 of now, or of a time that lies ahead."""
    return uuid7(time.time_ns() // 1_000_000 + ahead_ms, rng)


def settings(folder: Path, **groups: dict[str, Any]) -> Settings:
    """The settings of a server on a store in a folder, on ports that the system picks."""
    given: dict[str, dict[str, Any]] = {
        "grpc": {"listen": "127.0.0.1:0"},
        "bridge": {"enabled": False},
        "metrics": {"listen": "127.0.0.1:0"},
        "store": {"path": folder / "tidings.db"},
        "auth": {"hs256_secret": SECRET},
        "drain": {"delay_spread_s": 0.2, "grace_s": 5},
    }
    for name, values in groups.items():
        given[name] = given.get(name, {}) | values
    return Settings(**given)  # type: ignore[arg-type]


def token(
    user: str,
    device: str = "phone",
    ttl_s: float = 3600,
    scopes: tuple[str, ...] = (),
    **policy: Any,
) -> str:
    """A token for a device of a user; `policy` says otherwise what it claims."""
    claims = {"issuer": "tidings", "audience": "tidings", "hs256_secret": SECRET.encode()} | policy
    return mint(TokenPolicy(**claims), SystemClock(), user, device, ttl_s=ttl_s, scopes=scopes)


def bearer(token_text: str) -> Metadata:
    """The metadata of a call with a token."""
    return (("authorization", f"Bearer {token_text}"),)


@dataclass
class Refusal:
    """What a unary call was refused with."""

    code: str
    reason: str
    field: str
    retry: bool
    metadata: dict[str, str]


def refusal(problem: grpc.aio.AioRpcError) -> Refusal:
    """Reads the details of a refused call."""
    raw = dict(problem.trailing_metadata() or ())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(raw)
    found = Refusal(problem.code().name, "", "", False, {})
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
            found.reason, found.metadata = info.reason, dict(info.metadata)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest.FromString(detail.value)
            found.field = bad.field_violations[0].field
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            found.retry = True
    return found


@dataclass
class Device:
    """One connected device that notes every event."""

    user: str
    call: Any
    events: list[event_pb2.Event] = field(default_factory=list)
    results: dict[int, event_pb2.CommandResult] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    reading: asyncio.Task[None] | None = None
    next_id: int = 1
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def read(self) -> None:
        """Notes events until the stream ends."""
        try:
            async for frame in self.call:
                events = chat_service_pb2.ChatResponse.FromString(frame).events
                self.events.extend(events)
                for event in events:
                    if event.HasField("result"):
                        self.results[event.result.command_id] = event.result
                self.news.set()
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            pass
        finally:
            self.news.set()

    def start(self) -> None:
        """Begins to read."""
        self.reading = asyncio.create_task(self.read())

    async def write(self, frame: bytes) -> None:
        """Sends a frame as it is."""
        async with self.writing:
            await self.call.write(frame)

    async def ask(self, **command: Any) -> event_pb2.CommandResult:
        """Sends one command and awaits its result."""
        number = self.next_id
        self.next_id += 1
        request = chat_service_pb2.ChatRequest(
            commands=[chat_service_pb2.Command(command_id=number, **command)]
        )
        await self.write(request.SerializeToString())
        return await self.result(number)

    async def hello(self, **fields: Any) -> event_pb2.CommandResult:
        """Says hello."""
        return await self.ask(hello=chat_service_pb2.Hello(**fields))

    async def synced(self) -> None:
        """Returns when the device was brought level."""
        await self.until(lambda: any(e.HasField("sync_complete") for e in self.events))

    async def send(self, conversation: str, text: str, **fields: Any) -> event_pb2.CommandResult:
        """Posts a message."""
        fields.setdefault("message_id", new_id())
        return await self.ask(
            send_message=message_pb2.SendMessageRequest(
                conversation_id=conversation,
                content=message_pb2.MessageContent(text=text),
                **fields,
            )
        )

    async def ack(self, conversation: str, seq: int) -> None:
        """Acknowledges a position."""
        acks = [chat_service_pb2.Ack(conversation_id=conversation, seq=seq)]
        await self.write(chat_service_pb2.ChatRequest(acks=acks).SerializeToString())

    async def result(self, number: int) -> event_pb2.CommandResult:
        """The result of a command."""
        await self.until(lambda: number in self.results)
        return self.results[number]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns when a condition holds; fails when it doesn't in time or the stream has ended."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                assert self.reading is not None
                assert not self.reading.done(), f"{self.user}'s stream ended"
                self.news.clear()
                await self.news.wait()

    async def ended(self) -> grpc.StatusCode:
        """Returns the status when the stream has ended."""
        assert self.reading is not None
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.wait([self.reading])
            code: grpc.StatusCode = await self.call.code()
        return code

    def seqs(self, log: str) -> list[int]:
        """The positions of the entries of a log, as they came."""
        return [e.entry.seq for e in self.events if e.entry.conversation_id == log]

    def texts(self, log: str) -> list[str]:
        """The texts of the messages of a log, as they came."""
        return [
            e.entry.message.text
            for e in self.events
            if e.entry.conversation_id == log and e.entry.HasField("message")
        ]

    async def has(self, log: str, seq: int) -> None:
        """Returns when an entry has come."""
        await self.until(lambda: seq in self.seqs(log))

    async def close(self) -> None:
        """Leaves."""
        self.call.cancel()
        if self.reading is not None:
            self.reading.cancel()
            await asyncio.wait([self.reading])


class Server:
    """A running server, and clients of it."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.node = running.node
        options = [("grpc.max_receive_message_length", 16 << 20)]
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{running.port}", options=options)
        self.conversations = conversation_service_pb2_grpc.ConversationServiceStub(self.channel)
        self.messages = message_service_pb2_grpc.MessageServiceStub(self.channel)
        self.receipts = receipt_service_pb2_grpc.ReceiptServiceStub(self.channel)
        self.presence = presence_service_pb2_grpc.PresenceServiceStub(self.channel)
        self.devices: list[Device] = []

    def open(self, user: str, device: str = "phone", **token_fields: Any) -> Device:
        """A stream of a device; it says nothing by itself."""
        chat: Stream = self.channel.stream_stream(CHAT)
        opened = Device(user, chat(metadata=bearer(token(user, device, **token_fields))))
        opened.start()
        self.devices.append(opened)
        return opened

    async def connect(self, user: str, device: str = "phone", **hello: Any) -> Device:
        """A device that was brought level."""
        opened = self.open(user, device)
        await opened.hello(**hello)
        await opened.synced()
        return opened

    async def direct(self, user: str, other: str) -> str:
        """The direct conversation of two users."""
        return await self._create(user, kind=1, user_ids=[other])

    async def group(self, user: str, *others: str) -> str:
        """A new group."""
        return await self._create(
            user, kind=2, user_ids=others, title="a group", request_id=new_id()
        )

    async def _create(self, user: str, **fields: Any) -> str:
        request = conversation_service_pb2.CreateConversationRequest(**fields)
        made = await self.conversations.CreateConversation(request, metadata=bearer(token(user)))
        return str(made.conversation.conversation_id)

    async def close(self) -> None:
        """Ends the clients."""
        for device in self.devices:
            await device.close()
        await self.channel.close()


@asynccontextmanager
async def server_on(folder: Path, **groups: dict[str, Any]) -> AsyncIterator[Server]:
    """A server in this process, on a SQLite store in a folder."""
    async with serving(settings(folder, **groups)) as running:
        server = Server(running)
        try:
            yield server
        finally:
            await server.close()
