"""The session of a device as a pure state machine: frames in, events out, frames to send. No I/O, no clock.

The shell (`_runner`) carries frames and time: it calls `connected`, `receive`, `next_frame` and `disconnected`, does
what the returned actions say, and saves what `take_unsaved` gives. The application's side is `next_event` and `apply`.

Moments are seconds of the loop's clock.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from google.protobuf.message import DecodeError

from . import _convert, events
from ._actions import Action, End, GoAway, Reconnect, RefreshToken
from ._config import ClientConfig
from ._ids import IdMaker, ServerClock
from ._logs import Log, LogTable, Step
from ._outbox import Outbox, Outgoing
from ._queue import EventQueue
from ._sends import Sends
from ._state import StoredSession, StoredState
from ._unsaved import Batch, Unsaved
from .errors import Code, StateError, TidingsError, Unavailable
from .v1 import chat_service_pb2, event_pb2

_MAX_HELLO_CURSORS: Final = 10_000
_MAX_FRAME_COMMANDS: Final = 1_000
_MAX_FRAME_ACKS: Final = 5_000
_AFTER_HELLO: Final = ("entry", "message_state", "skipped", "gap", "sync_complete")
_MAX_FRAME_BYTES: Final = 256 * 1024


@dataclass(slots=True)
class Limits:
    """The limits in force: the server's, or what is assumed until it has told."""

    window: int
    max_text_bytes: int = 16_384
    max_frame_bytes: int = 1 << 20
    max_commands_in_flight: int = 100
    beacon_interval: float = 30.0
    max_members: int = 500


