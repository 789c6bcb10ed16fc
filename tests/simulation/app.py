"""The application on a device: it applies what the SDK hands on, durably, and checks that this is what was promised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tidings import (
    Event,
    Gap,
    IncarnationChanged,
    LogEntry,
    Message,
    MessageFailed,
    MessageFold,
    MessagePending,
    MessageSent,
    MessageState,
    PositionLost,
    Skipped,
)

from .truth import Truth
from .violation import Violation


@dataclass(slots=True)
class Said:
    """A text that the application handed to the SDK, and what it was told of it.

    `kept` says that the SDK took it into the outbox. `lost` that a restore of the server took it back after it was
    acknowledged.
    """

    conversation: str
    text: str
    number: int
    kept: bool = False
    seq: int = 0
    failed: str = ""
    lost: bool = False


@dataclass(slots=True)
class AppData:
    """What the application has stored. It outlives its process, and losses of power too.

    `applied` holds the id of each entry by log and position, `folds` what it makes of messages.
    """

    positions: dict[str, int] = field(default_factory=dict)
    applied: dict[str, dict[int, str]] = field(default_factory=dict)
    folds: dict[str, MessageFold] = field(default_factory=dict)
    said: dict[str, Said] = field(default_factory=dict)
    by_id: dict[str, Said] = field(default_factory=dict)


class App:
    """One run of the application: from the start of its process to its end.

    `saved` are the cursors that the SDK had on disk when it began, of the history of `incarnation`. What is handed on
    belongs to that until the SDK tells of another. `truth` gives the history of an incarnation; `restored` tells
    whether the server ever went back to a backup.
    """

    def __init__(
        self,
        name: str,
        user: str,
        data: AppData,
        saved: dict[str, int],
        incarnation: str,
        truth: Callable[[str], Truth],
        restored: Callable[[], bool],
    ) -> None:
        self.name = name
        self._user = user
        self._data = data
        self.incarnation = incarnation
        self._truth_of = truth
        self._restored = restored
        # How far the SDK has brought this run in each log.
        self.handed = dict(saved)
        self.events = 0
        for log, seq in saved.items():
            unseen = self._visible(log, self._position(log) + 1, seq)
            if unseen and not restored():
                raise Violation(
                    "I5",
                    f"{name}: the SDK has saved {log}:{seq}, {unseen} were not applied",
                )

    def _visible(self, log: str, first: int, last: int) -> list[int]:
        """The positions from one to another that are to be sent to the user."""
        truth = self._truth().log(log)
        return [seq for seq in range(first, last + 1) if truth.due(self._user, seq)]

    def _truth(self) -> Truth:
        return self._truth_of(self.incarnation)

    def _position(self, log: str) -> int:
        return self._data.positions.get(log, 0)

    def take(self, event: Event) -> None:
        """Applies one event. Raises Violation."""
        self.events += 1
        match event:
            case LogEntry():
                self._entry(event)
                self.fold(event.log).take(event)
            case MessageState():
                self.fold(event.conversation_id).take(event)
            case Gap() | Skipped():
                self.fold(event.conversation_id).take(event)
                self._move(event.conversation_id, event.from_seq, event.to_seq)
            case MessagePending():
                # Also of what was queued by a process that died before it knew.
                self._data.by_id[event.message_id] = self._data.said[event.text]
            case MessageSent():
                self._sent(event)
            case MessageFailed():
                said = self._data.by_id.get(event.message_id)
                if said is not None:
                    said.failed = event.error.reason or event.error.code.name
            case IncarnationChanged():
                for log in self._data.positions:
                    self._drop(log, event.positions.get(log, 0))
                self.handed = dict(event.positions)
                self.incarnation = event.incarnation
            case PositionLost():
                self._lost(event.conversation_id, event.seq)

    def fold(self, log: str) -> MessageFold:
        """What is held of the messages of a log."""
        return self._data.folds.setdefault(log, MessageFold())

    def _entry(self, event: LogEntry) -> None:
        self._move(event.log, event.seq, event.seq)
        self._data.applied.setdefault(event.log, {}).setdefault(event.seq, event.entry_id)
        stored = self._truth().log(event.log).entries[event.seq - 1]
        if (event.entry_id, event.user_id, event.ordinal) != (
            stored.id,
            stored.user_id,
            stored.ordinal,
        ):
            raise Violation("I4", f"{self.name}: {event.log}:{event.seq} is {event}, not {stored}")
        if isinstance(event, Message) and not event.erased and event.text != stored.message.text:
            raise Violation("I4", f"{self.name}: {event.log}:{event.seq} has another text")

    def _move(self, log: str, first: int, last: int) -> None:
        before = self.handed.get(log, 0)
        if first <= before:
            raise Violation("I5", f"{self.name}: {log}:{first} is handed on after {before}")
        hole = self._visible(log, before + 1, first - 1)
        if hole:
            raise Violation(
                "I5", f"{self.name}: {log}:{first} is handed on after {before}, without {hole}"
            )
        self.handed[log] = last
        self._data.positions[log] = max(self._position(log), last)

    def _sent(self, event: MessageSent) -> None:
        said = self._data.by_id.get(event.message_id)
        truth = self._truth().log(event.conversation_id)
        there = event.seq <= truth.head and truth.entries[event.seq - 1].id == event.message_id
        if not there and not self._restored():
            raise Violation(
                "I1",
                f"{self.name}: {event.message_id} is said to be at "
                f"{event.conversation_id}:{event.seq}, and isn't",
            )
        if said is not None:
            said.seq = event.seq

    def _lost(self, log: str, seq: int) -> None:
        """What lies beyond `seq` doesn't hold any more."""
        self._drop(log, seq)
        self.handed[log] = seq

    def _drop(self, log: str, seq: int) -> None:
        self._data.positions[log] = min(self._position(log), seq)
        self.fold(log).drop(seq)
        applied = self._data.applied.get(log, {})
        self._data.applied[log] = {s: entry_id for s, entry_id in applied.items() if s <= seq}
