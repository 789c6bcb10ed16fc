"""What is read: one function a question of the port, on a connection, in as few statements as can be."""

# ruff: noqa: S608  # statements are put together from constants

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import apsw

from tidings_server.core.memberships import Membership
from tidings_server.core.pages import BUCKET_SIZE, Page
from tidings_server.storage.base import (
    Head,
    MentionRow,
    OverlayRow,
    PageIds,
    PresenceRow,
    ReactionRow,
    Receipt,
    Snapshot,
)
from tidings_server.storage.columns import load_membership, load_positions

_PAGE = "first_seq, count, stamp, ordinal, commit_id, ids, flags, body, rev"
_LOG = "log = (SELECT id FROM log WHERE name = ?1)"

# Lists are bound as arrays: one statement for any number of names. CROSS JOIN keeps the array outside: SQLite would
# rather scan all members of a room, and the array once for each of them.
_HEADS = """
SELECT l.name, p.first_seq + p.count - 1, p.ordinal, p.stamp, p.commit_id, p.pending
FROM carray(?) AS asked
CROSS JOIN log AS l ON l.name = asked.value
CROSS JOIN page AS p ON p.rowid =
    (SELECT q.rowid FROM page AS q WHERE q.log = l.id ORDER BY q.first_seq DESC LIMIT 1)
"""
_SNAPSHOT = f"SELECT bucket, state FROM bucket WHERE {_LOG} ORDER BY bucket DESC LIMIT 1"
_READ = f"""
SELECT {_PAGE} FROM page
WHERE {_LOG}
  AND first_seq >= coalesce((SELECT max(first_seq) FROM page WHERE {_LOG} AND first_seq <= ?2 + 1), 0)
  AND first_seq <= ?3
  AND first_seq + count > ?2 + 1
ORDER BY first_seq
"""
_READ_BACK = f"SELECT {_PAGE} FROM page WHERE {_LOG} AND first_seq < ?2 ORDER BY first_seq DESC"
# "flags <> 0" lets the partial index answer.
_READ_FLAGGED = f"""
SELECT {_PAGE} FROM page
WHERE {_LOG} AND first_seq > ?2 AND flags <> 0 AND flags & ?3
ORDER BY first_seq LIMIT ?4
"""
_READ_IDS = f"""
SELECT first_seq, stamp, ids FROM page
WHERE {_LOG} AND first_seq < ?2
ORDER BY first_seq DESC LIMIT ?3
"""
_MEMBERSHIPS = """
SELECT m.user_id, m.as_of, m.role, m.intervals, m.details
FROM carray(?2) AS asked CROSS JOIN membership AS m ON m.log = ?1 AND m.user_id = asked.value
"""
_MEMBERSHIPS_OF = """
SELECT m.log, m.as_of, m.role, m.intervals, m.details
FROM carray(?2) AS asked CROSS JOIN membership AS m ON m.log = asked.value AND m.user_id = ?1
"""
_LIST_MEMBERSHIPS = """
SELECT user_id, as_of, role, intervals, details FROM membership
WHERE log = ? AND user_id > ? AND is_current ORDER BY user_id LIMIT ?
"""
_CURSORS = "SELECT log, seq FROM device_cursor WHERE user_id = ? AND device_id = ?"
_RECEIPTS_OF = """
SELECT r.log, r.user_id, r.delivered_seq, r.read_seq, r.read_ordinal
FROM carray(?2) AS asked CROSS JOIN receipt AS r ON r.log = asked.value AND r.user_id = ?1
"""
_LIST_RECEIPTS = """
SELECT log, user_id, delivered_seq, read_seq, read_ordinal FROM receipt
WHERE log = ? AND user_id > ? ORDER BY user_id LIMIT ?
"""
_PRESENCE = """
SELECT p.user_id, p.last_seen_ms, p.status_ms, p.availability, p.status_text
FROM carray(?) AS asked CROSS JOIN presence AS p ON p.user_id = asked.value
"""
_OVERLAYS = """
SELECT seq, as_of, body FROM overlay WHERE log = ? AND seq >= ? AND seq <= ? ORDER BY seq
"""
_REACTIONS_OF = """
SELECT r.seq, r.user_id, r.as_of, r.reaction
FROM carray(?3) AS asked CROSS JOIN reaction AS r
    ON r.log = ?1 AND r.seq = asked.value AND r.user_id = ?2
"""
_LIST_REACTIONS = """
SELECT seq, user_id, as_of, reaction FROM reaction
WHERE log = ? AND seq = ? AND user_id > ? AND reaction <> '' ORDER BY user_id LIMIT ?
"""
_MENTIONS = """
SELECT user_id, seq, as_of, author FROM mention
WHERE log = ? AND user_id = ? AND seq > ? AND author <> '' ORDER BY seq LIMIT ?
"""
_INTENTS = "SELECT log FROM intent WHERE node_id = ? AND round = ? AND log > ? ORDER BY log LIMIT ?"

