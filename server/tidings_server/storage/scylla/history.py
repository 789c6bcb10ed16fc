"""The incarnation of a keyspace, and the earlier ones. Everything here blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cassandra.cluster import Session
from cassandra.query import SimpleStatement

from tidings_server.storage.base import StoreCorrupt, StoreUnavailable
from tidings_server.storage.scylla.connection import execute
from tidings_server.storage.scylla.schema import decide

_ENDED = "ended:"
_SCAN = 5_000


@dataclass(frozen=True, slots=True)
class History:
    """The incarnation, and the earlier ones, each with the stamp at which it ended."""

    incarnation: str
    ended: Mapping[str, int]


def read_history(session: Session, new_id: Callable[[], str]) -> History:
    """The history of a keyspace; a new one is named, by one node of all that try."""
    found = _stored(session)
    if not found.incarnation:
        decide(
            session,
            "INSERT INTO meta (part, name, value) VALUES ('history', 'incarnation', %s) IF NOT EXISTS",
            (new_id(),),
        )
        found = _stored(session)
        if not found.incarnation:
            raise StoreUnavailable("the incarnation that was just written can't be read")
    return found


def begin_history(session: Session, new_id: Callable[[], str]) -> History:
    """Ends the history that was restored into this keyspace, and begins another. No node may use it meanwhile.

    Reads the heads of all logs: their largest stamp, plus one, is where the histories part. Raises StoreCorrupt when
    there is no history, or when somebody else began one meanwhile.
    """
    before = _stored(session)
    if not before.incarnation:
        raise StoreCorrupt("nothing was restored here: the keyspace has no incarnation")
    end = _largest_stamp(session) + 1
    incarnation = new_id()
    # One partition, one condition: both or none.
    answer = decide(
        session,
        "BEGIN BATCH"
        " UPDATE meta SET value = %s WHERE part = 'history' AND name = 'incarnation' IF value = %s;"
        " INSERT INTO meta (part, name, value) VALUES ('history', %s, %s);"
        " APPLY BATCH",
        (incarnation, before.incarnation, _ENDED + before.incarnation, str(end)),
    )
    after = _stored(session)
    if not answer["[applied]"] and after.incarnation != incarnation:
        raise StoreCorrupt("another history was begun meanwhile")
    return after


def _stored(session: Session) -> History:
    rows = dict(
        tuple(row)
        for row in execute(session, "SELECT name, value FROM meta WHERE part = 'history'")
    )
    ended = {
        name.removeprefix(_ENDED): int(value)
        for name, value in rows.items()
        if name.startswith(_ENDED)
    }
    return History(rows.get("incarnation") or "", ended)


def _largest_stamp(session: Session) -> int:
    heads = SimpleStatement(
        "SELECT DISTINCT log, bucket, head_stamp FROM log", fetch_size=_SCAN, is_idempotent=True
    )
    return max((row[2] or 0 for row in execute(session, heads)), default=0)
