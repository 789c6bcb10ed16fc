"""Values that databases keep in one column: a user's stays in a conversation, and positions."""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import replace

from tidings_server.core.entries import Role
from tidings_server.core.memberships import Interval, Membership


def dump_intervals(intervals: Iterable[Interval]) -> str:
    """Stays as JSON: [[join_seq, join_ordinal, removed_seq], ...]."""
    return json.dumps([[i.join_seq, i.join_ordinal, i.removed_seq] for i in intervals])


_OLDEST_ROLES = (Role.MEMBER, Role.OWNER)


def dump_role(role: Role) -> int:
    """A role as nodes of the first version read it: they know these two, and append nothing where there are others."""
    return int(role if role in _OLDEST_ROLES else Role.MEMBER)


def dump_details(membership: Membership) -> str:
    """What nodes of the first version don't know of a membership, as JSON; empty for nothing."""
    details: dict[str, object] = {}
    if membership.role not in _OLDEST_ROLES:
        details["role"] = int(membership.role)
    if membership.muted_until_ms:
        details["muted"] = membership.muted_until_ms
    if membership.banned_until_ms:
        details["banned"] = membership.banned_until_ms
    if any(stay.from_seq for stay in membership.intervals):
        details["from"] = [stay.from_seq for stay in membership.intervals]
    return json.dumps(details) if details else ""


def load_membership(
    user_id: str, as_of: int, role: int, intervals: str, details: str | None
) -> Membership:
    """A membership from its columns."""
    more = json.loads(details) if details else {}
    role = more.get("role", role)
    muted, banned = more.get("muted", 0), more.get("banned", 0)
    stays = _stays(intervals)
    if "from" in more:
        pairs = zip(stays, more["from"], strict=True)
        stays = tuple(replace(stay, from_seq=from_seq) for stay, from_seq in pairs)
    return Membership(user_id, Role(role), as_of, stays, muted, banned)


@functools.lru_cache(maxsize=4096)
def _stays(intervals: str) -> tuple[Interval, ...]:
    # Most have been there from the beginning, and many rows are read at once.
    return tuple(Interval(*stay) for stay in json.loads(intervals))


def dump_positions(positions: Sequence[int]) -> bytes:
    """Positions as 8 bytes each, big-endian."""
    return struct.pack(f">{len(positions)}Q", *positions)


def load_positions(raw: bytes) -> tuple[int, ...]:
    """The positions in such bytes."""
    return struct.unpack(f">{len(raw) // 8}Q", raw)