_LAST = (1 << 63) - 1


def heads(db: apsw.Connection, logs: Sequence[str]) -> dict[str, Head]:
    """The heads of the logs that have one."""
    if not logs:
        return {}
    rows = _rows(db, _HEADS, (apsw.carray(tuple(logs)),))
    return {
        name: Head(last_seq, ordinal, stamp, commit_id, load_positions(pending))
        for name, last_seq, ordinal, stamp, commit_id, pending in rows
    }


def snapshot(db: apsw.Connection, log: str) -> Snapshot | None:
    """The newest snapshot of a log."""
    row = _rows(db, _SNAPSHOT, (log,))
    return Snapshot(row[0][0] * BUCKET_SIZE, row[0][1]) if row else None


def read(db: apsw.Connection, log: str, after: int, max_bytes: int, upto: int | None) -> list[Page]:
    """The pages that hold positions in `after + 1 .. upto`."""
    last = _LAST if upto is None else upto
    return _within(max_bytes, db.execute(_READ, (log, after, last)))


def read_back(db: apsw.Connection, log: str, before: int, max_bytes: int) -> list[Page]:
    """The pages that begin before `before`, newest first."""
    return _within(max_bytes, db.execute(_READ_BACK, (log, before)))


def read_flagged(db: apsw.Connection, log: str, after: int, flag: int, limit: int) -> list[Page]:
    """The first pages with a bit of `flag` that begin after `after`."""
    return [Page(*row) for row in _rows(db, _READ_FLAGGED, (log, after, flag, limit))]


def read_ids(
    db: apsw.Connection, log: str, before: int, min_stamp: int, max_pages: int
) -> list[PageIds]:
    """The ids of the newest pages that begin before `before`, down to a stamp."""
    found = []
    cursor = db.execute(_READ_IDS, (log, before, max_pages))
    row: tuple[Any, ...]
    for row in cursor:
        first_seq, stamp, ids = row
        # Stamps never descend along a log: nothing older is recent enough.
        if stamp < min_stamp:
            cursor.close()
            break
        found.append(PageIds(first_seq, stamp, ids))
    return found


def intent_nodes(db: apsw.Connection) -> list[str]:
    """The nodes that have intents."""
    return [node_id for (node_id,) in _rows(db, "SELECT DISTINCT node_id FROM intent", ())]


def intent_rounds(db: apsw.Connection, node_id: str) -> list[int]:
    """The rounds in which a node has intents."""
    text = "SELECT DISTINCT round FROM intent WHERE node_id = ? ORDER BY round"
    return [round_ for (round_,) in _rows(db, text, (node_id,))]


def intents(db: apsw.Connection, node_id: str, round_: int, after: str, limit: int) -> list[str]:
    """The first logs of a node's round after one."""
    return [log for (log,) in _rows(db, _INTENTS, (node_id, round_, after, limit))]


def overlays(db: apsw.Connection, log: str, first: int, last: int) -> list[OverlayRow]:
    """The overlays of the messages at these positions."""
    return [OverlayRow(*row) for row in _rows(db, _OVERLAYS, (log, first, last))]


