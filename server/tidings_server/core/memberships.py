"""Memberships: who is in a conversation, from where to where, and what of it they may see."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .entries import (
    Body,
    ConversationCreated,
    Entry,
    MemberBanned,
    MemberMuted,
    MemberRemoved,
    MemberRoleSet,
    MembersAdded,
    Role,
)


@dataclass(frozen=True, slots=True)
class Interval:
    """One stay: positions `join_seq .. removed_seq`, both visible; `removed_seq` is 0 while it
    lasts.

    `join_ordinal` is the number of messages before it. What came before is visible from `from_seq` on, unless that
    is 0; it is not sent on streams.
    """

    join_seq: int
    join_ordinal: int
    removed_seq: int = 0
    from_seq: int = 0

    @property
    def first_seq(self) -> int:
        """The first visible position."""
        return self.from_seq or self.join_seq


@dataclass(frozen=True, slots=True)
class Membership:
    """A user's stays in a conversation, oldest first, folded up to position `as_of`; and the times until which they may
    not post, or not be added again.
    """

    user_id: str
    role: Role
    as_of: int
    intervals: tuple[Interval, ...]
    muted_until_ms: int = 0
    banned_until_ms: int = 0

    @property
    def current(self) -> bool:
        """Whether the user is a member now."""
        return bool(self.intervals) and self.intervals[-1].removed_seq == 0

    @property
    def join_seq(self) -> int:
        """Where the newest stay began."""
        return self.intervals[-1].join_seq

    @property
    def last_visible(self) -> int | None:
        """The last position that the user may see, or None while they are a member."""
        return self.intervals[-1].removed_seq or None

    def visible(self, seq: int) -> bool:
        """Whether the user may see the entry at a position."""
        return any(
            i.first_seq <= seq and (not i.removed_seq or seq <= i.removed_seq)
            for i in self.intervals
        )

    def due(self, seq: int) -> bool:
        """Whether the entry at a position is sent to the user's devices: that of a stay."""
        return any(
            i.join_seq <= seq and (not i.removed_seq or seq <= i.removed_seq)
            for i in self.intervals
        )

    def ranges(self, first: int, last: int) -> list[tuple[int, int]]:
        """The visible parts of the positions `first .. last`, ascending."""
        parts: list[tuple[int, int]] = []
        for i in self.intervals:
            low, high = max(first, i.first_seq), min(last, i.removed_seq or last)
            # What came before a stay may have been seen in an earlier one.
            while parts and parts[-1][1] >= low:
                low = min(low, parts.pop()[0])
            if low <= high:
                parts.append((low, high))
        return parts


def affected_users(body: Body) -> list[str]:
    """The users whose membership an entry changes."""
    match body:
        case ConversationCreated(members=members) | MembersAdded(members=members):
            return [m.user_id for m in members]
        case (
            MemberRemoved(user_id=user_id)
            | MemberMuted(user_id=user_id)
            | MemberBanned(user_id=user_id)
        ):
            return [user_id]
        case MemberRoleSet(changes=changes):
            return [change.user_id for change in changes]
    return []


def fold_membership(before: Membership | None, entry: Entry, user_id: str) -> Membership | None:
    """A user's membership after an entry. Folding an entry again, or an older one, changes
    nothing.
    """
    if before is not None and before.as_of >= entry.seq:
        return before
    match entry.body:
        case ConversationCreated(members=members) | MembersAdded(members=members):
            all_of_it = isinstance(entry.body, MembersAdded) and entry.body.with_history
            role = next((m.role for m in members if m.user_id == user_id), None)
            if role is None:
                return before
            if before is not None and before.current:
                return replace(before, as_of=entry.seq)
            stay = Interval(entry.seq, entry.ordinal, from_seq=int(all_of_it))
            if before is None:
                return Membership(user_id, role, entry.seq, (stay,))
            stays = (*before.intervals, stay)
            return replace(before, role=role, as_of=entry.seq, intervals=stays)
        case MemberRemoved(user_id=removed, banned_until_ms=banned):
            if removed != user_id or before is None or not before.current:
                return before
            ended = replace(before.intervals[-1], removed_seq=entry.seq)
            stays = (*before.intervals[:-1], ended)
            if banned:
                before = replace(before, banned_until_ms=banned)
            return replace(before, as_of=entry.seq, intervals=stays)
        case MemberRoleSet(changes=changes):
            given = next((c.role for c in changes if c.user_id == user_id), None)
            if given is None or before is None or not before.current:
                return before
            return replace(before, as_of=entry.seq, role=given)
        case MemberMuted(user_id=named, until_ms=until) if named == user_id and before is not None:
            return replace(before, as_of=entry.seq, muted_until_ms=until)
        case MemberBanned(user_id=named, until_ms=until) if named == user_id and before is not None:
            return replace(before, as_of=entry.seq, banned_until_ms=until)
    return before
