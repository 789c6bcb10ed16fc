"""What is written: rows as SQL takes them, and statements that write many of them in one step.

The writer thread and the event loop contend for Python's lock at each call into SQLite, so calls are what costs:
many rows go into one statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from tidings_server.core.memberships import Membership
from tidings_server.storage.base import CursorRow, PresenceRow, Receipt
from tidings_server.storage.columns import dump_details, dump_intervals, dump_role

Row = tuple[Any, ...]

ROWS_A_STATEMENT = 64


class Statement(Protocol):
    """Something that is done for each of any number of rows."""

    def statements(self, rows: Sequence[Row]) -> list[tuple[str, list[Any]]]:
        """The statements that do it, in the order of the rows, each with its bindings."""
        ...


class Insert:
    """An INSERT of any number of rows. `conflict` says what happens to a row that is there."""

    def __init__(self, table: str, columns: Sequence[str], conflict: str = "") -> None:
        self._head = f"INSERT INTO {table} ({', '.join(columns)}) VALUES "  # noqa: S608  # constants
        self._row = f"({', '.join('?' * len(columns))})"
        self._tail = f" ON CONFLICT {conflict}" if conflict else ""
        # The texts stay the same objects, so SQLite's prepared statements for them are found again.
        self._texts = [self._text(n) for n in range(ROWS_A_STATEMENT + 1)]

    def statements(self, rows: Sequence[Row]) -> list[tuple[str, list[Any]]]:
        """The statements that write the rows, in their order, each with its bindings."""
        found = []
        for at in range(0, len(rows), ROWS_A_STATEMENT):
            part = rows[at : at + ROWS_A_STATEMENT]
            found.append((self._texts[len(part)], [value for row in part for value in row]))
        return found

    def _text(self, rows: int) -> str:
        return self._head + ", ".join([self._row] * rows) + self._tail


class Repeated:
    """A statement that is repeated for each row. For what is rare."""

    def __init__(self, text: str) -> None:
        self._text = text

    def statements(self, rows: Sequence[Row]) -> list[tuple[str, list[Any]]]:
        """See `Statement`."""
        return [(self._text, list(row)) for row in rows]


LOGS = Insert("log", ["id", "name"])

PAGES = Insert(
    "page",
    [
        "log",
        "first_seq",
        "count",
        "stamp",
        "ordinal",
        "flags",
        "rev",
        "commit_id",
        "pending",
        "ids",
        "body",
    ],
)

BUCKETS = Insert("bucket", ["log", "bucket", "state"])

MEMBERSHIPS = Insert(
    "membership",
    ["log", "user_id", "as_of", "role", "is_current", "intervals", "details"],
    "(log, user_id) DO UPDATE SET as_of = excluded.as_of, role = excluded.role,"
    " is_current = excluded.is_current, intervals = excluded.intervals, details = excluded.details"
    " WHERE excluded.as_of > as_of",
)

USER_LOGS = Insert("user_log", ["user_id", "log"], "DO NOTHING")

CURSORS = Insert(
    "device_cursor",
    ["user_id", "device_id", "log", "seq"],
    "(user_id, device_id, log) DO UPDATE SET seq = excluded.seq WHERE excluded.seq > seq",
)

RECEIPTS = Insert(
    "receipt",
    ["log", "user_id", "delivered_seq", "read_seq", "read_ordinal"],
    "(log, user_id) DO UPDATE SET delivered_seq = max(delivered_seq, excluded.delivered_seq),"
    " read_ordinal = iif(excluded.read_seq > read_seq, excluded.read_ordinal, read_ordinal),"
    " read_seq = max(read_seq, excluded.read_seq)"
    " WHERE excluded.delivered_seq > delivered_seq OR excluded.read_seq > read_seq",
)

PRESENCE = Insert(
    "presence",
    ["user_id", "last_seen_ms", "status_ms", "availability", "status_text"],
    "(user_id) DO UPDATE SET last_seen_ms = max(last_seen_ms, excluded.last_seen_ms),"
    " availability = iif(excluded.status_ms > status_ms, excluded.availability, availability),"
    " status_text = iif(excluded.status_ms > status_ms, excluded.status_text, status_text),"
    " status_ms = max(status_ms, excluded.status_ms)"
    " WHERE excluded.last_seen_ms > last_seen_ms OR excluded.status_ms > status_ms",
)

INTENTS = Insert("intent", ["node_id", "round", "log"], "DO NOTHING")

CLEARED_INTENTS = Repeated("DELETE FROM intent WHERE node_id = ? AND round <= ?")

REWRITTEN = Repeated(
    "UPDATE page SET body = ?, rev = ?"
    " WHERE log = (SELECT id FROM log WHERE name = ?) AND first_seq = ? AND rev = ?"
)

OVERLAYS = Insert(
    "overlay",
    ["log", "seq", "as_of", "body"],
    "(log, seq) DO UPDATE SET as_of = excluded.as_of, body = excluded.body"
    " WHERE excluded.as_of > as_of",
)

REACTIONS = Insert(
    "reaction",
    ["log", "seq", "user_id", "as_of", "reaction"],
    "(log, seq, user_id) DO UPDATE SET as_of = excluded.as_of, reaction = excluded.reaction"
    " WHERE excluded.as_of > as_of",
)

MENTIONS = Insert(
    "mention",
    ["log", "user_id", "seq", "as_of", "author"],
    "(log, user_id, seq) DO UPDATE SET as_of = excluded.as_of, author = excluded.author"
    " WHERE excluded.as_of > as_of",
)


def membership_rows(log: str, rows: Iterable[Membership]) -> list[Row]:
    """Rows for `MEMBERSHIPS`."""
    return [
        (
            log,
            m.user_id,
            m.as_of,
            dump_role(m.role),
            int(m.current),
            dump_intervals(m.intervals),
            dump_details(m),
        )
        for m in rows
    ]


def cursor_rows(rows: Iterable[CursorRow]) -> list[Row]:
    """Rows for `CURSORS`."""
    return [(r.user_id, r.device_id, r.log, r.seq) for r in rows]


def receipt_rows(rows: Iterable[Receipt]) -> list[Row]:
    """Rows for `RECEIPTS`."""
    return [(r.log, r.user_id, r.delivered_seq, r.read_seq, r.read_ordinal) for r in rows]


def presence_rows(rows: Iterable[PresenceRow]) -> list[Row]:
    """Rows for `PRESENCE`. A status without a time is none."""
    return [
        (r.user_id, r.last_seen_ms, r.status_ms, r.availability, r.status_text)
        if r.status_ms
        else (r.user_id, r.last_seen_ms, 0, 0, "")
        for r in rows
    ]
