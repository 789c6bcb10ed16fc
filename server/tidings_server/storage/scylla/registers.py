"""Memberships, cursors, receipts and presence: rows in which the larger value wins.

Each is written with a timestamp made from the value that decides: whatever the order in which writes come to a replica,
the largest stays. So no transaction is needed, and repeating does no harm. What that alone would not keep is that of
*equal* values the stored one stays (the engine would take the larger content). So where the content is more than the
value, what is stored is read first, and only what is newer is written. Nodes that write equal values at the same time
may still do so in any order: they write the same content, since it follows from the log at that position.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from cassandra.query import BoundStatement

from tidings_server.core.memberships import Membership
from tidings_server.storage.base import CursorRow, PresenceRow, Receipt
from tidings_server.storage.columns import (
    dump_details,
    dump_intervals,
    dump_role,
    load_membership,
)
from tidings_server.storage.scylla.courier import Courier
from tidings_server.storage.scylla.lanes import Lanes, Spawn
from tidings_server.storage.scylla.statements import (
    IN_AT_MOST,
    Statements,
    batches,
    parts,
    timestamp,
)

_LIST_AT_LEAST = 32
_LIST_AT_MOST = 1_000


class Registers:
    """Writes and reads them. Each call may raise StoreUnavailable."""

    def __init__(self, courier: Courier, statements: Statements, spawn: Spawn) -> None:
        self._courier = courier
        self._statements = statements
        self._memberships = Lanes(self._write_memberships, spawn)
        self._receipts = Lanes(self._write_receipts, spawn)
        self._presence = Lanes(self._write_presence, spawn)

    # Memberships

    async def put_memberships(self, log: str, rows: Sequence[Membership]) -> None:
        if rows:
            await self._memberships.put(log, list(rows))

    async def _write_memberships(self, log: str, rows: Sequence[Membership]) -> None:
        newest: dict[str, Membership] = {}
        for row in rows:
            known = newest.get(row.user_id)
            if known is None or row.as_of > known.as_of:
                newest[row.user_id] = row
        stored = await self.memberships(log, list(newest))
        newer = [
            row
            for user, row in newest.items()
            if user not in stored or row.as_of > stored[user].as_of
        ]
        prepared = self._statements
        by_log: list[BoundStatement] = []
        by_user: list[BoundStatement] = []
        for row in newer:
            at, role = timestamp(row.as_of), dump_role(row.role)
            stays, details = dump_intervals(row.intervals), dump_details(row)
            by_log.append(
                prepared.put_membership.bind(
                    (at, row.as_of, role, row.current, stays, details, log, row.user_id)
                )
            )
            by_user.append(
                prepared.put_membership_of_user.bind(
                    (at, row.as_of, role, stays, details, row.user_id, log)
                )
            )
        # By user first: a row that is newer by log is passed over when this is repeated, so it must come last.
        await self._courier.ask_all(by_user)
        await self._courier.ask_all(batches(by_log))

    async def memberships(self, log: str, users: Sequence[str]) -> dict[str, Membership]:
        answers = await self._courier.ask_all(
            self._statements.memberships.bind((log, list(part))) for part in parts(_unique(users))
        )
        return {row[0]: load_membership(*row) for rows in answers for row in rows}

    async def memberships_of(self, user_id: str, logs: Sequence[str]) -> dict[str, Membership]:
        wanted = _unique(logs)
        if len(wanted) > IN_AT_MOST:
            # They lie together; whoever asks for many asks for nearly all.
            asked = self._statements.all_memberships_of.bind((user_id,))
        else:
            asked = self._statements.memberships_of.bind((user_id, wanted))
        rows = await self._courier.ask(asked)
        among = frozenset(wanted)
        return {
            log: load_membership(user_id, as_of, role, stays, details)
            for log, as_of, role, stays, details in rows
            if log in among
        }

    async def list_memberships(self, log: str, after_user: str, limit: int) -> list[Membership]:
        found: list[Membership] = []
        at_once = min(max(limit, _LIST_AT_LEAST), _LIST_AT_MOST)
        while len(found) < limit:
            rows = await self._courier.ask(
                self._statements.list_memberships.bind((log, after_user, at_once))
            )
            found += [load_membership(*row) for *row, is_current in rows if is_current]
            if len(rows) < at_once:
                break
            after_user = rows[-1][0]
        return found[:limit]

    async def put_user_logs(self, log: str, users: Iterable[str]) -> None:
        bind = self._statements.put_user_log.bind
        await self._courier.ask_all(bind((user, log)) for user in _unique(users))

    async def user_logs(self, user_id: str) -> list[str]:
        rows = await self._courier.ask(self._statements.user_logs.bind((user_id,)))
        return [log for (log,) in rows]

    # Cursors: the value is all there is, so nothing has to be read.

    async def put_cursors(self, rows: Sequence[CursorRow]) -> None:
        bind = self._statements.put_cursor.bind
        furthest: dict[tuple[str, str], dict[str, int]] = {}
        for row in rows:
            logs = furthest.setdefault((row.user_id, row.device_id), {})
            logs[row.log] = max(row.seq, logs.get(row.log, row.seq))
        await self._courier.ask_all(
            request
            for (user, device), logs in furthest.items()
            for request in batches(
                [bind((timestamp(seq), seq, user, device, log)) for log, seq in logs.items()]
            )
        )

    async def cursors(self, user_id: str, device_id: str) -> dict[str, int]:
        rows = await self._courier.ask(self._statements.cursors.bind((user_id, device_id)))
        return dict(rows)

    # Receipts

    async def put_receipts(self, rows: Sequence[Receipt]) -> None:
        by_log: dict[str, list[Receipt]] = {}
        for row in rows:
            by_log.setdefault(row.log, []).append(row)
        await _all(self._receipts.put(log, some) for log, some in by_log.items())

    async def _write_receipts(self, log: str, rows: Sequence[Receipt]) -> None:
        users = _unique(row.user_id for row in rows)
        answers = await self._courier.ask_all(
            self._statements.receipts.bind((log, list(part))) for part in parts(users)
        )
        stored = {row[1]: _receipt(row) for found in answers for row in found}
        now = dict(stored)
        for row in rows:
            old = now.get(row.user_id, row)
            read = row if row.read_seq > old.read_seq else old
            now[row.user_id] = Receipt(
                log,
                row.user_id,
                max(row.delivered_seq, old.delivered_seq),
                read.read_seq,
                read.read_ordinal,
            )
        writes: list[BoundStatement] = []
        for user in users:
            before, after = stored.get(user), now[user]
            if before is None or after.delivered_seq > before.delivered_seq:
                seq = after.delivered_seq
                writes.append(self._statements.put_delivered.bind((timestamp(seq), seq, log, user)))
            if before is None or after.read_seq > before.read_seq:
                seq = after.read_seq
                writes.append(
                    self._statements.put_read.bind(
                        (timestamp(seq), seq, after.read_ordinal, log, user)
                    )
                )
        await self._courier.ask_all(batches(writes))

    async def receipts_of(self, user_id: str, logs: Sequence[str]) -> dict[str, Receipt]:
        answers = await self._courier.ask_all(
            self._statements.receipts_of.bind((list(part), user_id))
            for part in parts(_unique(logs))
        )
        return {row[0]: _receipt(row) for rows in answers for row in rows}

    async def list_receipts(self, log: str, after_user: str, limit: int) -> list[Receipt]:
        if limit < 1:
            return []
        rows = await self._courier.ask(
            self._statements.list_receipts.bind((log, after_user, limit))
        )
        return [_receipt(row) for row in rows]

    # Presence

    async def put_presence(self, rows: Sequence[PresenceRow]) -> None:
        by_user: dict[str, list[PresenceRow]] = {}
        for row in rows:
            by_user.setdefault(row.user_id, []).append(row)
        await _all(self._presence.put(user, some) for user, some in by_user.items())

    async def _write_presence(self, user: str, rows: Sequence[PresenceRow]) -> None:
        before = (await self.presence([user])).get(user)
        seen = max(row.last_seen_ms for row in rows)
        status = before if before is not None else PresenceRow(user)
        for row in rows:
            if row.status_ms > status.status_ms:
                status = row
        writes: list[BoundStatement] = []
        if before is None or seen > before.last_seen_ms:
            writes.append(self._statements.put_seen.bind((timestamp(seen), seen, user)))
        if status.status_ms and (before is None or status.status_ms > before.status_ms):
            writes.append(
                self._statements.put_status.bind(
                    (
                        timestamp(status.status_ms),
                        status.status_ms,
                        status.availability,
                        status.status_text,
                        user,
                    )
                )
            )
        await self._courier.ask_all(batches(writes))

    async def presence(self, users: Sequence[str]) -> dict[str, PresenceRow]:
        answers = await self._courier.ask_all(
            self._statements.presence.bind((list(part),)) for part in parts(_unique(users))
        )
        return {
            user: PresenceRow(user, seen or 0, since or 0, availability or 0, text or "")
            for rows in answers
            for user, seen, since, availability, text in rows
        }


def _receipt(row: Sequence[Any]) -> Receipt:
    log, user, delivered, read, ordinal = row
    return Receipt(log, user, delivered or 0, read or 0, ordinal or 0)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


async def _all(futures: Iterable[asyncio.Future[None]]) -> None:
    """Waits for all; raises the first error."""
    waiting = list(futures)
    if not waiting:
        return
    await asyncio.wait(waiting)
    problems = [future.exception() for future in waiting]
    for problem in problems:
        if problem is not None:
            raise problem
