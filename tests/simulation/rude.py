"""Devices that speak raw frames and behave badly: they read slowly, acknowledge late or never, say nonsense, repeat
themselves, claim positions that they don't have, and leave without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tidings import ConnectionLost, EndOfStream, TidingsError
from tidings.v1 import chat_service_pb2, conversation_pb2, event_pb2, message_pb2
from tidings_server.core.ids import is_inbox, uuid7

from .call_watch import CallWatch
from .clock import SimClock
from .loop import Process, SimLoop
from .network import DeviceEnd, Network
from .stream_watch import StreamWatch
from .watch import Judge


@dataclass(frozen=True, slots=True)
class Manners:
    """How a device behaves.

    `read_delay` seconds pass between two reads. Of its acknowledgements the share `acks` is sent. Cursors are "own",
    "none", "old" or "odd". Ids lie up to `ahead_ms` ahead of the device's clock.
    """

    read_delay: float = 0.0
    acks: float = 1.0
    cursors: str = "own"
    window: int = 0
    ahead_ms: int = 0


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that was sent once, to be sent again."""

    conversation: str
    message_id: str
    text: str


class RudeDevice:
    """One device without the SDK. What it knows outlives its process."""

    def __init__(
        self,
        loop: SimLoop,
        network: Network,
        judge: Judge,
        rng: random.Random,
        clock: SimClock,
        user: str,
        device: str,
        manners: Manners,
        token: Callable[[str, str], str],
    ) -> None:
        self.loop = loop
        self.user = user
        self.device = device
        self.process: Process | None = None
        self.watch: StreamWatch | None = None
        self.positions: dict[str, int] = {}
        self.sent: list[Sent] = []
        self.manners = manners
        self.connects = 0
        self._network = network
        self._judge = judge
        self._rng = rng
        self.clock = clock
        self._token = token
        self._end: DeviceEnd | None = None
        self._incarnation = ""
        self._acking: asyncio.Task[None] | None = None
        self._beat = 6.0
        self._texts = 0
        self._changes: list[chat_service_pb2.Command] = []
        self._calls = CallWatch(judge, user, device)
        self._next = 1
        self.calm = False

    @property
    def name(self) -> str:
        """User and device."""
        return f"{self.user}/{self.device}"

    def start(self) -> None:
        """Starts the program."""
        self.process = Process(f"{self.name}-{self.connects}")
        self._acking = None
        self.loop.spawn(self.process, self._run())

    def crash(self, *, power: bool) -> None:
        """Kills the program. It has nothing on a disk that could be lost."""
        if self.process is not None:
            self.loop.kill(self.process)
            self._network.device_died(self.process)
            self.process = self._end = self.watch = None

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TidingsError, EndOfStream):
                await self._session()
            self._end = self.watch = None
            await asyncio.sleep(self._rng.uniform(0.05, 1.5))

    async def _session(self) -> None:
        self.connects += 1
        assert self.process is not None
        watch = StreamWatch(self._judge, self.user, self.device, self.connects)
        token = self._token(self.user, self.device)
        end = await self._network.connect(self.process, token, watch)
        self.watch = watch
        self._next = 1
        hello = chat_service_pb2.Hello(
            incarnation=self._incarnation, window=self.manners.window, client="rude"
        )
        for name, seq in self._cursors():
            hello.cursors.add(conversation_id=name, seq=seq)
        try:
            await self._command(end, hello=hello)
            self._end = end
            while True:
                async with asyncio.timeout(2.5 * self._beat):
                    frame = await end.receive()
                self._take(frame)
                self._acknowledge(end)
                if self.manners.read_delay and not self.calm:
                    await asyncio.sleep(self.manners.read_delay * self._rng.random())
        except TimeoutError:
            raise ConnectionLost("nothing came for too long") from None
        finally:
            self._end = None
            await end.close(graceful=False)

    def _cursors(self) -> list[tuple[str, int]]:
        rng, mine = self._rng, self.positions
        kind = "own" if self.calm else self.manners.cursors
        if kind == "none":
            return []
        if kind == "own":
            return list(mine.items())
        if kind == "old":
            return [(name, rng.randint(0, seq)) for name, seq in mine.items() if rng.random() < 0.8]
        # Who claims a note of the inbox that was never sent doesn't hear of what it tells of.
        odd = [
            (name, max(0, seq + rng.randint(-5, 0 if is_inbox(name) else 9)))
            for name, seq in mine.items()
        ]
        odd.append((uuid7(self.clock.now_ms(), rng), 3))
        odd.append(("inbox:somebody-else", 1))
        odd.append(("no log at all", -1))
        return odd

    def _take(self, frame: bytes) -> None:
        for event in chat_service_pb2.ChatResponse.FromString(frame).events:
            match event.WhichOneof("event"):
                case "entry":
                    self.positions[event.entry.conversation_id] = event.entry.seq
                case "skipped":
                    self.positions[event.skipped.conversation_id] = event.skipped.to_seq
                case "gap":
                    self.positions[event.gap.conversation_id] = event.gap.to_seq
                case "welcome":
                    self._incarnation = event.welcome.incarnation
                    self._beat = event.welcome.limits.beacon_interval_ms / 1000
                case "result":
                    self._take_result(event.result)

    def _take_result(self, result: event_pb2.CommandResult) -> None:
        for refusal in result.hello.refused_cursors:
            if refusal.seq:
                self.positions[refusal.conversation_id] = refusal.seq
            else:
                self.positions.pop(refusal.conversation_id, None)

    def _acknowledge(self, end: DeviceEnd) -> None:
        acks = 1.0 if self.calm else self.manners.acks
        if self._rng.random() >= acks:
            return
        request = chat_service_pb2.ChatRequest()
        for name, seq in self.positions.items():
            request.acks.add(conversation_id=name, seq=seq)
        if request.acks and (self._acking is None or self._acking.done()):
            # By a task of its own: whoever reads nothing while it can't write waits for ever.
            self._acking = self.loop.spawn(self.process, self._send(end, request))

    async def _send(self, end: DeviceEnd, request: chat_service_pb2.ChatRequest) -> None:
        with suppress(TidingsError):
            await end.send(request.SerializeToString())

    async def _command(self, end: DeviceEnd, **command: object) -> None:
        request = chat_service_pb2.ChatRequest()
        request.commands.add(command_id=self._next, **command)
        self._next += 1
        await end.send(request.SerializeToString())

    # What the workload makes it do

    def act(self, kind: str, conversation: str) -> None:
        """Begins something, if the device is connected."""
        end = self._end
        if end is not None and self.process is not None:
            self.loop.spawn(self.process, self._act(end, kind, conversation))

    async def _act(self, end: DeviceEnd, kind: str, conversation: str) -> None:
        rng = self._rng
        request = chat_service_pb2.ChatRequest()
        try:
            if kind == "garbage":
                await end.send(rng.randbytes(rng.randint(1, 60)))
            elif kind == "nonsense":
                await end.send(self._nonsense(conversation))
            elif kind == "again" and self.sent:
                old = rng.choice(self.sent[-40:])
                self._add(request, old)
                if rng.random() < 0.4:
                    self._add(request, old)
                await end.send(request.SerializeToString())
            elif kind == "again by call" and self.sent:
                await self._send_by_call(rng.choice(self.sent[-40:]))
            elif kind == "change":
                self._add_change(request, conversation)
                await end.send(request.SerializeToString())
            elif kind == "crossed":
                # Messages on both sides of a change come in one go.
                self._add(request, self._new(conversation))
                self._add_change(request, conversation)
                for _ in range(3):
                    self._add(request, self._new(conversation))
                await end.send(request.SerializeToString())
            elif kind == "other content" and self.sent:
                old = rng.choice(self.sent[-40:])
                self._add(request, Sent(old.conversation, old.message_id, f"{old.text} (changed)"))
                await end.send(request.SerializeToString())
            else:
                for _ in range(rng.choice((1, 1, 2, 6))):
                    self._add(request, self._new(conversation))
                await end.send(request.SerializeToString())
        except TidingsError:
            pass

    async def _send_by_call(self, sent: Sent) -> None:
        """What was sent by the stream comes by a unary call."""
        request = message_pb2.SendMessageRequest(
            conversation_id=sent.conversation,
            message_id=sent.message_id,
            content=message_pb2.MessageContent(text=sent.text),
        )
        await self._network.call(
            "tidings.v1.MessageService/SendMessage",
            request.SerializeToString(),
            self._token(self.user, self.device),
            10.0,
            self._calls,
        )

    def _add_change(self, request: chat_service_pb2.ChatRequest, conversation: str) -> None:
        """A change of who is in a conversation, by the stream; sometimes one that was asked for before."""
        rng = self._rng
        change_id = uuid7(self.clock.now_ms(), rng)
        if self._changes and rng.random() < 0.3:
            request.commands.add(command_id=self._next).MergeFrom(rng.choice(self._changes))
            request.commands[-1].command_id = self._next
            self._next += 1
            return
        command = request.commands.add(command_id=self._next)
        self._next += 1
        user = f"user{rng.randrange(3)}"
        match rng.randrange(14):
            case 8 | 9 | 10 | 11 | 12:
                self._govern(command, conversation, change_id, user)
            case 13:
                command.set_pin.conversation_id = conversation
                command.set_pin.request_id = change_id
                command.set_pin.seq = rng.randint(1, self.positions.get(conversation, 9) + 2)
                command.set_pin.pinned = rng.random() < 0.6
            case 7:
                command.set_reaction.conversation_id = conversation
                command.set_reaction.request_id = change_id
                command.set_reaction.seq = rng.randint(1, self.positions.get(conversation, 9) + 2)
                command.set_reaction.reaction = rng.choice(("👍", ""))
            case 6:
                command.delete_message.conversation_id = conversation
                command.delete_message.request_id = change_id
                command.delete_message.seq = rng.randint(1, self.positions.get(conversation, 9) + 2)
            case 4 | 5:
                command.edit_message.conversation_id = conversation
                command.edit_message.request_id = change_id
                command.edit_message.seq = rng.randint(1, self.positions.get(conversation, 9) + 2)
                command.edit_message.content.text = f"{self.name} edits {len(self._changes)}"
            case 0:
                command.create_conversation.request_id = change_id
                command.create_conversation.kind = conversation_pb2.CONVERSATION_KIND_GROUP
                command.create_conversation.user_ids.append(user)
            case 1:
                command.add_members.conversation_id = conversation
                command.add_members.request_id = change_id
                command.add_members.members.add(user_id=user)
            case 2:
                command.remove_member.conversation_id = conversation
                command.remove_member.request_id = change_id
                command.remove_member.user_id = user
            case _:
                command.leave_conversation.conversation_id = conversation
                command.leave_conversation.request_id = change_id
        self._changes.append(command)

    def _govern(
        self, command: chat_service_pb2.Command, conversation: str, change_id: str, user: str
    ) -> None:
        """Does what moderators, admins and owners may do."""
        rng = self._rng
        if rng.random() < 0.2:
            command.update_conversation.conversation_id = conversation
            command.update_conversation.request_id = change_id
            command.update_conversation.settings.title = rng.choice(("", "rude", self.name))
            command.update_conversation.update_mask.paths.append("title")
            return
        name = rng.choice(("transfer_ownership", "set_role", "set_mute", "set_ban"))
        request = getattr(command, name)
        request.conversation_id, request.request_id = conversation, change_id
        request.user_id = user
        if name == "set_role":
            request.role = rng.choice(conversation_pb2.MemberRole.values()[1:])
        elif name != "transfer_ownership":
            request.expire_time.FromMilliseconds(self.clock.now_ms() + 5000)

    def _new(self, conversation: str) -> Sent:
        self._texts += 1
        now = self.clock.now_ms() + int(self._rng.random() * self.manners.ahead_ms)
        sent = Sent(conversation, uuid7(now, self._rng), f"{self.name}!{self._texts}")
        self.sent.append(sent)
        return sent

    def _add(self, request: chat_service_pb2.ChatRequest, sent: Sent) -> None:
        request.commands.add(
            command_id=self._next,
            send_message=message_pb2.SendMessageRequest(
                conversation_id=sent.conversation,
                message_id=sent.message_id,
                content=message_pb2.MessageContent(text=sent.text),
            ),
        )
        self._next += 1

    def _nonsense(self, conversation: str) -> bytes:
        """Commands that each must be refused, or do nothing."""
        request = chat_service_pb2.ChatRequest()
        rng = self._rng
        now = self.clock.now_ms()
        for _ in range(rng.randint(1, 4)):
            command = request.commands.add(command_id=self._next)
            self._next += 1
            match rng.randrange(6):
                case 0:
                    command.hello.client = "again"
                case 1:
                    command.send_message.conversation_id = conversation
                    command.send_message.message_id = "no id"
                    command.send_message.content.text = "x"
                case 2:
                    command.send_message.conversation_id = uuid7(now, rng)
                    command.send_message.message_id = uuid7(now, rng)
                    command.send_message.content.text = "to nobody"
                case 3:
                    command.send_message.conversation_id = conversation
                    command.send_message.message_id = uuid7(now + 3_600_000, rng)
                    command.send_message.content.text = "from the future"
                case 4:
                    command.send_message.conversation_id = conversation
                    command.send_message.message_id = uuid7(now, rng)
                    command.send_message.after_message_id = uuid7(now, rng)
                    command.send_message.content.text = "after what never was"
                case _:
                    command.mark_read.conversation_id = conversation
                    command.mark_read.seq = rng.randint(1, 500)
        request.acks.add(conversation_id=conversation, seq=rng.randint(0, 10_000))
        return request.SerializeToString()
