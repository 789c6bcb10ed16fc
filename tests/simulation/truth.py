"""The truth of a simulation: what the disk holds, read and folded by rules of its own, entry by entry as it is written.

It shares nothing with the server but the contract's messages. Whatever a page may not contain fails the run at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tidings.v1 import chat_service_pb2, entry_pb2
from tidings_server.storage.base import APPLIED, Append, Outcome
from tidings_server.storage.memory import MemoryDisk

from .rules import (
    OWNER,
    allowed,
    change_roles,
    change_settings,
    has_owner,
    invited,
    no_settings,
    restrict,
)
from .violation import Violation

OPEN = 1 << 62
_DIRECT = 1
_IN_DIRECT = ("message", "message_edited", "message_deleted", "reaction_set", "message_pinned")


@dataclass(slots=True)
class Stay:
    """One stay of a user in a conversation: the positions `first .. last` are theirs to see."""

    first: int
    before: int
    """The number of messages before it."""
    last: int = OPEN
    seen_from: int = 0
    """Where what came before is theirs to read, 0 for nowhere. It is not sent to them."""


@dataclass(slots=True)
class Log:
    """One log as the disk has it."""

    name: str
    entries: list[entry_pb2.Entry] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    by_id: dict[tuple[str, str], int] = field(default_factory=dict)
    stays: dict[str, list[Stay]] = field(default_factory=dict)
    roles: dict[str, int] = field(default_factory=dict)
    """The members now, and the role of each."""
    settings: dict[str, Any] = field(default_factory=no_settings)
    invitations: dict[str, tuple[int, int]] = field(default_factory=dict)
    muted: dict[str, int] = field(default_factory=dict)
    banned: dict[str, int] = field(default_factory=dict)
    kind: int = 0
    ordinal: int = 0
    stamp: int = 0

    @property
    def head(self) -> int:
        """The newest position."""
        return len(self.entries)

    @property
    def owners(self) -> set[str]:
        """The owners now."""
        return {user for user, role in self.roles.items() if role == OWNER}

    def members(self) -> list[str]:
        """The members now, sorted."""
        return sorted(user for user, stays in self.stays.items() if stays[-1].last == OPEN)

    def is_member(self, user: str) -> bool:
        """Whether a user is a member now."""
        stays = self.stays.get(user)
        return bool(stays) and stays[-1].last == OPEN  # type: ignore[index]

    def visible(self, user: str, seq: int) -> bool:
        """Whether a user may see a position."""
        if self.name.startswith("inbox:"):
            return self.name == f"inbox:{user}"
        return any(
            (stay.seen_from or stay.first) <= seq <= stay.last for stay in self.stays.get(user, ())
        )

    def due(self, user: str, seq: int) -> bool:
        """Whether a position is to be sent to the devices of a user."""
        if self.name.startswith("inbox:"):
            return self.visible(user, seq)
        return any(stay.first <= seq <= stay.last for stay in self.stays.get(user, ()))

    def visible_end(self, user: str) -> int:
        """The newest position that a user may see, 0 for none."""
        if self.name.startswith("inbox:"):
            return self.head
        stays = self.stays.get(user)
        return min(self.head, stays[-1].last) if stays else 0

    def visible_seqs(self, user: str) -> list[int]:
        """The positions that a user may see."""
        if self.name.startswith("inbox:"):
            return list(range(1, self.head + 1))
        return [seq for seq in range(1, self.head + 1) if self.visible(user, seq)]


class Truth:
    """All logs of a disk."""

    def __init__(self, decided: Callable[[Log, entry_pb2.Entry, str], None]) -> None:
        self._decided = decided
        self.logs: dict[str, Log] = {}
        self.created: dict[tuple[str, str], str] = {}
        """Where the conversation is that a user created by a request id."""
        self.appends = 0

    def log(self, name: str) -> Log:
        """A log, perhaps an empty one."""
        found = self.logs.get(name)
        if found is None:
            found = self.logs[name] = Log(name)
        return found

    def conversations_of(self, user: str) -> list[str]:
        """The conversations that a user is or was a member of."""
        return [log.name for log in self.logs.values() if user in log.stays]

    def texts(self) -> set[str]:
        """The texts of all messages."""
        return {entry.message.text for log in self.logs.values() for entry in log.entries}

    def names_visible_to(self, user: str) -> list[str]:
        """The logs of which a user may see something."""
        inbox = f"inbox:{user}"
        found = self.conversations_of(user)
        return [*found, inbox] if inbox in self.logs else found

    def appended(self, request: Append) -> list[entry_pb2.Entry]:
        """A page was written; returns its entries. Raises Violation when it must not be there."""
        self.appends += 1
        page = request.page
        log = self.log(request.log)
        if page.first_seq != log.head + 1:
            raise Violation("I3", f"{log.name}: a page at {page.first_seq} after head {log.head}")
        events = chat_service_pb2.ChatResponse.FromString(page.body).events
        if len(events) != page.count or len(page.ids) != 16 * page.count:
            raise Violation("I3", f"{log.name}: a page of {page.count} with {len(events)} entries")
        if page.stamp < log.stamp:
            raise Violation(
                "stamp", f"{log.name}:{page.first_seq}: stamp {page.stamp} after {log.stamp}"
            )
        log.stamp = page.stamp
        for at, event in enumerate(events):
            entry = event.entry
            self._entry(log, entry, event.SerializeToString())
            if bytes.fromhex(entry.id.replace("-", "")) != page.ids[at * 16 : at * 16 + 16]:
                raise Violation("I2", f"{log.name}:{entry.seq}: the page's ids differ")
        if log.ordinal != page.ordinal:
            raise Violation("ordinal", f"{log.name}:{log.head}: {page.ordinal}, not {log.ordinal}")
        return [event.entry for event in events]

    def _entry(self, log: Log, entry: entry_pb2.Entry, raw: bytes) -> None:
        where = f"{log.name}:{entry.seq}"
        if entry.seq != log.head + 1 or entry.conversation_id != log.name:
            raise Violation("I3", f"{where} stands at {log.name}:{log.head + 1}")
        key = (entry.user_id, entry.id)
        if not log.name.startswith("inbox:"):
            self._fold(log, entry, where)
        elif entry.WhichOneof("body") not in ("conversation_joined", "conversation_left"):
            raise Violation("inbox", f"{where} holds {entry.WhichOneof('body')}")
        if key in log.by_id:
            raise Violation(
                "I2", f"{where}: {entry.id} of {entry.user_id} is at {log.by_id[key]} already"
            )
        if entry.WhichOneof("body") == "message":
            log.ordinal += 1
        if entry.ordinal != log.ordinal:
            raise Violation("ordinal", f"{where}: {entry.ordinal}, not {log.ordinal}")
        log.by_id[key] = entry.seq
        log.entries.append(entry)
        log.raw.append(raw)

    def _fold(self, log: Log, entry: entry_pb2.Entry, where: str) -> None:
        user, kind = entry.user_id, entry.WhichOneof("body")
        if kind == "conversation_created":
            if entry.seq != 1:
                raise Violation("decision", f"{where}: created again")
            log.kind = entry.conversation_created.kind
            self.created[user, entry.id] = log.name
            self._join(log, entry, entry.conversation_created.members, where)
            change_roles(log.roles, entry)
            change_settings(log.settings, entry)
            return
        joins = kind == "members_added" and bool(entry.members_added.invitation_id)
        if not log.is_member(user) and not joins:
            raise Violation("decision", f"{where}: {kind} by {user}, who is no member")
        if log.kind == _DIRECT and kind not in _IN_DIRECT:
            raise Violation("decision", f"{where}: {kind} in a direct conversation")
        (invited if joins else allowed)(log, entry, where)
        self._decided(log, entry, where)
        if kind == "members_added":
            if entry.members_added.with_history != log.settings["history_for_newcomers"]:
                raise Violation("decision", f"{where}: {entry.members_added}")
            self._join(log, entry, entry.members_added.members, where)
        elif kind == "member_removed":
            removed = entry.member_removed.user_id
            if not log.is_member(removed):
                raise Violation("decision", f"{where}: {removed} was no member")
            log.stays[removed][-1].last = entry.seq
        change_roles(log.roles, entry)
        restrict(log, entry)
        change_settings(log.settings, entry)
        has_owner(log, where)

    def _join(self, log: Log, entry: entry_pb2.Entry, members: object, where: str) -> None:
        for member in members:  # type: ignore[attr-defined]
            if log.is_member(member.user_id):
                raise Violation("decision", f"{where}: {member.user_id} was a member already")
            stays = log.stays.setdefault(member.user_id, [])
            seen_from = int(entry.members_added.with_history)
            stays.append(Stay(entry.seq, log.ordinal, seen_from=seen_from))


class WatchedDisk(MemoryDisk):
    """A disk that tells the truth of every page written to it.

    `decided` looks at changes that are not of memberships. `report` is given what is wrong with a page, since whoever
    wrote it may well swallow exceptions; `appeared` is told of each new entry.
    """

    def __init__(
        self,
        report: Callable[[Violation], None],
        appeared: Callable[[Log, entry_pb2.Entry], None],
        decided: Callable[[Log, entry_pb2.Entry, str], None],
    ) -> None:
        super().__init__()
        self.truth = Truth(decided)
        self._tell = (report, appeared)

    def append(self, request: Append) -> Outcome:
        """See `MemoryDisk`."""
        outcome = super().append(request)
        if outcome is APPLIED:
            report, appeared = self._tell
            try:
                for entry in self.truth.appended(request):
                    appeared(self.truth.log(request.log), entry)
            except Violation as violation:
                report(violation)
        return outcome

    def detach(self) -> None:
        """Tells nobody any more."""
        self._tell = (lambda _: None, lambda _log, _entry: None)

    def user_logs(self, user_id: str) -> list[str]:
        """See `MemoryDisk`; in an order that doesn't depend on the hashes of strings."""
        return sorted(super().user_logs(user_id))

    def backup(self) -> MemoryDisk:
        """See `MemoryDisk`."""
        tell, self._tell = self._tell, ()  # type: ignore[assignment]
        other = super().backup()
        self._tell = other._tell = tell  # type: ignore[attr-defined]
        return other