class SessionCore:
    """Positions, outbox and connection of one device."""

    def __init__(
        self,
        state: StoredState,
        config: ClientConfig,
        wall_clock_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self.config = config
        self.session = state.session
        self.clock = ServerClock(wall_clock_ms)
        self.ids = IdMaker(rng)
        self.logs = LogTable(state.cursors)
        self.outbox = Outbox(config.backoff, rng)
        self.limits = Limits(config.window, beacon_interval=config.beacon_interval)
        self.token_expire_ms: int | None = None
        self.events = EventQueue(config.max_queued_events)
        self._unsaved = Unsaved()
        self.sends = Sends(self.outbox, self.ids, self.clock, self.events, self._unsaved)
        self._withheld = not state.session.announced
        """Whether positions aren't saved: the application doesn't know yet of the incarnation that they belong to."""
        self._gate = self._open_gate = 0
        """While they differ nothing is handed on: positions have gone back, and that is to be durable first."""
        # The connection.
        self._alive = False
        self.welcomed = False
        self.greeted = False
        self.synced = False
        self._hello: chat_service_pb2.Hello | None = None
        self._control: deque[chat_service_pb2.Command] = deque()
        self._commands: dict[int, str | Outgoing] = {}
        self._next_command = 1
        self._acks: dict[str, int] = {}
        self._next_session: StoredSession | None = None
        self._handlers: dict[str, Callable[[event_pb2.Event, float], Action | None]] = {
            "entry": self._on_entry,
            "result": self._on_result,
            "welcome": self._on_welcome,
            "skipped": self._on_skipped,
            "gap": self._on_gap,
            "message_state": self._on_message_state,
            "sync_complete": self._on_sync_complete,
            "receipt": self._on_receipt,
            "beacon": self._on_beacon,
            "token_expiring": self._on_token_expiring,
            "going_away": self._on_going_away,
            "session_ended": self._on_session_ended,
        }
        if self._withheld:
            self._announce()
        for message in state.messages:
            self.sends.restore(message)

    # The application's side

    def next_event(self) -> events.Event | None:
        """The next event for the application, handed on from now on, or None."""
        return self.events.take(self.session.user_id) if self.has_events else None

    @property
    def has_events(self) -> bool:
        """Whether `next_event` has one."""
        return len(self.events) > 0 and self._gate == self._open_gate

    def apply(self, event: events.Event) -> None:
        """The application has dealt with an event, and with all that were handed on before it in the same log."""
        if isinstance(event, events.IncarnationChanged):
            if self._withheld and event.incarnation == self.session.incarnation:
                self._withheld = False
                self.session = replace(self.session, announced=True)
                self._unsaved.session(self.session)
        elif isinstance(event, events.MessageFailed):
            self.sends.forget_failed(event.message_id)
        elif self._withheld:
            # It was handed on before the incarnation changed: its position means something else now.
            return
        elif isinstance(event, (events.Gap, events.Skipped)):
            self.logs.apply(event.conversation_id, event.to_seq)
        elif isinstance(event, events.LogEntry):
            self.logs.apply(event.log, event.seq)

    # Saving

    @property
    def saving_due(self) -> bool:
        """Whether something is to be saved at once: the window is a quarter used, or a message waits for it."""
        if self._unsaved.urgent:
            return True
        # Positions that are withheld aren't taken: whoever saves what is due would never come to an end.
        return not self._withheld and self.logs.unsaved_positions * 4 >= self.limits.window

    @property
    def has_unsaved(self) -> bool:
        """Whether something is to be saved soon."""
        return bool(self._unsaved) or (self.logs.has_unsaved and not self._withheld)

    def take_unsaved(self) -> Batch:
        """What is to be saved. The caller saves it, however often that takes, before it asks for more."""
        batch = self._unsaved.take()
        # Positions of a new incarnation aren't mixed with those of the old one.
        if not self._withheld:
            batch.cursors = self.logs.take_unsaved()
        batch.gate = self._gate
        return batch

    def saved(self, batch: Batch) -> None:
        """What was taken is saved: acknowledge it to the server, and let go on what waited for it."""
        self._open_gate = max(self._open_gate, batch.gate)
        for log, cursor in batch.cursors:
            # Both may have gone back meanwhile.
            log.saved = max(log.saved, min(cursor.seq, log.applied))
            self._ack(log)
        for message in batch.updated.values():
            self.sends.updated(message)

    def _ack(self, log: Log) -> None:
        if self.welcomed and (seq := log.to_ack()):
            self._acks[log.name] = seq

    def _close_gate(self) -> None:
        self._gate += 1
        self._unsaved.urgent = True

    # The connection

    def connected(self) -> None:
        """A connection is there: the next frame is hello."""
        self.disconnected()
        self._alive = True
        named = self.logs.hello(_MAX_HELLO_CURSORS)
        self._hello = chat_service_pb2.Hello(
            incarnation=self.session.incarnation,
            cursors=[chat_service_pb2.Cursor(conversation_id=name, seq=seq) for name, seq in named],
            window=self.config.window,
            catch_up_limit=self.config.catch_up_limit,
            client=self.config.client_name,
        )

    def disconnected(self) -> None:
        """The connection is gone."""
        self._alive = self.welcomed = self.greeted = self.synced = False
        self._hello = None
        self._next_session = None
        self._control.clear()
        self._commands.clear()
        self._next_command = 1
        self._acks.clear()
        self.outbox.reconnect()

    def refresh_token(self, token: str) -> None:
        """Give the session a new token."""
        if self.welcomed:
            command = chat_service_pb2.Command()
            command.refresh_token.token = token
            self._control.append(command)

    def next_frame(self, now: float) -> bytes | None:
        """The next frame to send, or None."""
        if not self._alive:
            return None
        request = chat_service_pb2.ChatRequest()
        if self._hello is not None:
            command = request.commands.add()
            command.hello.CopyFrom(self._hello)
            self._hello = None
            self._number(command, "hello")
            return request.SerializeToString()
        if not self.welcomed:
            return None
        while self._control:
            command = self._control.popleft()
            self._number(command, "refresh_token")
            request.commands.append(command)
        self._add_sends(request, now)
        if self._acks:
            for name in list(self._acks)[:_MAX_FRAME_ACKS]:
                request.acks.add(conversation_id=name, seq=self._acks.pop(name))
        return request.SerializeToString() or None

    def wake_at(self) -> float | None:
        """When `next_frame` has something to send without anything else happening, or None."""
        return self.outbox.wake_at() if self.welcomed else None

    @property
    def in_flight(self) -> int:
        """The number of commands without a result."""
        return len(self._commands)

    def _number(self, command: chat_service_pb2.Command, what: str | Outgoing) -> None:
        command.command_id = self._next_command
        self._commands[self._next_command] = what
        self._next_command += 1

    def _add_sends(self, request: chat_service_pb2.ChatRequest, now: float) -> None:
        self.outbox.wake(now)
        room = max(1, self.limits.max_commands_in_flight // 2)
        budget = min(_MAX_FRAME_BYTES, self.limits.max_frame_bytes // 2)
        while len(request.commands) < _MAX_FRAME_COMMANDS and budget > 0:
            item = self.outbox.next_send(now, room)
            if item is None:
                break
            message = item.message
            command = request.commands.add()
            self._number(command, item)
            send = command.send_message
            send.conversation_id = message.conversation_id
            send.message_id = message.message_id
            send.content.ParseFromString(message.content)
            if item.after is not None:
                send.after_message_id = item.after.message.message_id
            budget -= len(message.content) + 200

    def receive(self, frame: bytes, now: float) -> list[Action]:
        """Take a frame from the server; returns what the shell is to do, in order."""
        actions: list[Action] = []
        try:
            response = chat_service_pb2.ChatResponse.FromString(frame)
        except DecodeError:
            return [self._leave("the server sent a frame that is no ChatResponse")]
        for event in response.events:
            if not self._alive:
                break
            kind = event.WhichOneof("event")
            if kind is None:
                continue
            if not self.greeted and kind in _AFTER_HELLO:
                actions.append(self._leave(f"the server sent {kind} before the result of hello"))
                break
            action = self._handlers[kind](event, now)
            if action is not None:
                actions.append(action)
        return actions

    def _leave(self, why: str, *, delay: float | None = None) -> Reconnect:
        """Stop taking anything from this connection, and have everything not handed on sent again on the next one."""
        self._alive = False
        self.events.drop_logs()
        self.logs.rewind()
        return Reconnect(Unavailable(why), delay)

    def _on_welcome(self, event: event_pb2.Event, now: float) -> Action | None:
        welcome = event.welcome
        stored = self.session
        if stored.user_id and (stored.user_id, stored.device_id) != (
            welcome.user_id,
            welcome.device_id,
        ):
            self._alive = False
            return End(
                StateError(
                    f"the state belongs to user {stored.user_id!r}, device {stored.device_id!r}, "
                    f"and the token to user {welcome.user_id!r}, device {welcome.device_id!r}"
                )
            )
        self.clock.set(_convert.ms_of(welcome.server_time), now)
        if welcome.HasField("token_expire_time"):
            self.token_expire_ms = _convert.ms_of(welcome.token_expire_time)
        limits = welcome.limits
        known = self.limits
        self.limits = Limits(
            window=limits.window or known.window,
            max_text_bytes=limits.max_text_bytes or known.max_text_bytes,
            max_frame_bytes=limits.max_frame_bytes or known.max_frame_bytes,
            max_commands_in_flight=limits.max_commands_in_flight or known.max_commands_in_flight,
            beacon_interval=limits.beacon_interval_ms / 1000 or known.beacon_interval,
            max_members=limits.max_members or known.max_members,
        )
        self.welcomed = True
        session = replace(
            stored,
            user_id=welcome.user_id,
            device_id=welcome.device_id,
            incarnation=welcome.incarnation,
        )
        if stored.incarnation and stored.incarnation != welcome.incarnation:
            self._next_session = replace(session, announced=False)
        elif session != stored:
            self.session = session
            self._unsaved.session(session)
        self.sends.seal_all(now)
        return None

    def _on_entry(self, event: event_pb2.Event, now: float) -> Action | None:  # noqa: ARG002
        entry = event.entry
        log = self.logs.get(entry.conversation_id)
        step = log.advance(entry.seq, entry.seq)
        if step is Step.OLD:
            self._ack(log)
            return None
        if step is Step.MISSED:
            return self._missed(log, entry.seq)
        if entry.user_id == self.session.user_id:
            self.sends.note_own(entry)
        self.events.put_entry(log, entry)
        return None

    def _on_skipped(self, event: event_pb2.Event, now: float) -> Action | None:  # noqa: ARG002
        skipped = event.skipped
        log = self.logs.get(skipped.conversation_id)
        if log.told_states:
            # The application must have applied the states before these positions count as applied.
            step = log.advance(skipped.from_seq, skipped.to_seq)
            if step is Step.NEXT:
                self.events.put_entry(log, _convert.skipped_of(skipped))
        else:
            step = self.logs.skip(log, skipped.from_seq, skipped.to_seq)
        if step is Step.MISSED:
            return self._missed(log, skipped.from_seq)
        if step is Step.OLD:
            self._ack(log)
        return None

    def _on_gap(self, event: event_pb2.Event, now: float) -> Action | None:  # noqa: ARG002
        gap = _convert.gap_of(event.gap)
        log = self.logs.get(gap.conversation_id)
        first = max(gap.from_seq, log.received + 1)
        step = log.advance(gap.from_seq, gap.to_seq)
        if step is Step.MISSED:
            return self._missed(log, gap.from_seq)
        if step is Step.OLD:
            self._ack(log)
        else:
            stale = gap.from_seq if gap.from_seq < first else 0
            self.events.put_entry(log, replace(gap, from_seq=first, stale_from_seq=stale))
        return None

    def _on_message_state(self, event: event_pb2.Event, now: float) -> Action | None:  # noqa: ARG002
        log = self.logs.get(event.message_state.conversation_id)
        log.told_states = True
        self.events.put_entry(log, event.message_state)
        return None

    def _missed(self, log: Log, seq: int) -> Action:
        log.suspect = True
        return self._leave(f"{log.name} went from {log.received} to {seq}")

    def _on_sync_complete(self, event: event_pb2.Event, now: float) -> Action | None:  # noqa: ARG002
        self.synced = True
        self.events.put(events.SyncComplete(conversations=event.sync_complete.conversations))
        return None

    def _on_receipt(self, event: event_pb2.Event, now: float) -> Action | None:  # noqa: ARG002
        self.events.put_receipt(_convert.receipt_of(event.receipt))
        return None

    def _on_beacon(self, event: event_pb2.Event, now: float) -> Action | None:
        beacon = event.beacon
        self.clock.set(_convert.ms_of(beacon.server_time), now)
        if not beacon.level or not self.synced:
            return None
        if self.logs.digest() == (beacon.digest, beacon.conversations):
            return None
        return self._leave("the digest of the positions differs from the server's")

    def _on_token_expiring(self, event: event_pb2.Event, now: float) -> Action | None:  # noqa: ARG002
        self.token_expire_ms = _convert.ms_of(event.token_expiring.token_expire_time)
        return RefreshToken()

    def _on_going_away(self, event: event_pb2.Event, now: float) -> Action | None:  # noqa: ARG002
        return GoAway(event.going_away.reconnect_delay_ms / 1000)

    def _on_session_ended(self, event: event_pb2.Event, now: float) -> Action | None:  # noqa: ARG002
        self._alive = False
        error = _convert.error_of(event.session_ended.error)
        if event.session_ended.reconnect:
            return Reconnect(error, error.retry_after)
        return End(error)

    def _on_result(self, event: event_pb2.Event, now: float) -> Action | None:
        result = event.result
        what = self._commands.pop(result.command_id, None)
        if what is None:
            return None
        error = _convert.error_of(result.error) if result.HasField("error") else None
        if isinstance(what, Outgoing):
            self.sends.on_result(what, result.send_message, error, now)
            refused = error is not None and error.code is Code.UNAUTHENTICATED
            return RefreshToken() if refused else None
        if what == "hello":
            if error is not None:
                return self._on_hello_refused(error)
            self._on_hello_taken(result.hello.refused_cursors)
            return None
        if error is None and result.HasField("refresh_token"):
            self.token_expire_ms = _convert.ms_of(result.refresh_token.token_expire_time)
        return None

    def _on_hello_refused(self, error: TidingsError) -> Action | None:
        self._alive = False
        if error.code in (Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED, Code.UNAUTHENTICATED):
            return End(error)
        return Reconnect(error, error.retry_after)

    def _on_hello_taken(self, refusals: Iterable[event_pb2.CursorRefusal]) -> None:
        """The session is open. Of some logs the server has less than was applied here: its position holds instead."""
        self.greeted = True
        session, self._next_session = self._next_session, None
        if session is not None:
            # Another incarnation: only what was named in hello was compared with it.
            self.events.drop_logs()
            self.logs.reset_to_named()
        for refusal in refusals:
            log = self.logs.get(refusal.conversation_id)
            self.events.drop_log(log)
            log.reset(refusal.seq)
            if session is None:
                self.logs.touch(log)
                self._close_gate()
                self.events.put(events.PositionLost(conversation_id=log.name, seq=log.received))
        if session is not None:
            self.session = session
            self._withheld = True
            self._unsaved.session(session, self.logs.stored())
            self._close_gate()
            self._announce()

    def _announce(self) -> None:
        positions = {log.name: log.received for log in self.logs if log.received}
        changed = events.IncarnationChanged(
            incarnation=self.session.incarnation, positions=MappingProxyType(positions)
        )
        self.events.put(changed)
