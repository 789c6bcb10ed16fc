"""A whole node on a memory store and a virtual loop, with devices whose transport a test can stop and cut."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable
from itertools import count
from typing import TypeVar

import pytest

from tests.unit.made import content
from tests.unit.virtual_loop import VirtualClock
from tidings.v1 import chat_service_pb2, event_pb2, message_pb2
from tidings_server.bus.base import Bus
from tidings_server.bus.local import LocalBus
from tidings_server.codec.entries import decode_entries
from tidings_server.core import commands as c
from tidings_server.core.entries import ConversationKind, Entry, NewMember
from tidings_server.core.ids import id_bytes, uuid7
from tidings_server.core.limits import Limits
from tidings_server.core.pages import Page
from tidings_server.core.principal import Principal
from tidings_server.delivery.session import Session
from tidings_server.errors import DomainError, Reason
from tidings_server.messaging.forwarding import Dial
from tidings_server.messaging.proposals import Committed, PostMessage
from tidings_server.messaging.sequencer import Sequencer
from tidings_server.node import Node
from tidings_server.presence.base import Leases, NodeInfo
from tidings_server.storage.memory import Call, Fate, Happens, MemoryDisk, MemoryStore
from tidings_server.telemetry.tracing import NO_TRACER, Tracer

T = TypeVar("T")

HOUR_MS = 3_600_000
TOKEN_MS = 12 * HOUR_MS


async def until(condition: Callable[[], T], *, seconds: float = 60) -> T:
    """Waits, in virtual time, until a condition holds."""
    deadline = asyncio.get_running_loop().time() + seconds
    pause = 0.001
    while True:
        found = condition()
        if found:
            return found
        assert asyncio.get_running_loop().time() < deadline, "the condition does not come true"
        await asyncio.sleep(pause)
        pause = min(pause * 1.1, 0.5)


async def settled() -> None:
    """Returns when nothing moves any more without time passing."""
    for _ in range(100):
        await asyncio.sleep(0)


class Script:
    """Decides what happens to each call of the store: what was planned for it, otherwise it is done as asked."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.always: dict[str, Fate] = {}
        self._planned: defaultdict[str, deque[Fate]] = defaultdict(deque)

    def plan(self, method: str, *fates: Fate | Happens) -> None:
        """The next calls of a method go this way."""
        self._planned[method] += [f if isinstance(f, Fate) else Fate(f) for f in fates]

    def __call__(self, call: Call) -> Fate:
        self.calls[call.method] += 1
        if self._planned[call.method]:
            return self._planned[call.method].popleft()
        return self.always.get(call.method, Fate())


