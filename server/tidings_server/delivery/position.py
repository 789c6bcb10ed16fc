"""Positions: how far one device has been brought in one log, and the window of what it has not
acknowledged.
"""

from __future__ import annotations

from collections.abc import Sequence

OPEN_END = 2**63 - 1
"""The end of a visible range that has none."""


class Position:
    """One log of a session.

    Everything up to `sent` was put into the outbox, or passed over by an event that says so.
    `acked` is the newest position that the device has applied. `head` is the newest one known to
    exist. While `lagging`, entries come from the log only; otherwise a page that begins at
    `sent + 1` is pushed. `ranges` are what the user may see, known to be right up to `checked`.
    """

    __slots__ = (
        "acked",
        "checked",
        "head",
        "lag_began",
        "lagging",
        "log",
        "passed",
        "ranges",
        "sent",
    )

    def __init__(
        self,
        log: str,
        sent: int,
        head: int,
        ranges: Sequence[tuple[int, int]],
        checked: int,
    ) -> None:
        self.log = log
        self.sent = sent
        self.acked = sent
        self.head = head
        self.ranges = ranges
        self.checked = checked
        self.lagging = False
        # By the event loop's clock.
        self.lag_began = 0.0
        # Positions passed over among those sent and not acknowledged: they are no entries.
        self.passed: list[tuple[int, int]] = []

    @property
    def end(self) -> int:
        """The newest position that the device is to be brought to."""
        return min(self.head, self.ranges[-1][1])

    @property
    def open(self) -> bool:
        """Whether the user is a member, as far as is known."""
        return self.ranges[-1][1] == OPEN_END

    def pass_to(self, seq: int) -> None:
        """Everything up to a position is passed over."""
        if self.acked == self.sent:
            self.acked = seq
        else:
            self.passed.append((self.sent + 1, seq))
        self.sent = seq

    def ack(self, seq: int) -> int:
        """The device has applied everything up to a position. Returns how many entries that is."""
        count = seq - self.acked
        self.acked = seq
        while self.passed and self.passed[0][0] <= seq:
            first, last = self.passed.pop(0)
            count -= min(last, seq) - first + 1
            if last > seq:
                self.passed.insert(0, (seq + 1, last))
                break
        return count

    def close_at(self, seq: int) -> None:
        """The user's membership ended at a position."""
        low, high = self.ranges[-1]
        if high == OPEN_END and seq >= low:
            self.ranges = (*self.ranges[:-1], (low, seq))

    def next_part(self) -> tuple[str, int, int] | None:
        """What comes after `sent`: ("read", first, last), ("skip", first, last), or None when the
        device is level.
        """
        first, end = self.sent + 1, self.end
        for low, high in self.ranges:
            if high < first:
                continue
            if low > end:
                return None
            if first < low:
                return "skip", first, low - 1
            return ("read", first, min(high, end)) if first <= end else None
        return None


class Window:
    """Counts the entries that were sent and not acknowledged. It bounds what a device that does
    not read makes the transport hold.
    """

    __slots__ = ("size", "unacked")

    def __init__(self, size: int) -> None:
        self.size = size
        self.unacked = 0

    def room(self) -> int:
        """How many more entries may be sent."""
        return self.size - self.unacked

    def acked(self, position: Position, seq: int) -> bool:
        """The device has applied a log up to a position. Returns whether that is news."""
        seq = min(seq, position.sent)
        if seq <= position.acked:
            return False
        self.unacked -= position.ack(seq)
        return True
