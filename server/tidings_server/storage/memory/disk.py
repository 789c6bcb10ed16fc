"""What a memory store keeps, and the rules of the port, each said as plainly as possible."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from tidings_server.core.memberships import Membership
from tidings_server.core.pages import Page
from tidings_server.storage.base import (
    APPLIED,
    Append,
    Conflict,
    CursorRow,
    Head,
    MentionRow,
    Outcome,
    OverlayRow,
    PageIds,
    PresenceRow,
    ReactionRow,
    Receipt,
    Snapshot,
)


@dataclass(slots=True)
class _Log:
    pages: list[Page] = field(default_factory=list)
    pending: tuple[int, ...] = ()
    snapshot: Snapshot = field(default_factory=lambda: Snapshot(0, b""))

    @property
    def last_seq(self) -> int:
        return self.pages[-1].last_seq if self.pages else 0


class MemoryDisk:
    """The data of memory stores. It survives them: a later store on it finds what was written.

    Every method is one atomic step. `incarnation` is empty until a store was opened.
    """

    def __init__(self) -> None:
        self.incarnation = ""
        # Earlier incarnations, each with the stamp at which its history ended.
        self.ended: dict[str, int] = {}
        self._logs: dict[str, _Log] = {}
        self._memberships: dict[str, dict[str, Membership]] = {}
        self._user_logs: dict[str, dict[str, None]] = {}
        self._cursors: dict[tuple[str, str], dict[str, int]] = {}
        self._receipts: dict[str, dict[str, Receipt]] = {}
        self._presence: dict[str, PresenceRow] = {}
        self._intents: dict[str, dict[int, set[str]]] = {}
        self._overlays: dict[str, dict[int, OverlayRow]] = {}
        self._reactions: dict[tuple[str, int], dict[str, ReactionRow]] = {}
        self._mentions: dict[tuple[str, str], dict[int, MentionRow]] = {}

    def backup(self) -> MemoryDisk:
        """A copy as of now; a store opened on it is another incarnation."""
        other = copy.deepcopy(self)
        stamps = [page.stamp for log in self._logs.values() for page in log.pages]
        other.ended[self.incarnation] = max(stamps, default=0) + 1
        other.incarnation = ""
        return other

    # Logs

    def append(self, request: Append) -> Outcome:
        log = self._logs.get(request.log)
        head = log.last_seq if log else 0
        if head != request.expected_head:
            return Conflict(head)
        if log is None:
            log = self._logs[request.log] = _Log()
        log.pages.append(request.page)
        log.pending = request.pending
        if request.snapshot is not None:
            log.snapshot = Snapshot(request.expected_head, request.snapshot)
        return APPLIED

    def heads(self, logs: Sequence[str]) -> dict[str, Head]:
        found = {}
        for name in logs:
            log = self._logs.get(name)
            if log is not None:
                last = log.pages[-1]
                found[name] = Head(
                    last.last_seq, last.ordinal, last.stamp, last.commit_id, log.pending
                )
        return found

    def snapshot(self, log: str) -> Snapshot | None:
        return self._logs[log].snapshot if log in self._logs else None

    def read(self, log: str, after: int, max_bytes: int, upto: int | None) -> list[Page]:
        return _within(
            max_bytes,
            (
                page
                for page in self._pages(log)
                if page.last_seq > after and (upto is None or page.first_seq <= upto)
            ),
        )

    def read_back(self, log: str, before: int, max_bytes: int) -> list[Page]:
        return _within(
            max_bytes, (page for page in reversed(self._pages(log)) if page.first_seq < before)
        )

    def read_flagged(self, log: str, after: int, flag: int, limit: int) -> list[Page]:
        found = [p for p in self._pages(log) if p.first_seq > after and p.flags & flag]
        return found[:limit]

    def read_ids(self, log: str, before: int, min_stamp: int, max_pages: int) -> list[PageIds]:
        found = [
            PageIds(page.first_seq, page.stamp, page.ids)
            for page in reversed(self._pages(log))
            if page.first_seq < before and page.stamp >= min_stamp
        ]
        return found[:max_pages]

    def _pages(self, log: str) -> list[Page]:
        return self._logs[log].pages if log in self._logs else []

    def rewrite(self, log: str, page: Page) -> bool:
        pages = self._pages(log)
        for at, stored in enumerate(pages):
            if stored.first_seq == page.first_seq:
                if stored.rev == page.rev - 1:
                    pages[at] = replace(stored, rev=page.rev, body=page.body)
                return (pages[at].rev, pages[at].body) == (page.rev, page.body)
        return False

    # What became of messages

    def put_overlays(self, log: str, rows: Sequence[OverlayRow]) -> None:
        stored = self._overlays.setdefault(log, {})
        for row in rows:
            if row.seq not in stored or row.as_of > stored[row.seq].as_of:
                stored[row.seq] = row

    def overlays(self, log: str, first: int, last: int) -> list[OverlayRow]:
        stored = self._overlays.get(log, {})
        return [stored[seq] for seq in sorted(stored) if first <= seq <= last]

    def put_reactions(self, log: str, rows: Sequence[ReactionRow]) -> None:
        for row in rows:
            stored = self._reactions.setdefault((log, row.seq), {})
            if row.user_id not in stored or row.as_of > stored[row.user_id].as_of:
                stored[row.user_id] = row

    def reactions_of(self, log: str, user_id: str, seqs: Sequence[int]) -> dict[int, ReactionRow]:
        rows = {seq: self._reactions.get((log, seq), {}).get(user_id) for seq in seqs}
        return {seq: row for seq, row in rows.items() if row is not None}

    def list_reactions(self, log: str, seq: int, after_user: str, limit: int) -> list[ReactionRow]:
        stored = self._reactions.get((log, seq), {})
        found = [stored[user] for user in sorted(stored) if user > after_user]
        return [row for row in found if row.reaction][:limit]

    def put_mentions(self, log: str, rows: Sequence[MentionRow]) -> None:
        for row in rows:
            stored = self._mentions.setdefault((log, row.user_id), {})
            if row.seq not in stored or row.as_of > stored[row.seq].as_of:
                stored[row.seq] = row

    def mentions(self, log: str, user_id: str, after: int, limit: int) -> list[MentionRow]:
        stored = self._mentions.get((log, user_id), {})
        found = [stored[seq] for seq in sorted(stored) if seq > after]
        return [row for row in found if row.author][:limit]

    # Intents

    def put_intents(self, node_id: str, round_: int, logs: Sequence[str]) -> None:
        if logs:
            self._intents.setdefault(node_id, {}).setdefault(round_, set()).update(logs)

    def intent_nodes(self) -> list[str]:
        return list(self._intents)

    def intent_rounds(self, node_id: str) -> list[int]:
        return sorted(self._intents.get(node_id, ()))

    def intents(self, node_id: str, round_: int, after: str, limit: int) -> list[str]:
        stored = self._intents.get(node_id, {}).get(round_, ())
        return [log for log in sorted(stored) if log > after][:limit]

    def clear_intents(self, node_id: str, upto: int) -> None:
        left = {r: logs for r, logs in self._intents.get(node_id, {}).items() if r > upto}
        if left:
            self._intents[node_id] = left
        else:
            self._intents.pop(node_id, None)

    # Memberships

    def put_memberships(self, log: str, rows: Sequence[Membership]) -> None:
        stored = self._memberships.setdefault(log, {})
        for row in rows:
            if row.user_id not in stored or row.as_of > stored[row.user_id].as_of:
                stored[row.user_id] = row

    def memberships(self, log: str, users: Sequence[str]) -> dict[str, Membership]:
        stored = self._memberships.get(log, {})
        return {user: stored[user] for user in users if user in stored}

    def memberships_of(self, user_id: str, logs: Sequence[str]) -> dict[str, Membership]:
        return {
            log: self._memberships[log][user_id]
            for log in logs
            if user_id in self._memberships.get(log, {})
        }

    def list_memberships(self, log: str, after_user: str, limit: int) -> list[Membership]:
        stored = self._memberships.get(log, {})
        found = [stored[user] for user in sorted(stored) if user > after_user]
        return [row for row in found if row.current][:limit]

    def put_user_logs(self, log: str, users: Iterable[str]) -> None:
        for user in users:
            self._user_logs.setdefault(user, {})[log] = None

    def user_logs(self, user_id: str) -> list[str]:
        return list(self._user_logs.get(user_id, ()))

    # Registers

    def put_cursors(self, rows: Sequence[CursorRow]) -> None:
        for row in rows:
            stored = self._cursors.setdefault((row.user_id, row.device_id), {})
            stored[row.log] = max(row.seq, stored.get(row.log, row.seq))

    def cursors(self, user_id: str, device_id: str) -> dict[str, int]:
        return dict(self._cursors.get((user_id, device_id), {}))

    def put_receipts(self, rows: Sequence[Receipt]) -> None:
        for row in rows:
            stored = self._receipts.setdefault(row.log, {})
            old = stored.get(row.user_id, row)
            read = row if row.read_seq > old.read_seq else old
            stored[row.user_id] = Receipt(
                row.log,
                row.user_id,
                max(row.delivered_seq, old.delivered_seq),
                read.read_seq,
                read.read_ordinal,
            )

    def receipts_of(self, user_id: str, logs: Sequence[str]) -> dict[str, Receipt]:
        return {
            log: self._receipts[log][user_id]
            for log in logs
            if user_id in self._receipts.get(log, {})
        }

    def list_receipts(self, log: str, after_user: str, limit: int) -> list[Receipt]:
        stored = self._receipts.get(log, {})
        return [stored[user] for user in sorted(stored) if user > after_user][:limit]

    # Presence

    def put_presence(self, rows: Sequence[PresenceRow]) -> None:
        for row in rows:
            old = self._presence.get(row.user_id, PresenceRow(row.user_id))
            status = row if row.status_ms > old.status_ms else old
            self._presence[row.user_id] = replace(
                status, last_seen_ms=max(row.last_seen_ms, old.last_seen_ms)
            )

    def presence(self, users: Sequence[str]) -> dict[str, PresenceRow]:
        return {user: self._presence[user] for user in users if user in self._presence}


def _within(max_bytes: int, pages: Iterable[Page]) -> list[Page]:
    found: list[Page] = []
    size = 0
    for page in pages:
        size += len(page.body)
        if found and size > max_bytes:
            break
        found.append(page)
    return found