class Device:
    """A connected device: keeps the events that it is sent, and can stop reading or vanish."""

    def __init__(self, world: World, principal: Principal) -> None:
        self.world = world
        self.events: list[event_pb2.Event] = []
        self.frames: list[bytes] = []
        self.gone = False
        self._reading = asyncio.Event()
        self._reading.set()
        self._numbers = 0
        self.session: Session = world.node.open_session(principal, self)

    # The transport

    async def write(self, frame: bytes) -> None:
        await self._reading.wait()
        if self.gone:
            raise ConnectionError("the device has vanished")
        self.frames.append(frame)
        self.events += chat_service_pb2.ChatResponse.FromString(frame).events

    def stop_reading(self) -> None:
        self._reading.clear()

    def read_on(self) -> None:
        self._reading.set()

    def vanish(self) -> None:
        self.gone = True
        self._reading.set()

    # The client

    def send(
        self, *commands: chat_service_pb2.Command, acks: Iterable[tuple[str, int]] = ()
    ) -> None:
        request = chat_service_pb2.ChatRequest(commands=commands)
        for log, seq in acks:
            request.acks.add(conversation_id=log, seq=seq)
        self.session.receive(request.SerializeToString())

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    async def hello(
        self, cursors: dict[str, int] | None = None, *, synced: bool = True, **fields: int | str
    ) -> None:
        hello = chat_service_pb2.Hello(**fields)  # type: ignore[arg-type]
        for log, seq in (cursors or {}).items():
            hello.cursors.add(conversation_id=log, seq=seq)
        self.send(chat_service_pb2.Command(command_id=self.number(), hello=hello))
        if synced:
            await until(lambda: self.of("sync_complete"))

    def post(self, log: str, text: str, *, change_id: str = "", after: str = "") -> tuple[int, str]:
        """Sends a message; gives the number of the command and the id of the message."""
        number, change_id = self.number(), change_id or self.world.new_id()
        request = message_pb2.SendMessageRequest(
            conversation_id=log,
            message_id=change_id,
            content=message_pb2.MessageContent(text=text),
            after_message_id=after,
        )
        self.send(chat_service_pb2.Command(command_id=number, send_message=request))
        return number, change_id

    async def result(self, number: int) -> event_pb2.CommandResult:
        """The result of a command."""

        def found() -> event_pb2.CommandResult | None:
            return next((r for r in self.results() if r.command_id == number), None)

        result = await until(found)
        assert result is not None
        return result

    # What it got

    def of(self, kind: str) -> list[event_pb2.Event]:
        return [e for e in self.events if e.WhichOneof("event") == kind]

    def results(self) -> list[event_pb2.CommandResult]:
        return [e.result for e in self.of("result")]

    def seqs(self, log: str) -> list[int]:
        return [e.entry.seq for e in self.of("entry") if e.entry.conversation_id == log]

    def applied(self, log: str, start: int = 0) -> int:
        """The position that the device has reached, checking that each event takes it on by one step."""
        at = start
        for event in self.events:
            match event.WhichOneof("event"):
                case "entry" if event.entry.conversation_id == log:
                    assert event.entry.seq == at + 1, (event.entry.seq, at)
                    at = event.entry.seq
                case "skipped" if event.skipped.conversation_id == log:
                    assert event.skipped.from_seq == at + 1
                    at = event.skipped.to_seq
                case "gap" if event.gap.conversation_id == log:
                    assert event.gap.from_seq == at + 1
                    at = event.gap.to_seq
        return at


