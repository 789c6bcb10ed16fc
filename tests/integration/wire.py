"""Clients made of nothing but the generated stubs: devices on Chat streams, and callers of unary methods."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from tidings.v1 import (
    chat_service_pb2,
    conversation_pb2,
    conversation_service_pb2,
    error_pb2,
    event_pb2,
    message_pb2,
    message_service_pb2,
)
from tidings.v1.conversation_service_pb2_grpc import ConversationServiceStub
from tidings.v1.message_service_pb2_grpc import MessageServiceStub
from tidings.v1.presence_service_pb2_grpc import PresenceServiceStub
from tidings.v1.receipt_service_pb2_grpc import ReceiptServiceStub
from tidings_server.auth import TokenPolicy, mint
from tidings_server.core.clock import SystemClock
from tidings_server.core.ids import uuid7

T = TypeVar("T")

SECRET = "a secret of thirty-two bytes or so"
POLICY = TokenPolicy(hs256_secret=SECRET.encode())
CLOCK = SystemClock()
RNG = random.Random(time.time_ns())
PATIENCE_S = 30.0
CHAT = "/tidings.v1.ChatService/Chat"
CHANNEL_OPTIONS: list[tuple[str, int]] = [
    # Each device has a connection of its own, as in life.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
]

Command = chat_service_pb2.Command
ChatRequest = chat_service_pb2.ChatRequest


def new_id(ahead_ms: int = 0) -> str:
    return uuid7(CLOCK.now_ms() + ahead_ms, RNG)


def token(
    user: str,
    device: str = "phone",
    *,
    ttl_s: float = 3600,
    scopes: tuple[str, ...] = (),
    **policy: Any,
) -> str:
    claims = TokenPolicy(hs256_secret=SECRET.encode(), **policy)
    return mint(claims, CLOCK, user, device, ttl_s=ttl_s, scopes=scopes)


def metadata(user: str, device: str = "phone") -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token(user, device)}"),)


def reason_name(reason: int) -> str:
    return error_pb2.ErrorReason.Name(reason).removeprefix("ERROR_REASON_")  # type: ignore[arg-type]


async def until(condition: Callable[[], T], seconds: float = PATIENCE_S) -> T:
    """Waits until a condition holds."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if found:
                return found
            await asyncio.sleep(0.005)


@dataclass(frozen=True)
class Problem:
    """What a call or a stream ended with."""

    code: grpc.StatusCode
    reason: str
    field: str
    details: str
    retry: bool


def problem_of(
    code: grpc.StatusCode, details: str | None, trailers: Iterable[tuple[str, str | bytes]] | None
) -> Problem:
    reason = field = ""
    retry = False
    for key, value in trailers or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                    info = error_details_pb2.ErrorInfo.FromString(detail.value)
                    assert info.domain == "tidings"
                    reason = info.reason
                elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                    bad = error_details_pb2.BadRequest.FromString(detail.value)
                    (violation,) = bad.field_violations
                    field = violation.field
                elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                    retry = True
    return Problem(code, reason, field, details or "", retry)


