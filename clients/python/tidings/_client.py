"""The client: what an application holds."""

from __future__ import annotations

import asyncio
import copy
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import Message as ProtoMessage

from ._calls import Operations
from ._config import ClientConfig
from ._outbox import Outgoing, SendState
from ._runner import Runner
from ._sends import Outcome
from ._state import MemoryStateStore, StateStore
from ._tokens import TokenProvider, TokenSource
from ._transport import Transport
from .errors import (
    Cancelled,
    ClientClosed,
    Code,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    TidingsError,
    Unavailable,
)
from .events import ConnectionState, ConnectionStatus, Event, MessagePending, MessageSent
from .mentions import Mention, to_wire
from .v1 import message_pb2

if TYPE_CHECKING:
    from types import TracebackType

    from ._raw import RawStubs

_EVENTS_IN_A_ROW = 64
_ResponseT = TypeVar("_ResponseT", bound=ProtoMessage)


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class SendHandle:
    """An own message on its way.

    Attributes:
        conversation_id: The conversation.
        message_id: The id of the message. It changes at most once, before the message is first sent and only when the
            device's clock was far ahead; a MessagePending tells.
        seq: Its position once it was sent, or None.
        error: Why it failed for good, or None.
    """

    def __init__(self, client: Client, item: Outgoing) -> None:
        self._client = client
        self._future: asyncio.Future[int] | None = None
        self.conversation_id = item.message.conversation_id
        self.message_id = item.message.message_id
        self.seq: int | None = None
        self.error: TidingsError | None = None

    async def sent(self) -> int:
        """Wait until the server has the message for good, whatever happens meanwhile; returns its position.

        Raises the TidingsError for which it was refused for good, ClientClosed when the client was closed, or why the
        session ended. In the last two cases the message stays in the outbox and is sent by the next client that uses
        the state.
        """
        if self.seq is not None:
            return self.seq
        if self.error is not None:
            self._client._runner.forget_failed(self.message_id)  # noqa: SLF001
            raise copy.copy(self.error)
        ended = self._client._runner.ended  # noqa: SLF001
        if ended is not None:
            raise copy.copy(ended)
        if self._future is None:
            self._future = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._future])
        return await self.sent()

    async def cancel(self) -> bool:
        """Take the message out of the outbox; returns whether it was still there and could be taken.

        If it was sent already without a result, it may yet appear in the conversation.
        """
        return await self._client.discard(self.message_id)

    def _settle(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(0)


class EventStream(AsyncIterator[Event]):
    """The events of a client, in order. See `Client.events`."""

    def __init__(self, runner: Runner, *, auto_apply: bool) -> None:
        self._runner = runner
        self._auto_apply = auto_apply
        self._previous: Event | None = None
        self._asked = False
        self._in_a_row = 0

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        if self._asked:
            raise FailedPrecondition("another task is waiting for events already")
        runner = self._runner
        previous, self._previous = self._previous, None
        if previous is not None and self._auto_apply:
            runner.applied(previous)
        self._asked = True
        try:
            if self._in_a_row >= _EVENTS_IN_A_ROW:
                # A backlog must not keep acknowledgements and everybody else waiting.
                self._in_a_row = 0
                await asyncio.sleep(0)
            while True:
                event = runner.core.next_event()
                if event is not None:
                    self._in_a_row += 1
                    self._previous = event
                    return event
                self._in_a_row = 0
                if runner.ended is not None:
                    if isinstance(runner.ended, ClientClosed):
                        raise StopAsyncIteration
                    raise copy.copy(runner.ended)
                await runner.changed()
        finally:
            self._asked = False


class Client(Operations):
    """One device of one user.

    Use it as an async context manager. Entering reads the state and begins to connect, without waiting for it: what is
    sent before, or while offline, waits in the outbox. Leaving saves and acknowledges what was applied.

    Args:
        target: Where the server is, as gRPC names it: "localhost:50051", "dns:///chat.example.com:443".
        token_provider: Gives the bearer token; called again when a token is refused or about to expire.
        state: Where the outbox and the positions are kept: a path for a file of its own that survives restarts, a
            StateStore, or None to keep them for as long as the client lives.
        config: The settings.
        transport: A transport to use in place of gRPC; it is given the target and the settings.
        wall_clock: The device's clock, in milliseconds since the Unix epoch.
        rng: Where ids and jitter come from.
    """

    def __init__(
        self,
        target: str,
        *,
        token_provider: TokenProvider,
        state: StateStore | str | os.PathLike[str] | None = None,
        config: ClientConfig | None = None,
        transport: Callable[[str, ClientConfig], Transport] | None = None,
        wall_clock: Callable[[], int] = _wall_clock_ms,
        rng: random.Random | None = None,
    ) -> None:
        self.config = config or ClientConfig()
        self._target = target
        self._make_transport = transport
        self._token_provider = token_provider
        self._state = state
        self._wall_clock = wall_clock
        # Ids must not collide across devices: the system's randomness unless a simulation brings its own.
        self._rng = rng or random.SystemRandom()
        self._opened: Runner | None = None
        self._transport: Transport | None = None
        self._stream: EventStream | None = None
        self._handles: dict[str, SendHandle] = {}

    @property
    def _runner(self) -> Runner:
        if self._opened is None:
            raise ClientClosed("the client isn't open: use it as an async context manager")
        return self._opened

    # Opening and closing

    async def __aenter__(self) -> Client:
        """Read the state and begin to connect. Raises StateError when the state can't be used."""
        if self._opened is not None:
            raise FailedPrecondition("a client is opened once; make another one")
        store = self._state
        if store is None:
            store = MemoryStateStore()
        elif isinstance(store, (str, os.PathLike)):
            from ._sqlite import FileStateStore  # noqa: PLC0415

            store = FileStateStore(store)
        make = self._make_transport
        if make is None:
            # grpc takes a while to import: only those pay who connect.
            from ._grpc import GrpcTransport  # noqa: PLC0415

            make = GrpcTransport
        transport = make(self._target, self.config)
        runner = Runner(
            config=self.config,
            store=store,
            transport=transport,
            tokens=TokenSource(self._token_provider),
            wall_clock_ms=self._wall_clock,
            rng=self._rng,
        )
        runner.on_outcome = self._on_outcome
        runner.on_end = self._on_end
        try:
            await runner.start()
        except BaseException:
            await transport.close()
            raise
        self._transport = transport
        self._opened = runner
        self._stream = EventStream(runner, auto_apply=self.config.auto_apply)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Save and acknowledge what was applied, and let go of everything. The outbox is kept by the state store."""
        await self._runner.stop()

    # The connection

    @property
    def connection(self) -> ConnectionState:
        """How the client stands to the server now."""
        return self._runner.state

    @property
    def user_id(self) -> str | None:
        """The user of the token, or None before the first connection."""
        return self._runner.core.session.user_id or None

    @property
    def device_id(self) -> str | None:
        """The device of the token, or None before the first connection."""
        return self._runner.core.session.device_id or None

    @property
    def clock_offset_ms(self) -> int:
        """What is to be added to the device's clock to get the server's, in milliseconds; 0 until it is known."""
        runner = self._runner
        return runner.core.clock.offset_ms(runner.loop.time())

    async def wait_online(self) -> None:
        """Wait until the client is online, whatever happens meanwhile. Raises why the session ended, if it does."""
        runner = self._runner
        while runner.state.status is not ConnectionStatus.ONLINE:
            if runner.ended is not None:
                raise copy.copy(runner.ended)
            await runner.changed()

    # Events

    def events(self) -> EventStream:
        """The events, for one task at a time: `async for event in client.events()`.

        Asking for the next event says that the one before was applied: its position is then stored, acknowledged to the
        server and not offered again. An event that was handed over and not followed by another is offered again to the
        next process. With `auto_apply=False` the application says so itself, by `applied`.

        The iteration ends when the client is closed, and raises TidingsError when the session ended for good.
        """
        self._runner.core  # noqa: B018
        assert self._stream is not None
        return self._stream

    def applied(self, event: Event) -> None:
        """Say that an event was applied durably, and with it all events before it. For `auto_apply=False`."""
        self._runner.applied(event)

    # Sending

    async def send(
        self,
        conversation_id: str,
        text: str,
        *,
        reply_to: str | None = None,
        mentions: Sequence[Mention] = (),
    ) -> SendHandle:
        """Queue a message; it returns once the message is durable in the outbox and so will be sent, once and in order.

        Args:
            conversation_id: The conversation.
            text: From 1 to 16,384 bytes of UTF-8; delivered exactly as it is.
            reply_to: The id of the message that it replies to.
            mentions: Who is mentioned, in the order of the text, without overlaps; see `mentions_in`.

        Raises:
            InvalidArgument: The text is empty or too long, or no valid Unicode, or a mention lies outside of it.
            ResourceExhausted: The outbox is full.
            StateError: The outbox can't be written.
            ClientClosed: The client is closed.
            TidingsError: The session has ended for good.
        """
        runner = self._runner
        core = runner.core
        if runner.ended is not None:
            raise copy.copy(runner.ended)
        if not conversation_id:
            raise InvalidArgument("a conversation is required", field="conversation_id")
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            raise InvalidArgument("the text is no valid Unicode", field="text") from error
        if not 1 <= size <= core.limits.max_text_bytes:
            raise InvalidArgument(
                f"the text has {size} bytes; from 1 to {core.limits.max_text_bytes} are allowed",
                field="text",
            )
        if len(core.outbox) >= self.config.max_queued_messages:
            raise ResourceExhausted(f"the outbox holds {len(core.outbox)} messages already")
        content = message_pb2.MessageContent(
            text=text, reply_to_message_id=reply_to or "", mentions=to_wire(text, mentions)
        )
        handles: list[SendHandle] = []

        def made(item: Outgoing) -> None:
            handle = SendHandle(self, item)
            self._handles[handle.message_id] = handle
            handles.append(handle)

        # Once begun it is finished even if the caller is cancelled: half a message in the outbox would be neither.
        try:
            await runner.finish(runner.enqueue(conversation_id, content.SerializeToString(), made))
        except TidingsError:
            for handle in handles:
                self._handles.pop(handle.message_id, None)
            raise
        return handles[0]

    def pending(self) -> list[SendHandle]:
        """The messages that wait in the outbox, those of earlier processes included, in order."""
        handles = []
        for item in self._runner.core.outbox:
            if item.state is not SendState.FAILED:
                message_id = item.message.message_id
                handle = self._handles.get(message_id)
                if handle is None:
                    handle = self._handles[message_id] = SendHandle(self, item)
                handles.append(handle)
        return handles

    async def discard(self, message_id: str) -> bool:
        """Take a message out of the outbox, also a failed one. See SendHandle.cancel. Raises StateError."""
        runner = self._runner
        item = runner.core.outbox.get(message_id)
        if item is None or item.state is SendState.HELD:
            return False
        if item.state is SendState.FAILED:
            runner.forget_failed(message_id)
            return True
        await runner.finish(runner.discard(item))
        handle = self._handles.pop(message_id, None)
        if handle is not None:
            handle.error = Cancelled("the message was taken out of the outbox")
            handle._settle()  # noqa: SLF001
        return True

    def _on_outcome(self, outcome: Outcome) -> None:
        if isinstance(outcome, MessagePending):
            handle = self._handles.pop(outcome.replaces or "", None)
            if handle is not None:
                handle.message_id = outcome.message_id
                self._handles[outcome.message_id] = handle
            return
        handle = self._handles.pop(outcome.message_id, None)
        if handle is None:
            return
        if isinstance(outcome, MessageSent):
            handle.seq = outcome.seq
        else:
            handle.error = outcome.error
        handle._settle()  # noqa: SLF001

    def _on_end(self, error: TidingsError) -> None:  # noqa: ARG002
        for handle in self._handles.values():
            handle._settle()  # noqa: SLF001

    # Unary operations

    @property
    def raw(self) -> RawStubs:
        """The generated stubs on the client's own channel, with its token. Only over gRPC."""
        from ._grpc import GrpcTransport  # noqa: PLC0415
        from ._raw import RawStubs  # noqa: PLC0415

        if not isinstance(self._transport, GrpcTransport):
            raise FailedPrecondition("the generated stubs need the gRPC transport")
        return RawStubs(self._transport, self._runner.tokens)

    async def _call(
        self, method: str, request: ProtoMessage, parse: Callable[[bytes], _ResponseT]
    ) -> _ResponseT:
        runner = self._runner
        assert self._transport is not None
        if isinstance(runner.ended, ClientClosed):
            raise copy.copy(runner.ended)
        payload = request.SerializeToString()
        deadline = runner.loop.time() + self.config.call_timeout
        try:
            async with asyncio.timeout_at(deadline):
                return parse(await self._try(self._transport, method, payload, deadline))
        except TimeoutError:
            raise DeadlineExceeded(
                f"{method} took longer than {self.config.call_timeout:g} s"
            ) from None

    async def _try(
        self, transport: Transport, method: str, payload: bytes, deadline: float
    ) -> bytes:
        """Call until the answer is final; a refused token is replaced once."""
        runner = self._runner
        attempt = 0
        renewed = False
        token = ""
        while True:
            try:
                token = await runner.token()
                left = max(0.001, deadline - runner.loop.time())
                return await transport.call(method, payload, token, left)
            except TidingsError as error:
                if error.code is Code.UNAUTHENTICATED and not renewed:
                    runner.tokens.refused(token)
                    renewed = True
                    continue
                delay = self.config.backoff.delay(attempt, self._rng, error.retry_after or 0.0)
                passing = error.code is Code.UNAVAILABLE or (
                    error.code is Code.RESOURCE_EXHAUSTED and error.retry_after is not None
                )
                if not passing or runner.loop.time() + delay >= deadline:
                    raise
            attempt += 1
            await asyncio.sleep(delay)

    async def _own_user_id(self) -> str:
        runner = self._runner
        try:
            async with asyncio.timeout(self.config.call_timeout):
                while not runner.core.session.user_id:
                    if runner.ended is not None:
                        raise copy.copy(runner.ended)
                    await runner.changed()
        except TimeoutError:
            raise Unavailable("the client has never been connected yet") from None
        return runner.core.session.user_id

    def _new_id(self) -> str:
        runner = self._runner
        return runner.core.ids.make(runner.core.clock.now_ms(runner.loop.time()))