def reactions_of(
    db: apsw.Connection, log: str, user_id: str, seqs: Sequence[int]
) -> dict[int, ReactionRow]:
    """The reactions of a user to these messages."""
    if not seqs:
        return {}
    rows = _rows(db, _REACTIONS_OF, (log, user_id, apsw.carray(array("q", seqs))))
    return {row[0]: ReactionRow(*row) for row in rows}


def list_reactions(
    db: apsw.Connection, log: str, seq: int, after_user: str, limit: int
) -> list[ReactionRow]:
    """The first reactions to a message after a user id."""
    return [ReactionRow(*row) for row in _rows(db, _LIST_REACTIONS, (log, seq, after_user, limit))]


def mentions(
    db: apsw.Connection, log: str, user_id: str, after: int, limit: int
) -> list[MentionRow]:
    """The first mentions of a user after a position."""
    return [MentionRow(*row) for row in _rows(db, _MENTIONS, (log, user_id, after, limit))]


def memberships(db: apsw.Connection, log: str, users: Sequence[str]) -> dict[str, Membership]:
    """The rows of these users in a conversation."""
    if not users:
        return {}
    rows = _rows(db, _MEMBERSHIPS, (log, apsw.carray(tuple(users))))
    return {row[0]: load_membership(*row) for row in rows}


def memberships_of(db: apsw.Connection, user_id: str, logs: Sequence[str]) -> dict[str, Membership]:
    """The rows of a user in these conversations."""
    if not logs:
        return {}
    rows = _rows(db, _MEMBERSHIPS_OF, (user_id, apsw.carray(tuple(logs))))
    return {
        log: load_membership(user_id, as_of, role, intervals, details)
        for log, as_of, role, intervals, details in rows
    }


def list_memberships(
    db: apsw.Connection, log: str, after_user: str, limit: int
) -> list[Membership]:
    """The first current members after a user id."""
    rows = _rows(db, _LIST_MEMBERSHIPS, (log, after_user, limit))
    return [load_membership(*row) for row in rows]


def user_logs(db: apsw.Connection, user_id: str) -> list[str]:
    """The conversations noted for a user."""
    rows = _rows(db, "SELECT log FROM user_log WHERE user_id = ?", (user_id,))
    return [log for (log,) in rows]


def cursors(db: apsw.Connection, user_id: str, device_id: str) -> dict[str, int]:
    """The cursors of a device."""
    rows = _rows(db, _CURSORS, (user_id, device_id))
    return dict(rows)


def receipts_of(db: apsw.Connection, user_id: str, logs: Sequence[str]) -> dict[str, Receipt]:
    """The receipts of a user in these conversations."""
    if not logs:
        return {}
    rows = _rows(db, _RECEIPTS_OF, (user_id, apsw.carray(tuple(logs))))
    return {row[0]: Receipt(*row) for row in rows}


def list_receipts(db: apsw.Connection, log: str, after_user: str, limit: int) -> list[Receipt]:
    """The first receipts in a conversation after a user id."""
    return [Receipt(*row) for row in _rows(db, _LIST_RECEIPTS, (log, after_user, limit))]


def presence(db: apsw.Connection, users: Sequence[str]) -> dict[str, PresenceRow]:
    """What is kept of these users."""
    if not users:
        return {}
    rows = _rows(db, _PRESENCE, (apsw.carray(tuple(users)),))
    return {row[0]: PresenceRow(*row) for row in rows}


def _rows(db: apsw.Connection, text: str, bindings: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    return db.execute(text, bindings).fetchall()


def _within(max_bytes: int, rows: apsw.Cursor) -> list[Page]:
    found: list[Page] = []
    size = 0
    row: tuple[Any, ...]
    for row in rows:
        page = Page(*row)
        size += len(page.body)
        if found and size > max_bytes:
            rows.close()
            break
        found.append(page)
    return found