async def refused(call: Awaitable[Any]) -> Problem:
    """Awaits a unary call that must fail."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return problem_of(error.code(), error.details(), error.trailing_metadata())
    raise AssertionError(f"the call was answered: {answer}")


class Taken:
    """What a device was told, and what it asks for, whatever its connection."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.events: list[event_pb2.Event] = []
        self._numbers = 0

    async def write(self, frame: bytes) -> None:
        raise NotImplementedError

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    async def send(
        self,
        *commands: chat_service_pb2.Command,
        acks: Iterable[tuple[str, int]] = (),
    ) -> None:
        request = ChatRequest(commands=commands)
        for log, seq in acks:
            request.acks.add(conversation_id=log, seq=seq)
        await self.send_request(request)

    async def send_request(self, request: chat_service_pb2.ChatRequest) -> None:
        await self.write(request.SerializeToString())

    def message(
        self, log: str, text: str, *, change_id: str = "", after: str = ""
    ) -> chat_service_pb2.Command:
        return Command(command_id=self.number(), send_message=message(log, text, change_id, after))

    async def post(self, log: str, text: str, *, change_id: str = "", after: str = "") -> int:
        """Sends a message and gives its position."""
        command = self.message(log, text, change_id=change_id, after=after)
        await self.send(command)
        result = await self.result(command.command_id)
        assert result.WhichOneof("outcome") == "send_message", result
        return result.send_message.seq

    # Reading

    async def until(self, condition: Callable[[], T], seconds: float = PATIENCE_S) -> T:
        """Waits until a condition on what came holds."""
        try:
            return await until(condition, seconds)
        except TimeoutError:
            kinds = [e.WhichOneof("event") for e in self.events[-20:]]
            raise AssertionError(f"{self.user} waits in vain: {kinds}") from None

    def of(self, kind: str) -> list[event_pb2.Event]:
        return [e for e in self.events if e.WhichOneof("event") == kind]

    def results(self) -> list[event_pb2.CommandResult]:
        return [e.result for e in self.of("result")]

    async def result(self, number: int) -> event_pb2.CommandResult:
        found = await self.until(lambda: [r for r in self.results() if r.command_id == number])
        assert len(found) == 1
        return found[0]

    async def error(self, number: int) -> tuple[grpc.StatusCode, str, str]:
        """The code, the reason and the field of a command that must fail."""
        result = await self.result(number)
        assert result.WhichOneof("outcome") == "error", result
        return error_of(result)

    def seqs(self, log: str) -> list[int]:
        return [e.entry.seq for e in self.of("entry") if e.entry.conversation_id == log]

    def texts(self, log: str) -> list[str]:
        return [
            e.entry.message.text
            for e in self.of("entry")
            if e.entry.conversation_id == log and e.entry.HasField("message")
        ]

    def applied(self, log: str, start: int = 0) -> int:
        """The position that the device has reached; each event must take it on by one step."""
        at = start
        for event in self.events:
            kind = event.WhichOneof("event")
            if kind == "entry" and event.entry.conversation_id == log:
                assert event.entry.seq == at + 1, (event.entry.seq, at)
                at = event.entry.seq
            elif kind == "skipped" and event.skipped.conversation_id == log:
                assert event.skipped.from_seq == at + 1
                at = event.skipped.to_seq
            elif kind == "gap" and event.gap.conversation_id == log:
                assert event.gap.from_seq == at + 1
                at = event.gap.to_seq
        return at

    async def level(self, log: str, head: int, start: int = 0) -> None:
        """Waits until everything up to a position came, in order."""
        await self.until(lambda: self.applied(log, start) >= head)
        assert self.applied(log, start) == head


class Device(Taken):
    """A device on a Chat stream. It keeps all events; frames are taken as they come unless `reads` is False."""

    def __init__(self, address: str, user: str, device: str = "phone", *, bearer: str = "") -> None:
        super().__init__(user)
        self.channel = grpc.aio.insecure_channel(address, CHANNEL_OPTIONS)
        self.ended: Problem | None = None
        self._chat = self.channel.stream_stream(
            CHAT,
            request_serializer=lambda raw: raw,
            response_deserializer=chat_service_pb2.ChatResponse.FromString,
        )
        self._call = self._chat(
            metadata=(("authorization", f"Bearer {bearer or token(user, device)}"),)
        )
        self._reader: asyncio.Task[None] | None = None
        self._reads = asyncio.Event()

    async def open(
        self,
        cursors: dict[str, int] | None = None,
        *,
        reads: bool = True,
        synced: bool = True,
        **hello: Any,
    ) -> Device:
        """Says hello."""
        if reads:
            self.read_on()
        request = chat_service_pb2.Hello(**hello)
        for log, seq in (cursors or {}).items():
            request.cursors.add(conversation_id=log, seq=seq)
        await self.send(Command(command_id=self.number(), hello=request))
        if reads and synced:
            await self.until(lambda: self.of("sync_complete"))
        return self

    def read_on(self) -> None:
        self._reads.set()
        if self._reader is None:
            self._reader = asyncio.get_running_loop().create_task(self._read())

    def stop_reading(self) -> None:
        """What comes stays on the way, but for one frame that is being read."""
        self._reads.clear()

    async def _read(self) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            while True:
                await self._reads.wait()
                frame = await self._call.read()
                if not isinstance(frame, chat_service_pb2.ChatResponse):
                    break
                self.events += frame.events
        code, details = await self._call.code(), await self._call.details()
        trailers = await self._call.trailing_metadata()
        self.ended = problem_of(code, details, trailers)

    async def close(self) -> None:
        self._call.cancel()
        self._reads.set()
        if self._reader is not None:
            await asyncio.wait([self._reader])
        await self.channel.close()

    async def write(self, frame: bytes) -> None:
        await self._call.write(frame)

    async def done_writing(self) -> None:
        await self._call.done_writing()

    async def over(self) -> Problem:
        """Waits until the stream has ended."""
        ended = await self.until(lambda: self.ended)
        assert ended is not None
        return ended


