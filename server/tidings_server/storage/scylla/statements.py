"""What is asked of the cluster: the prepared statements, and rows as they are bound and read."""

# ruff: noqa: S608  # statements are put together from constants

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from cassandra.cluster import Session
from cassandra.query import BatchStatement, BatchType, BoundStatement, PreparedStatement

from tidings_server.core.pages import bucket_of
from tidings_server.storage.base import Append
from tidings_server.storage.columns import dump_positions
from tidings_server.storage.scylla.connection import levels, translated
from tidings_server.storage.scylla.options import ScyllaOptions

IN_AT_MOST = 100
"""Keys in one request: ScyllaDB refuses more. A request costs as much here as dozens of rows."""
ROWS_A_BATCH = 32
"""Rows of one partition that are written by one request."""

_PAGE = "seq, entry_count, stamp, ordinal, commit_id, ids, flags, body, rev"
_PAGES = "FROM log WHERE log = ? AND bucket = ? AND kind = 1"
_HEAD = "last_seq = ?, head_ordinal = ?, head_stamp = ?, head_commit_id = ?, head_pending = ?"

_TEXTS = {
    "move_head": f"UPDATE log SET {_HEAD} WHERE log = ? AND bucket = ? IF last_seq = ?",
    "make_head": f"UPDATE log SET {_HEAD}, snapshot = ? WHERE log = ? AND bucket = ? IF last_seq = NULL",
    "page": "INSERT INTO log"
    " (log, bucket, kind, seq, entry_count, stamp, ordinal, flags, rev, commit_id, ids, body)"
    " VALUES (?, ?, 1, ?, ?, ?, ?, ?, 0, ?, ?, ?)",
    "mark": "UPDATE log SET flags = ? WHERE log = ? AND bucket = ? AND kind = 3 AND seq = ?",
    "heads": "SELECT DISTINCT log, last_seq, head_ordinal, head_stamp, head_commit_id, head_pending FROM log"
    " WHERE log IN ? AND bucket = ?",
    "settled_head": "SELECT DISTINCT log, last_seq, head_ordinal, head_stamp, head_commit_id, head_pending FROM log"
    " WHERE log = ? AND bucket = ?",
    "snapshot": "SELECT DISTINCT snapshot FROM log WHERE log = ? AND bucket = ?",
    "hints": "SELECT log, bucket FROM bucket_hint WHERE log IN ?",
    "hint": "UPDATE bucket_hint USING TIMESTAMP ? SET bucket = ? WHERE log = ?",
    "pages_from": f"SELECT {_PAGE} {_PAGES} AND seq >= ? AND seq <= ? LIMIT ?",
    "pages_back": f"SELECT {_PAGE} {_PAGES} AND seq <= ? ORDER BY kind DESC, seq DESC LIMIT ?",
    "pages_at": f"SELECT {_PAGE} {_PAGES} AND seq IN ?",
    "ids_back": f"SELECT seq, stamp, ids {_PAGES} AND seq <= ? ORDER BY kind DESC, seq DESC LIMIT ?",
    "marks": "SELECT seq, flags FROM log WHERE log = ? AND bucket = ? AND kind = 3 AND seq > ? LIMIT ?",
    "rewrite": "UPDATE log SET body = ?, rev = ?"
    " WHERE log = ? AND bucket = ? AND kind = 1 AND seq = ? IF rev = ?",
    "put_overlay": "UPDATE overlay USING TIMESTAMP ? SET as_of = ?, body = ?"
    " WHERE log = ? AND bucket = ? AND seq = ?",
    "overlays_at": "SELECT seq, as_of FROM overlay WHERE log = ? AND bucket = ? AND seq IN ?",
    "overlays": "SELECT seq, as_of, body FROM overlay WHERE log = ? AND bucket = ? AND seq >= ? AND seq <= ?",
    "put_reaction": "UPDATE reaction USING TIMESTAMP ? SET as_of = ?, reaction = ?"
    " WHERE log = ? AND bucket = ? AND seq = ? AND user_id = ?",
    "reactions_by": "SELECT seq, user_id, as_of FROM reaction"
    " WHERE log = ? AND bucket = ? AND seq = ? AND user_id IN ?",
    "reactions_of": "SELECT seq, user_id, as_of, reaction FROM reaction"
    " WHERE log = ? AND bucket = ? AND seq IN ? AND user_id = ?",
    "list_reactions": "SELECT seq, user_id, as_of, reaction FROM reaction"
    " WHERE log = ? AND bucket = ? AND seq = ? AND user_id > ? LIMIT ?",
    "put_mention": "UPDATE mention USING TIMESTAMP ? SET as_of = ?, author = ?"
    " WHERE log = ? AND user_id = ? AND seq = ?",
    "mentions_at": "SELECT user_id, seq, as_of FROM mention WHERE log = ? AND user_id = ? AND seq IN ?",
    "mentions": "SELECT user_id, seq, as_of, author FROM mention"
    " WHERE log = ? AND user_id = ? AND seq > ? LIMIT ?",
    "put_membership": "UPDATE membership USING TIMESTAMP ? SET as_of = ?, role = ?, is_current = ?, intervals = ?,"
    " details = ? WHERE log = ? AND user_id = ?",
    "put_membership_of_user": "UPDATE membership_of_user USING TIMESTAMP ? SET as_of = ?, role = ?, intervals = ?,"
    " details = ? WHERE user_id = ? AND log = ?",
    "memberships": "SELECT user_id, as_of, role, intervals, details FROM membership WHERE log = ? AND user_id IN ?",
    "memberships_of": "SELECT log, as_of, role, intervals, details FROM membership_of_user"
    " WHERE user_id = ? AND log IN ?",
    "all_memberships_of": "SELECT log, as_of, role, intervals, details FROM membership_of_user WHERE user_id = ?",
    "list_memberships": "SELECT user_id, as_of, role, intervals, details, is_current FROM membership"
    " WHERE log = ? AND user_id > ? LIMIT ?",
    "put_user_log": "INSERT INTO user_log (user_id, log) VALUES (?, ?)",
    "user_logs": "SELECT log FROM user_log WHERE user_id = ?",
    "put_cursor": "UPDATE device_cursor USING TIMESTAMP ? SET seq = ?"
    " WHERE user_id = ? AND device_id = ? AND log = ?",
    "cursors": "SELECT log, seq FROM device_cursor WHERE user_id = ? AND device_id = ?",
    "put_delivered": "UPDATE receipt USING TIMESTAMP ? SET delivered_seq = ? WHERE log = ? AND user_id = ?",
    "put_read": "UPDATE receipt USING TIMESTAMP ? SET read_seq = ?, read_ordinal = ? WHERE log = ? AND user_id = ?",
    "receipts": "SELECT log, user_id, delivered_seq, read_seq, read_ordinal FROM receipt"
    " WHERE log = ? AND user_id IN ?",
    "receipts_of": "SELECT log, user_id, delivered_seq, read_seq, read_ordinal FROM receipt"
    " WHERE log IN ? AND user_id = ?",
    "list_receipts": "SELECT log, user_id, delivered_seq, read_seq, read_ordinal FROM receipt"
    " WHERE log = ? AND user_id > ? LIMIT ?",
    "put_seen": "UPDATE presence USING TIMESTAMP ? SET last_seen_ms = ? WHERE user_id = ?",
    "put_status": "UPDATE presence USING TIMESTAMP ? SET status_ms = ?, availability = ?, status_text = ?"
    " WHERE user_id = ?",
    "presence": "SELECT user_id, last_seen_ms, status_ms, availability, status_text FROM presence WHERE user_id IN ?",
    "put_intent_node": "INSERT INTO intent_node (part, node_id, round) VALUES ('all', ?, ?) USING TIMESTAMP ?",
    "put_intent_round": "INSERT INTO intent_round (node_id, round) VALUES (?, ?)",
    "put_intent": "INSERT INTO intent (node_id, round, log) VALUES (?, ?, ?)",
    "intent_nodes": "SELECT node_id FROM intent_node WHERE part = 'all'",
    "intent_rounds": "SELECT round FROM intent_round WHERE node_id = ?",
    "intents": "SELECT log FROM intent WHERE node_id = ? AND round = ? AND log > ? LIMIT ?",
    "clear_intents": "DELETE FROM intent WHERE node_id = ? AND round = ?",
    "clear_intent_rounds": "DELETE FROM intent_round WHERE node_id = ? AND round <= ?",
    "clear_intent_node": "DELETE FROM intent_node USING TIMESTAMP ? WHERE part = 'all' AND node_id = ?",
    "probe": "INSERT INTO probe (id) VALUES (?) IF NOT EXISTS USING TTL 60",
}
_TABLE = re.compile(r"\b(FROM|UPDATE|INTO) (\w+)")
_NOT_REPEATABLE = frozenset({"move_head", "make_head", "page", "mark", "rewrite", "probe"})


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements, prepared. Each is a field by its name above."""

    move_head: PreparedStatement
    make_head: PreparedStatement
    page: PreparedStatement
    mark: PreparedStatement
    heads: PreparedStatement
    settled_head: PreparedStatement
    snapshot: PreparedStatement
    hints: PreparedStatement
    hint: PreparedStatement
    pages_from: PreparedStatement
    pages_back: PreparedStatement
    pages_at: PreparedStatement
    ids_back: PreparedStatement
    marks: PreparedStatement
    rewrite: PreparedStatement
    put_overlay: PreparedStatement
    overlays_at: PreparedStatement
    overlays: PreparedStatement
    put_reaction: PreparedStatement
    reactions_by: PreparedStatement
    reactions_of: PreparedStatement
    list_reactions: PreparedStatement
    put_mention: PreparedStatement
    mentions_at: PreparedStatement
    mentions: PreparedStatement
    put_membership: PreparedStatement
    put_membership_of_user: PreparedStatement
    memberships: PreparedStatement
    memberships_of: PreparedStatement
    all_memberships_of: PreparedStatement
    list_memberships: PreparedStatement
    put_user_log: PreparedStatement
    user_logs: PreparedStatement
    put_cursor: PreparedStatement
    cursors: PreparedStatement
    put_delivered: PreparedStatement
    put_read: PreparedStatement
    receipts: PreparedStatement
    receipts_of: PreparedStatement
    list_receipts: PreparedStatement
    put_seen: PreparedStatement
    put_status: PreparedStatement
    presence: PreparedStatement
    put_intent_node: PreparedStatement
    put_intent_round: PreparedStatement
    put_intent: PreparedStatement
    intent_nodes: PreparedStatement
    intent_rounds: PreparedStatement
    intents: PreparedStatement
    clear_intents: PreparedStatement
    clear_intent_rounds: PreparedStatement
    clear_intent_node: PreparedStatement
    probe: PreparedStatement


def prepare(session: Session, options: ScyllaOptions) -> Statements:
    """Prepares all of them. Blocks. Raises StoreUnavailable."""
    assert {f.name for f in fields(Statements)} == _TEXTS.keys()
    prepared = {}
    with translated("preparing statements"):
        for name, text in _TEXTS.items():
            prepared[name] = session.prepare(
                _TABLE.sub(rf"\1 {options.keyspace}.\2", text, count=1)
            )
            prepared[name].is_idempotent = name not in _NOT_REPEATABLE
    # A serial read finishes a transaction that was left half-way, or rules it out.
    prepared["settled_head"].consistency_level = levels(options)[1]
    return Statements(**prepared)


def append_of(statements: Statements, request: Append) -> BatchStatement:
    """The request that carries out an append: the same each time, for an append that is the same.

    One batch in one partition, on one condition: the bucket's head, which is static, the page, and its mark if it has
    flags.
    """
    page = request.page
    log, first = request.log, page.first_seq
    bucket = bucket_of(first)
    head = (
        page.last_seq,
        page.ordinal,
        page.stamp,
        page.commit_id,
        dump_positions(request.pending),
    )
    batch = BatchStatement()
    if request.snapshot is None:
        batch.add(statements.move_head.bind((*head, log, bucket, request.expected_head)))
    else:
        batch.add(statements.make_head.bind((*head, request.snapshot, log, bucket)))
    batch.add(
        statements.page.bind(
            (
                log,
                bucket,
                first,
                page.count,
                page.stamp,
                page.ordinal,
                page.flags,
                page.commit_id,
                page.ids,
                page.body,
            )
        )
    )
    if page.flags:
        batch.add(statements.mark.bind((page.flags, log, bucket, first)))
    return batch


def batches(statements: Sequence[BoundStatement]) -> list[BoundStatement | BatchStatement]:
    """Writes of rows of one partition, many in one request."""
    found: list[BoundStatement | BatchStatement] = []
    for part in parts(statements, ROWS_A_BATCH):
        if len(part) == 1:
            found.append(part[0])
        else:
            batch = BatchStatement(BatchType.UNLOGGED)
            batch.is_idempotent = True
            for statement in part:
                batch.add(statement)
            found.append(batch)
    return found


def parts(values: Sequence[Any], size: int = IN_AT_MOST) -> Iterable[Sequence[Any]]:
    """A sequence in parts of a size."""
    return (values[at : at + size] for at in range(0, len(values), size))


def timestamp(value: int) -> int:
    """The timestamp with which a max register is written: 0 would be no timestamp to some."""
    return value + 1