class World:
    """One node. `script` decides what its store does."""

    _worlds = count()

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        disk: MemoryDisk | None = None,
        shared: bool = False,
        bus: Bus | None = None,
        leases: Leases | None = None,
        dial: Dial | None = None,
        ask: Callable[[NodeInfo, bytes], Awaitable[bytes]] | None = None,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self.tracer = tracer
        self.leases = leases
        self.dial = dial
        self.ask = ask
        self.shared = shared
        self.bus = bus
        self.rng = random.Random(next(self._worlds))
        self.clock = VirtualClock()
        self.script = Script()
        self.disk = disk or MemoryDisk()
        self.limits = limits
        self.node = self._make()

    def _make(self) -> Node:
        self.store = MemoryStore(
            self.disk, new_id=self.new_id, faults=self.script, shared=self.shared
        )
        bus = self.bus or LocalBus()
        return Node(
            self.store,
            bus,
            self.clock,
            self.rng,
            self.verify,
            limits=self.limits,
            leases=self.leases,
            dial=self.dial,
            ask=self.ask,
            tracer=self.tracer,
        )

    async def start(self) -> World:
        await self.store.open()
        await self.node.start()
        return self

    async def stop(self) -> None:
        await self.node.stop()
        await self.store.close()

    async def restart(self) -> None:
        """The same data, nothing in memory."""
        await self.stop()
        self.node = self._make()
        await self.start()

    def new_id(self) -> str:
        return uuid7(self.clock.now_ms(), self.rng)

    def change_id(self, text: str = "") -> c.ChangeId:
        text = text or self.new_id()
        raw = id_bytes(text)
        return c.ChangeId(text, raw, int.from_bytes(raw[:6], "big"))

    async def verify(self, token: str) -> Principal:
        """Tokens are "user/device" or "user/device/milliseconds that it is good for"."""
        user, device, *rest = token.split("/")
        if not user:
            raise DomainError(Reason.TOKEN_INVALID, "The token names nobody.")
        return self.principal(user, device, int(rest[0]) if rest else TOKEN_MS)

    def principal(self, user: str, device: str = "phone", good_for_ms: int = TOKEN_MS) -> Principal:
        return Principal(user, device, self.clock.now_ms() + good_for_ms)

    def device(self, user: str, device: str = "phone", good_for_ms: int = TOKEN_MS) -> Device:
        return Device(self, self.principal(user, device, good_for_ms))

    async def execute(self, user: str, command: c.Command) -> c.Result:
        return await self.node.handlers.execute(self.principal(user), command)

    async def group(self, *users: str) -> str:
        """A new group of the first user and the others."""
        got = await self.execute(
            users[0],
            c.CreateConversation(ConversationKind.GROUP, users[1:], "Plan", self.change_id()),
        )
        assert isinstance(got, c.ConversationGot)
        return got.view.conversation_id

    async def direct(self, one: str, other: str) -> str:
        got = await self.execute(one, c.CreateConversation(ConversationKind.DIRECT, (other,)))
        assert isinstance(got, c.ConversationGot)
        return got.view.conversation_id

    async def post(
        self, log: str, user: str, text: str = "x", *, change_id: str = "", after: str = ""
    ) -> int:
        """Posts a message and gives its position."""
        got = await self.execute(user, self.message(log, text, change_id=change_id, after=after))
        assert isinstance(got, c.Sent)
        return got.seq

    def message(
        self, log: str, text: str = "x", *, change_id: str = "", after: str = ""
    ) -> c.SendMessage:
        return c.SendMessage(
            log,
            self.change_id(change_id),
            content(text),
            self.change_id(after) if after else None,
        )

    async def add(self, log: str, by: str, *users: str) -> int:
        members = tuple(NewMember(u) for u in users)
        got = await self.execute(by, c.AddMembers(log, self.change_id(), members))
        assert isinstance(got, c.ConversationChanged)
        return got.seq

    async def remove(self, log: str, by: str, user: str) -> int:
        change = self.change_id()
        command = (
            c.LeaveConversation(log, change) if by == user else c.RemoveMember(log, change, user)
        )
        got = await self.execute(by, command)
        assert isinstance(got, c.ConversationChanged)
        return got.seq

    # What is stored

    def pages(self, log: str) -> list[Page]:
        return self.disk.read(log, 0, 1 << 40, None)

    def entries(self, log: str) -> list[Entry]:
        """What is in the log, which has no gaps."""
        found = [e for page in self.pages(log) for e in decode_entries(page.body)]
        assert [e.seq for e in found] == list(range(1, len(found) + 1))
        return found

    def texts(self, log: str) -> list[str]:
        """The messages in the log, in order."""
        return [
            message_pb2.MessageContent.FromString(e.body.content).text
            for e in self.entries(log)
            if hasattr(e.body, "content")
        ]


class Sent:
    """Messages under way, with what each of them was answered."""

    def __init__(self, sequencer: Sequencer, world: World) -> None:
        self.sequencer = sequencer
        self.world = world
        self.answers: dict[str, list[Committed | DomainError]] = {}
        self.texts: dict[str, str] = {}

    def post(self, log: str, user: str, text: str, *, again: str = "", after: str = "") -> str:
        change = self.world.change_id(again)
        answers = self.answers.setdefault(change.text, [])
        self.texts[change.text] = text
        self.sequencer.submit(
            PostMessage(
                log,
                change,
                user,
                answers.append,
                content(text),
                self.world.change_id(after) if after else None,
            )
        )
        return change.text

    async def answered(self) -> None:
        await until(lambda: all(self.answers.values()))

    def seq(self, change: str) -> int:
        (answer,) = self.answers[change]
        assert isinstance(answer, Committed), answer
        return answer.seq

    def reason(self, change: str) -> Reason:
        (answer,) = self.answers[change]
        assert isinstance(answer, DomainError), answer
        return answer.reason


async def refusal(world: World, user: str, command: c.Command) -> DomainError:
    with pytest.raises(DomainError) as caught:
        await world.execute(user, command)
    return caught.value
