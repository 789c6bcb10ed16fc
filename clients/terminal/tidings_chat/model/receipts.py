"""How far the others have got and read, and what that says of one message."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

from tidings import Member, Receipt


class Progress(enum.IntEnum):
    """How far an own message has come."""

    FAILED = 0
    QUEUED = 1
    SENT = 2
    DELIVERED = 3
    READ = 4


@dataclass(slots=True)
class Marks:
    """The marks of the members of one conversation other than the own user.

    Attributes:
        joined: Since which position each of them is a member; None while that isn't known.
        delivered: The newest position delivered to each.
        read: The newest position read by each.
    """

    joined: dict[str, int] | None = None
    delivered: dict[str, int] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)

    def move(self, user_id: str, delivered_seq: int, read_seq: int) -> None:
        """Take a mark; it only grows. What was read was delivered."""
        self.read[user_id] = max(self.read.get(user_id, 0), read_seq)
        self.delivered[user_id] = max(self.delivered.get(user_id, 0), delivered_seq, read_seq)

    def load(self, me: str, members: Iterable[Member], receipts: Iterable[Receipt]) -> None:
        """Take what the server has of everybody."""
        self.joined = {
            member.user_id: member.join_seq for member in members if member.user_id != me
        }
        for receipt in receipts:
            if receipt.user_id != me:
                self.move(receipt.user_id, receipt.delivered_seq, receipt.read_seq)

    def join(self, user_id: str, seq: int) -> None:
        """Somebody became a member."""
        if self.joined is not None:
            self.joined[user_id] = seq

    def leave(self, user_id: str) -> None:
        """Somebody is no longer a member."""
        if self.joined is not None:
            self.joined.pop(user_id, None)
        self.delivered.pop(user_id, None)
        self.read.pop(user_id, None)

    def progress(self, seq: int) -> Progress:
        """How far the message at a position has come: what holds for all who were members then."""
        if self.joined is None:
            return Progress.SENT
        recipients = [user for user, joined in self.joined.items() if joined <= seq]
        if not recipients:
            return Progress.SENT
        if all(self.read.get(user, 0) >= seq for user in recipients):
            return Progress.READ
        if all(self.delivered.get(user, 0) >= seq for user in recipients):
            return Progress.DELIVERED
        return Progress.SENT

    def readers(self, seq: int) -> list[str]:
        """Who has read the message at a position, in the order of their ids."""
        return sorted(user for user, read in self.read.items() if read >= seq)

    def receivers(self, seq: int) -> list[str]:
        """Who has got the message at a position and not read it, in the order of their ids."""
        return sorted(
            user
            for user, delivered in self.delivered.items()
            if delivered >= seq and self.read.get(user, 0) < seq
        )