def error_of(result: event_pb2.CommandResult) -> tuple[grpc.StatusCode, str, str]:
    error = result.error
    (code,) = (c for c in grpc.StatusCode if c.value[0] == error.code)
    assert error.message
    return code, reason_name(error.reason), error.field


def message(
    log: str, text: str, change_id: str = "", after: str = ""
) -> message_pb2.SendMessageRequest:
    return message_pb2.SendMessageRequest(
        conversation_id=log,
        message_id=change_id or new_id(),
        content=message_pb2.MessageContent(text=text),
        after_message_id=after,
    )


class Caller:
    """A user who calls unary methods."""

    def __init__(self, address: str, user: str) -> None:
        self.user = user
        self.channel = grpc.aio.insecure_channel(address, CHANNEL_OPTIONS)
        self.metadata = metadata(user, "caller")
        self.conversations: Any = ConversationServiceStub(self.channel)
        self.messages: Any = MessageServiceStub(self.channel)
        self.receipts: Any = ReceiptServiceStub(self.channel)
        self.presence: Any = PresenceServiceStub(self.channel)

    async def close(self) -> None:
        await self.channel.close()

    async def group(self, *users: str, title: str = "Plan") -> str:
        request = conversation_service_pb2.CreateConversationRequest(
            request_id=new_id(),
            kind=conversation_pb2.CONVERSATION_KIND_GROUP,
            title=title,
            user_ids=users,
        )
        answer = await self.conversations.CreateConversation(
            request, metadata=self.metadata, timeout=PATIENCE_S
        )
        return str(answer.conversation.conversation_id)

    async def direct(self, user: str) -> str:
        request = conversation_service_pb2.CreateConversationRequest(
            kind=conversation_pb2.CONVERSATION_KIND_DIRECT, user_ids=[user]
        )
        answer = await self.conversations.CreateConversation(
            request, metadata=self.metadata, timeout=PATIENCE_S
        )
        return str(answer.conversation.conversation_id)

    async def add(self, log: str, *users: str) -> int:
        request = conversation_service_pb2.AddMembersRequest(
            conversation_id=log,
            request_id=new_id(),
            members=[conversation_pb2.Member(user_id=u) for u in users],
        )
        answer = await self.conversations.AddMembers(
            request, metadata=self.metadata, timeout=PATIENCE_S
        )
        return int(answer.seq)

    async def remove(self, log: str, user: str) -> int:
        request = conversation_service_pb2.RemoveMemberRequest(
            conversation_id=log, request_id=new_id(), user_id=user
        )
        answer = await self.conversations.RemoveMember(
            request, metadata=self.metadata, timeout=PATIENCE_S
        )
        return int(answer.seq)

    async def post(self, log: str, text: str, *, change_id: str = "") -> int:
        answer = await self.messages.SendMessage(
            message(log, text, change_id), metadata=self.metadata, timeout=PATIENCE_S
        )
        return int(answer.seq)

    async def history(
        self, log: str, *, start: int = 0, ascending: bool = True, size: int = 1000
    ) -> list[event_pb2.Event]:
        """A whole listing, page by page."""
        found: list[event_pb2.Event] = []
        request = message_service_pb2.ListHistoryRequest(
            conversation_id=log,
            from_seq=start,
            order=message_service_pb2.HISTORY_ORDER_ASCENDING
            if ascending
            else message_service_pb2.HISTORY_ORDER_DESCENDING,
            page_size=size,
        )
        while True:
            answer = await self.messages.ListHistory(
                request, metadata=self.metadata, timeout=PATIENCE_S
            )
            assert len(answer.events) <= size
            found += answer.events
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token
