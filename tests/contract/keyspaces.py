"""Keyspaces of one cluster for tests: made once, emptied between tests, copied as a restored backup would be."""

from __future__ import annotations

from typing import Any

from cassandra.cluster import Cluster, Session
from cassandra.query import dict_factory

from tests.contract.media import Medium, new_id
from tidings_server.storage.scylla import ScyllaOptions, ScyllaStore
from tidings_server.storage.scylla.connection import PLAIN, begin, connect, execute
from tidings_server.storage.scylla.restoring import begin_restored
from tidings_server.storage.scylla.schema import migrate

_OF_THE_SCHEMA = {"schema_migration", "schema_lock"}


class Keyspaces:
    """Hands out empty keyspaces. `reset` takes them all back."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cluster: Cluster = connect(self.options("unused"))
        self.session: Session = begin(self._cluster)
        self._made: list[str] = []
        self._taken = 0

    def close(self) -> None:
        self._cluster.shutdown()

    def options(self, keyspace: str, **others: Any) -> ScyllaOptions:
        """Options for a store of one copy."""
        given = {"request_timeout_s": 30.0, **others}
        return ScyllaOptions(port=self._port, keyspace=keyspace, replication={"": 1}, **given)

    def reset(self) -> None:
        """Takes back all that were handed out."""
        self._taken = 0

    def take(self) -> ScyllaMedium:
        """An empty keyspace with its tables."""
        if self._taken == len(self._made):
            name = f"tidings_{self._taken + 1}"
            migrate(self._cluster, self.session, self.options(name), "a test")
            self._made.append(name)
        name = self._made[self._taken]
        self._taken += 1
        for table in self._tables(name):
            if execute(self.session, f"SELECT * FROM {name}.{table} LIMIT 1").one() is not None:
                execute(self.session, f"TRUNCATE {name}.{table}")
        return ScyllaMedium(self, name)

    def drop(self, keyspace: str) -> None:
        """Removes a keyspace that was not handed out from here."""
        execute(self.session, f"DROP KEYSPACE IF EXISTS {keyspace}")

    def copy(self, source: str, target: str) -> None:
        """Copies all rows with the timestamps that they were written with, as files of a backup hold them."""
        for table in self._tables(source):
            meta = self._cluster.metadata.keyspaces[source].tables[table]
            partition = [column.name for column in meta.partition_key]
            key = [column.name for column in meta.primary_key]
            fixed = [n for n, c in meta.columns.items() if c.is_static]
            plain = [n for n in meta.columns if n not in key and n not in fixed]
            times = [f"WRITETIME({name}) AS time_of_{name}" for name in fixed + plain]
            wanted = ", ".join([*key, *fixed, *plain, *times])
            for row in self._rows(f"SELECT {wanted} FROM {source}.{table}"):
                where = f"{target}.{table}"
                if not fixed + plain:
                    self._insert(where, {name: row[name] for name in key})
                self._update(where, row, partition, fixed)
                self._update(where, row, key, plain)

    def _tables(self, keyspace: str) -> list[str]:
        rows = execute(
            self.session,
            "SELECT table_name FROM system_schema.tables WHERE keyspace_name = %s",
            (keyspace,),
        )
        return sorted({row[0] for row in rows} - _OF_THE_SCHEMA)

    def _rows(self, query: str) -> list[dict[str, Any]]:
        profile = self.session.execution_profile_clone_update(PLAIN, row_factory=dict_factory)
        return list(self.session.execute(query, execution_profile=profile))

    def _insert(self, where: str, values: dict[str, Any]) -> None:
        names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
        execute(
            self.session, f"INSERT INTO {where} ({names}) VALUES ({marks})", tuple(values.values())
        )

    def _update(self, where: str, row: dict[str, Any], key: list[str], columns: list[str]) -> None:
        there = [name for name in columns if row[name] is not None]
        for name in there:
            condition = " AND ".join(f"{part} = %s" for part in key)
            execute(
                self.session,
                f"UPDATE {where} USING TIMESTAMP %s SET {name} = %s WHERE {condition}",
                (row[f"time_of_{name}"], row[name], *(row[part] for part in key)),
            )


class ScyllaMedium(Medium):
    """A keyspace."""

    def __init__(self, keyspaces: Keyspaces, name: str) -> None:
        self.keyspaces = keyspaces
        self.name = name

    def store(self, **options: Any) -> ScyllaStore:
        return ScyllaStore(self.keyspaces.options(self.name, **options), new_id=new_id)

    def restored_elsewhere(self) -> ScyllaMedium:
        other = self.keyspaces.take()
        self.keyspaces.copy(self.name, other.name)
        begin_restored(self.keyspaces.options(other.name), new_id=new_id)
        return other
