"""The positions of the logs that a device follows: received, handed on, applied, and their digest. No I/O, no clock."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

from ._state import StoredCursor

INBOX_PREFIX: Final = "inbox:"
_DIGEST_MASK: Final = (1 << 64) - 1


class Step(enum.Enum):
    """What positions mean to a log."""

    NEXT = enum.auto()
    OLD = enum.auto()
    MISSED = enum.auto()


def digest_of(log: str, seq: int) -> int:
    """What one log adds to the digest of a beacon."""
    return int.from_bytes(hashlib.sha256(f"{log}:{seq}".encode()).digest()[:8], "big")


class Log:
    """One log: acked ≤ saved ≤ applied ≤ handed ≤ received.

    received is the newest position that has come in order, handed the newest that the application was given, applied
    the newest that it has dealt with, saved the newest of which that is kept, acked the newest of which the server was
    told that. seen is the newest that the server has sent on this connection: after a reconnect it sends again what
    wasn't saved, and an acknowledgement of what it hasn't sent yet would be lost. told_states tells whether states of
    messages have come behind received.
    """

    __slots__ = (
        "_digest",
        "_digest_seq",
        "acked",
        "applied",
        "handed",
        "name",
        "received",
        "saved",
        "seen",
        "skips",
        "suspect",
        "told_states",
    )

    received: int
    handed: int
    applied: int
    saved: int
    acked: int
    seen: int

    def __init__(self, name: str, seq: int = 0) -> None:
        self.name = name
        self.skips: list[tuple[int, int]] = []
        self.suspect = False
        self.told_states = False
        self._digest_seq = -1
        self._digest = 0
        self.reset(seq)

    def digest(self) -> int:
        """What it adds to the digest of a beacon."""
        if self.received != self._digest_seq:
            self._digest_seq = self.received
            self._digest = digest_of(self.name, self.received)
        return self._digest

    def advance(self, from_seq: int, to_seq: int) -> Step:
        """Receive the positions from one to another, both included."""
        self.seen = max(self.seen, to_seq)
        if to_seq <= self.received:
            return Step.OLD
        if from_seq > self.received + 1:
            return Step.MISSED
        self.received = to_seq
        self.told_states = False
        return Step.NEXT

    def skip(self, from_seq: int, to_seq: int) -> Step:
        """Receive positions that nobody needs to be told of."""
        step = self.advance(from_seq, to_seq)
        if step is Step.NEXT:
            self.skips.append((from_seq, to_seq))
            self._pass_skips()
        return step

    def hand(self, seq: int) -> None:
        """The application is given everything up to a position."""
        self.handed = max(self.handed, seq)

    def apply(self, seq: int) -> None:
        """The application has dealt with everything up to a position."""
        # What was never handed on can't have been applied.
        self.applied = max(self.applied, min(seq, self.handed))
        self._pass_skips()

    def _pass_skips(self) -> None:
        while self.skips and self.skips[0][0] <= self.applied + 1:
            _, to_seq = self.skips.pop(0)
            self.applied = max(self.applied, to_seq)
        self.handed = max(self.handed, self.applied)

    def to_ack(self) -> int:
        """The position to acknowledge now, or 0; it counts as acked."""
        seq = min(self.saved, self.seen)
        if seq <= self.acked:
            return 0
        self.acked = seq
        return seq

    def rewind(self) -> None:
        """Forget what was received and not handed on: it is to come again."""
        self.received = self.handed
        self.told_states = False
        self.skips = [(first, last) for first, last in self.skips if last <= self.handed]

    def reset(self, seq: int) -> None:
        """Everything up to a position is dealt with, and nothing beyond it was ever received."""
        self.received = self.handed = self.applied = self.saved = self.acked = self.seen = seq
        self.skips.clear()


class LogTable:
    """All the logs of a device."""

    def __init__(self, cursors: Iterable[StoredCursor] = ()) -> None:
        self._logs = {cursor.log: Log(cursor.log, cursor.seq) for cursor in cursors}
        self._unsaved: dict[str, Log] = {}
        self.unsaved_positions = 0

    def __iter__(self) -> Iterator[Log]:
        return iter(self._logs.values())

    def get(self, name: str) -> Log:
        """The log of a name, made if need be."""
        log = self._logs.get(name)
        if log is None:
            log = self._logs[name] = Log(name)
        return log

    def skip(self, log: Log, from_seq: int, to_seq: int) -> Step:
        """See Log.skip."""
        before = log.applied
        step = log.skip(from_seq, to_seq)
        if log.applied != before:
            self.touch(log)
        return step

    def apply(self, name: str, seq: int) -> None:
        """See Log.apply. A log that isn't known is passed over."""
        log = self._logs.get(name)
        if log is not None:
            before = log.applied
            log.apply(seq)
            if log.applied != before:
                self.touch(log, log.applied - before)

    def rewind(self) -> None:
        """See Log.rewind."""
        for log in self._logs.values():
            log.rewind()

    def reset_to_named(self) -> None:
        """Go back to what hello named, in every log. Nothing may have come since."""
        for log in self._logs.values():
            log.reset(log.acked)
        self._unsaved.clear()
        self.unsaved_positions = 0

    def hello(self, limit: int) -> list[tuple[str, int]]:
        """The saved positions to name in hello, at most `limit`: those that matter most first. They count as acked."""
        for log in self._logs.values():
            log.acked = log.seen = 0
        named = [log for log in self._logs.values() if log.received]
        if len(named) > limit:
            named.sort(key=lambda log: (not log.suspect, not log.name.startswith(INBOX_PREFIX)))
        del named[limit:]
        for log in named:
            log.acked = log.seen = log.saved
        return [(log.name, log.saved) for log in named]

    def digest(self) -> tuple[int, int]:
        """The digest of the logs of which anything was received, and their number."""
        total = count = 0
        for log in self._logs.values():
            if log.received:
                total += log.digest()
                count += 1
        return total & _DIGEST_MASK, count

    # What is to be saved

    def touch(self, log: Log, positions: int = 1) -> None:
        """A log's applied position is to be saved; so many positions more are."""
        self._unsaved[log.name] = log
        self.unsaved_positions += positions

    def stored(self) -> list[StoredCursor]:
        """The applied positions of all logs."""
        return [StoredCursor(log.name, log.applied) for log in self._logs.values() if log.applied]

    @property
    def has_unsaved(self) -> bool:
        """Whether an applied position is to be saved."""
        return bool(self._unsaved)

    def take_unsaved(self) -> list[tuple[Log, StoredCursor]]:
        """The logs whose applied position is to be saved, and as what. They aren't told again unless they move."""
        unsaved = [(log, StoredCursor(log.name, log.applied)) for log in self._unsaved.values()]
        self._unsaved.clear()
        self.unsaved_positions = 0
        return unsaved
