"""Watches one Chat stream: what the device says, and whether everything that the server says fits."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from tidings.v1 import chat_service_pb2, event_pb2

from .attempts import Attempt
from .violation import Violation
from .watch import Judge, begin_attempt, reason_name

DEFAULT_WINDOW = 1024
_ANSWER_S = 2.0
"""Within this time a command has its result when all is well: more than the longest way there and back."""


@dataclass(slots=True)
class _Command:
    what: str
    at: float
    attempt: Attempt | None
    name: str


def digest_of(positions: dict[str, int]) -> tuple[int, int]:
    """The digest of a beacon, as the contract has it, and the number of logs in it."""
    total = count = 0
    for name, seq in positions.items():
        if seq:
            total += int.from_bytes(hashlib.sha256(f"{name}:{seq}".encode()).digest()[:8], "big")
            count += 1
    return total % 2**64, count


class StreamWatch:
    """One stream of one device."""

    def __init__(self, judge: Judge, user: str, device: str, number: int) -> None:
        self._judge = judge
        self.user = user
        self.who = f"{user}/{device}#{number}"
        self._commands: dict[int, _Command] = {}
        self._open_commands: dict[int, int] = {}
        self.positions: dict[str, int] = {}
        """How far the device was brought in each log of the session."""
        self._hello: chat_service_pb2.Hello | None = None
        self._due: dict[str, int] = {}
        self._welcomed = self._resumed = self._ended = False
        self.synced = False
        self._flying: dict[str, deque[int]] = {}
        self._claimed: dict[str, int] = {}
        self._unacked = 0
        self._window = DEFAULT_WINDOW

    @property
    def unanswered(self) -> list[str]:
        """The commands that have been without a result for long."""
        latest = self._judge.loop.time() - _ANSWER_S
        return [
            command.what
            for number, command in self._commands.items()
            if self._open_commands[number] and command.at < latest
        ]

    # From the device

    def to_server(self, frame: bytes) -> None:
        """See `network.StreamWatch`."""
        try:
            request = chat_service_pb2.ChatRequest.FromString(frame)
        except DecodeError:
            return
        for ack in request.acks:
            name = ack.conversation_id
            self._claimed[name] = max(self._claimed.get(name, 0), ack.seq)
            flying = self._flying.get(name)
            while flying and flying[0] <= ack.seq:
                flying.popleft()
                self._unacked -= 1
        for command in request.commands:
            self._command(command)

    def _command(self, command: chat_service_pb2.Command) -> None:
        what = command.WhichOneof("command") or ""
        attempt = None
        name = ""
        if what == "hello" and self._hello is None:
            self._said_hello(command.hello)
        elif what:
            attempt, name = self._judge_attempt(what, command)
        now = self._judge.loop.time()
        self._commands[command.command_id] = _Command(what, now, attempt, name)
        self._open_commands[command.command_id] = self._open_commands.get(command.command_id, 0) + 1

    def _judge_attempt(
        self, what: str, command: chat_service_pb2.Command
    ) -> tuple[Attempt | None, str]:
        request = getattr(command, what)
        return begin_attempt(self._judge, self.user, self.who, request)

    def _said_hello(self, hello: chat_service_pb2.Hello) -> None:
        self._hello = hello
        self._window = hello.window or DEFAULT_WINDOW
        truth, known = self._judge.truth, self._judge.known
        # What nobody was told of may be without a definite outcome yet, although it is stored.
        for name in truth.names_visible_to(self.user):
            log = truth.log(name)
            end = min(log.visible_end(self.user), known.get(name, 0))
            while end and not log.due(self.user, end):
                end -= 1
            self._due[name] = end

    # From the server

    def to_device(self, frame: bytes) -> None:
        """See `network.StreamWatch`."""
        try:
            for event in chat_service_pb2.ChatResponse.FromString(frame).events:
                self._event(event)
        except Violation as violation:
            self._judge.report(violation)

    def _event(self, event: event_pb2.Event) -> None:
        kind = event.WhichOneof("event")
        if self._ended:
            raise Violation("protocol", f"{self.who}: {kind} after the session's end")
        match kind:
            case "entry":
                self._entry(event)
            case "result":
                self._result(event.result)
            case "skipped":
                self._skipped(event.skipped)
            case "gap":
                self._passed(event.gap.conversation_id, event.gap.from_seq, event.gap.to_seq, "gap")
            case "message_state":
                self._judge.state_told(self.user, event.message_state, self.who)
            case "welcome":
                self._welcomed = True
            case "sync_complete":
                self._sync_complete()
            case "receipt":
                r = event.receipt
                self._judge.mark_told(
                    r.conversation_id, r.user_id, r.delivered_seq, r.read_seq, self.who
                )
                if not self._judge.truth.log(r.conversation_id).stays.get(self.user):
                    raise Violation("I9", f"{self.who} is told a receipt of {r.conversation_id}")
            case "beacon":
                self._beacon(event.beacon)
            case "session_ended":
                self._ended = True
                self._judge.story(
                    "session", f"{self.who} is ended: {reason_name(event.session_ended.error)}"
                )

    def _entry(self, event: event_pb2.Event) -> None:
        entry = event.entry
        name, seq = entry.conversation_id, entry.seq
        self._judge.shown(self.user, name, seq, event.SerializeToString(), self.who)
        self._passed(name, seq, seq, "entry")
        if seq <= self._claimed.get(name, 0):
            # The device said that it had it before it was sent.
            return
        self._flying.setdefault(name, deque()).append(seq)
        self._unacked += 1
        if self._unacked > self._window:
            raise Violation(
                "I11", f"{self.who}: {self._unacked} entries are unacknowledged of {self._window}"
            )

    def _passed(self, name: str, first: int, last: int, kind: str) -> None:
        if not self._resumed:
            raise Violation("I5", f"{self.who}: {kind} {name}:{first} before the result of hello")
        position = self.positions.get(name, 0)
        if first != position + 1 or last < first:
            raise Violation(
                "I5", f"{self.who}: {kind} {name}:{first}..{last} comes after {position}"
            )
        self.positions[name] = last

    def _skipped(self, skipped: event_pb2.Skipped) -> None:
        name, first, last = skipped.conversation_id, skipped.from_seq, skipped.to_seq
        self._passed(name, first, last, "skip")
        log = self._judge.truth.log(name)
        if last > log.head:
            raise Violation(
                "I5", f"{self.who}: skip {name}:{first}..{last}, the head is {log.head}"
            )
        for seq in range(first, last + 1):
            if log.due(self.user, seq):
                raise Violation("I5", f"{self.who}: {name}:{seq} is skipped, and due")

    def _sync_complete(self) -> None:
        self.synced = True
        for name, end in self._due.items():
            if self.positions.get(name, 0) < end:
                raise Violation(
                    "I5",
                    f"{self.who}: SyncComplete at {name}:{self.positions.get(name, 0)}, "
                    f"at hello the end was {end}",
                )

    def _beacon(self, beacon: event_pb2.Beacon) -> None:
        if beacon.level and (beacon.digest, beacon.conversations) != digest_of(self.positions):
            raise Violation(
                "beacon",
                f"{self.who}: the digest of {beacon.conversations} logs doesn't fit "
                f"{ {k: v for k, v in self.positions.items() if v} }",
            )

    def _result(self, result: event_pb2.CommandResult) -> None:
        number = result.command_id
        if not self._open_commands.get(number):
            if number:
                raise Violation("protocol", f"{self.who}: a result for command {number}")
            # A frame that could not be read has no commands to answer.
            return
        self._open_commands[number] -= 1
        attempt, name = self._commands[number].attempt, self._commands[number].name
        outcome = result.WhichOneof("outcome")
        error = result.error if outcome == "error" else None
        if outcome == "hello":
            assert self._hello is not None
            self.positions = {c.conversation_id: c.seq for c in self._hello.cursors}
            for refusal in result.hello.refused_cursors:
                self.positions[refusal.conversation_id] = refusal.seq
            self._resumed = True
        elif outcome == "mark_read":
            self._judge.mark_told(name, self.user, 0, result.mark_read.read_seq, self.who)
        elif outcome == "mark_delivered":
            seq = result.mark_delivered.delivered_seq
            self._judge.mark_told(name, self.user, seq, 0, self.who)
        elif attempt is not None:
            seq = 0
            if outcome == "create_conversation":
                name = result.create_conversation.conversation.conversation_id
                seq = 1
            elif outcome in (
                "send_message",
                "edit_message",
                "delete_message",
                "set_reaction",
                "set_pin",
                "add_members",
                "remove_member",
                "leave_conversation",
                "update_conversation",
                "set_role",
                "set_mute",
                "set_ban",
                "set_invitation",
                "join_conversation",
                "transfer_ownership",
            ):
                seq = getattr(result, outcome).seq
            self._judge.outcome(attempt, name, seq, error)
