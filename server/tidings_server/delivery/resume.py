"""Resuming: where a device starts in each log, and what it is told of what it does not get.

Pure: everything read from the store is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.memberships import Membership
from .position import OPEN_END


@dataclass(frozen=True, slots=True)
class Start:
    """Where a session starts in a log: everything up to `sent` is known to the device, or passed
    over by `passed`: ("skip" | "gap", first, last), ascending and without holes.
    """

    sent: int
    passed: tuple[tuple[str, int, int], ...]


def visible_ranges(membership: Membership) -> tuple[tuple[int, int], ...]:
    """What a user may see of a conversation, ascending."""
    return tuple([(i.join_seq, i.removed_seq or OPEN_END) for i in membership.intervals])


def start(
    *,
    named: int | None,
    remembered: int | None,
    end: int,
    ranges: Sequence[tuple[int, int]],
    limit: int,
) -> Start:
    """Where a session starts in a log whose visible entries end at `end`.

    `named` is the device's own cursor, already at most `end`; `remembered` the stored one.
    `limit` is the largest number of entries to be sent: what is missed beyond it becomes a gap.
    """
    if named is not None and named >= end:
        # Nothing was missed: so it is with nearly all of somebody's many conversations.
        return Start(named, ())
    known = named or 0
    begin = known if named is not None else min(remembered or 0, end)
    begin = max(begin, _before_newest(ranges, end, limit))
    passed: list[tuple[str, int, int]] = []
    at = known + 1
    for low, high in ranges:
        if at > begin:
            break
        if high < at:
            continue
        if at < low:
            passed.append(("skip", at, min(low - 1, begin)))
            at = low
        if at <= min(high, begin):
            passed.append(("gap", at, min(high, begin)))
            at = min(high, begin) + 1
    if at <= begin:
        passed.append(("skip", at, begin))
    return Start(max(known, begin), tuple(passed))


def _before_newest(ranges: Sequence[tuple[int, int]], end: int, limit: int) -> int:
    """The position before the newest `limit` visible entries up to `end`."""
    left = limit
    for low, high in reversed(ranges):
        top = min(high, end)
        count = top - low + 1
        if count <= 0:
            continue
        if count >= left:
            return top - left
        left -= count
    return 0
