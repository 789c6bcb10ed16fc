"""Brings a keyspace to this version's schema, or refuses it. Everything here blocks.

Several nodes may do it at once: a lock, taken by a lightweight transaction, lets one after the other. Its table is the
only one that two could make at the same time; so it is made with an id that both give it.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cassandra.cluster import Cluster, Session

from tidings_server.storage.base import StoreCorrupt, StoreUnavailable
from tidings_server.storage.migrations import Migration, migrations_in, missing
from tidings_server.storage.scylla.connection import (
    CONDITIONAL,
    CONDITIONAL_ELSEWHERE,
    Unsure,
    execute,
    local_datacenter,
    translated,
)
from tidings_server.storage.scylla.options import ScyllaOptions, refuse_forks

_LOG = logging.getLogger(__name__)

_KEYSPACE = re.compile(r"[a-z][a-z0-9_]{0,47}")
_NEW_COLUMN = re.compile(r"ALTER TABLE (\w+) ADD (\w+) \w+")
_COMMENT = re.compile(r"--[^\n]*")
_LOCK_S = 60
_LOCK_WAIT_S = 120.0
_KNOWN_S = 20.0
_TRIES = 5


def known_migrations() -> tuple[Migration, ...]:
    """The steps of this version."""
    return migrations_in("tidings_server.storage.scylla.migrations", "cql")


def statements_of(step: Migration) -> list[str]:
    """The statements of a step, in their order."""
    parts = _COMMENT.sub("", step.text).split(";")
    return [part.strip() for part in parts if part.strip()]


def migrate(
    cluster: Cluster,
    session: Session,
    options: ScyllaOptions,
    owner: str,
    known: tuple[Migration, ...] | None = None,
) -> int:
    """Makes the keyspace if it is absent, applies the steps that are missing, and gives their number.

    `owner` names this node. Raises StoreCorrupt when the keyspace is of a newer version, was made by other steps, or
    would let logs fork, and StoreUnavailable when the cluster does not do, or not agree on, what it should.
    """
    known = known_migrations() if known is None else known
    deadline = time.monotonic() + _KNOWN_S
    while True:
        try:
            return _migrate(cluster, session, options, owner, known)
        except StoreUnavailable as problem:
            if not _is_not_known_yet(problem) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _is_not_known_yet(problem: StoreUnavailable) -> bool:
    """Whether a node does not know a keyspace or table that another has just made: its tables tell of it earlier, and
    the first to read it may come before its files are there.
    """
    told = str(problem)
    return any(words in told for words in ("does not exist", "unconfigured table", "Unknown CF"))


def _migrate(
    cluster: Cluster,
    session: Session,
    options: ScyllaOptions,
    owner: str,
    known: tuple[Migration, ...],
) -> int:
    if not _KEYSPACE.fullmatch(options.keyspace):
        raise StoreCorrupt(f"{options.keyspace!r} is no name for a keyspace")
    if options.keyspace not in cluster.metadata.keyspaces:
        _make_keyspace(cluster, session, options)
    refuse_forks(options, replication_of(cluster, session, options.keyspace))
    with translated(f"keyspace {options.keyspace}"):
        session.set_keyspace(options.keyspace)
    if _has_table(session, options.keyspace, "schema_migration") and not _missing(session, known):
        return 0
    with _locked(session, options, owner) as still_ours:
        _change(
            session,
            "CREATE TABLE IF NOT EXISTS schema_migration ("
            "part text, number int, name text, checksum text, PRIMARY KEY (part, number))",
        )
        due = _missing(session, known)
        for step in due:
            for statement in statements_of(step):
                still_ours()
                _change(session, statement)
            still_ours()
            decide(
                session,
                "INSERT INTO schema_migration (part, number, name, checksum)"
                " VALUES ('schema', %s, %s, %s) IF NOT EXISTS",
                (step.number, step.name, step.checksum),
            )
    return len(due)


def applied_version(session: Session, keyspace: str) -> int:
    """The number of the newest step that a keyspace has; 0 when it has none."""
    if not _has_table(session, keyspace, "schema_migration"):
        return 0
    rows = execute(
        session,
        f"SELECT max(number) FROM {keyspace}.schema_migration WHERE part = 'schema'",  # noqa: S608  # a checked name
    )
    return int(rows.one()[0] or 0)


def replication_of(cluster: Cluster, session: Session, keyspace: str) -> dict[str, int]:
    """Copies by data centre. SimpleStrategy counts as one data centre, named ""."""
    rows = execute(
        session,
        "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = %s",
        (keyspace,),
    )
    row = rows.one()
    if row is None:
        raise StoreUnavailable(f"there is no keyspace {keyspace}")
    strategy = dict(row[0])
    kind = strategy.pop("class", "")
    if kind.endswith("SimpleStrategy"):
        # It knows no data centres: its copies may lie in any.
        copies = int(strategy.get("replication_factor", 0))
        return {host.datacenter: copies for host in cluster.metadata.all_hosts()}
    return {name: int(copies) for name, copies in strategy.items()}


def decide(session: Session, statement: str, values: tuple[Any, ...]) -> dict[str, Any]:
    """Carries out a conditional request until its outcome is definite, and gives the answer by column.

    When the first one was lost, a later one may be refused because of it: the answer shows what is there.
    """
    profile = CONDITIONAL
    for left in range(_TRIES, 0, -1):
        try:
            row: dict[str, Any] = execute(session, statement, values, profile=profile).one()
            return row
        except Unsure:
            if left == 1:
                raise
            profile = CONDITIONAL_ELSEWHERE
    raise AssertionError


def is_scylla(session: Session) -> bool:
    """Whether the cluster is ScyllaDB rather than Cassandra."""
    return _has_table(session, "system_schema", "scylla_tables")


def _make_keyspace(cluster: Cluster, session: Session, options: ScyllaOptions) -> None:
    copies = {
        name or local_datacenter(cluster): number for name, number in options.replication.items()
    }
    refuse_forks(options, copies)
    each = "".join(f", '{_centre(name)}': {int(number)}" for name, number in copies.items())
    statement = (
        f"CREATE KEYSPACE IF NOT EXISTS {options.keyspace}"
        f" WITH replication = {{'class': 'NetworkTopologyStrategy'{each}}}"
    )
    if is_scylla(session):
        # Lightweight transactions came to tables that lie in tablets late; they work everywhere without.
        statement += " AND tablets = {'enabled': false}"
    _LOG.info("making the keyspace: %s", statement)
    _change(session, statement)


def _centre(name: str) -> str:
    if not re.fullmatch(r"[\w.\-]+", name):
        raise StoreCorrupt(f"{name!r} is no name for a data centre")
    return name


def _has_table(session: Session, keyspace: str, table: str) -> bool:
    rows = execute(
        session,
        "SELECT table_name FROM system_schema.tables WHERE keyspace_name = %s AND table_name = %s",
        (keyspace, table),
    )
    return rows.one() is not None


def _missing(session: Session, known: tuple[Migration, ...]) -> tuple[Migration, ...]:
    applied = execute(
        session, "SELECT number, name, checksum FROM schema_migration WHERE part = 'schema'"
    )
    return missing(known, applied, "the keyspace")


def _change(session: Session, statement: str) -> None:
    """Carries out a change of the schema, and waits until all nodes that are up have it."""
    for left in range(_TRIES, 0, -1):
        if _is_added(session, statement):
            return
        try:
            result = execute(session, statement)
        except Unsure:
            # Each is written so that it may be repeated.
            if left == 1:
                raise
            continue
        if not result.response_future.is_schema_agreed:
            raise StoreUnavailable("the nodes of the cluster don't agree on the schema")
        return


def _is_added(session: Session, statement: str) -> bool:
    """Whether a change adds a column that is there already: ScyllaDB has no words for adding it only if it is not."""
    added = _NEW_COLUMN.fullmatch(statement)
    if added is None:
        return False
    rows = execute(
        session,
        "SELECT column_name FROM system_schema.columns"
        " WHERE keyspace_name = %s AND table_name = %s AND column_name = %s",
        (session.keyspace, *added.groups()),
    )
    return rows.one() is not None


class _Lock:
    """The lock on the schema, held by `owner`."""

    def __init__(self, session: Session, owner: str) -> None:
        self._session = session
        self._owner = owner

    def take(self) -> None:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            answer = decide(
                self._session,
                "INSERT INTO schema_lock (name, owner) VALUES ('schema', %s) IF NOT EXISTS USING TTL %s",
                (self._owner, _LOCK_S),
            )
            holder = answer.get("owner")
            if answer["[applied]"] or holder == self._owner:
                return
            if time.monotonic() > deadline:
                raise StoreUnavailable(f"the schema is locked by {holder}, who does not end")
            time.sleep(0.2)

    def renew(self) -> None:
        answer = decide(
            self._session,
            "UPDATE schema_lock USING TTL %s SET owner = %s WHERE name = 'schema' IF owner = %s",
            (_LOCK_S, self._owner, self._owner),
        )
        if not answer["[applied]"]:
            raise StoreUnavailable("the lock on the schema was lost; try again")

    def release(self) -> None:
        try:
            decide(
                self._session,
                "DELETE FROM schema_lock WHERE name = 'schema' IF owner = %s",
                (self._owner,),
            )
        except StoreUnavailable:
            _LOG.warning("the lock on the schema ends by itself in a minute", exc_info=True)


@contextmanager
def _locked(session: Session, options: ScyllaOptions, owner: str) -> Iterator[Any]:
    """Holds the lock; gives what is called before each step, which raises StoreUnavailable when it was lost."""
    if not _has_table(session, options.keyspace, "schema_lock"):
        table = uuid.uuid5(uuid.NAMESPACE_OID, f"{options.keyspace}.schema_lock")
        _change(
            session,
            f"CREATE TABLE IF NOT EXISTS schema_lock (name text PRIMARY KEY, owner text) WITH ID = {table}",
        )
    lock = _Lock(session, owner)
    lock.take()
    try:
        yield lock.renew
    finally:
        lock.release()
