"""What stores count, as metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from tidings_server.storage.base import Store
from tidings_server.storage.sqlite import SqliteStore
from tidings_server.telemetry.reading import Reading

if TYPE_CHECKING:
    from tidings_server.storage.scylla import ScyllaStore


def readings(store: Store) -> list[Reading]:
    """What can be read of a store of `stores.make_store`."""
    if isinstance(store, SqliteStore):
        return _sqlite_readings(store)
    # The driver is imported only where its store is used.
    return _scylla_readings(cast("ScyllaStore", store))


def _sqlite_readings(store: SqliteStore) -> list[Reading]:
    c = store.counters
    return [
        Reading(
            "tidings.store.transactions", "Write transactions committed.", lambda: c.transactions
        ),
        Reading(
            "tidings.store.commit_time",
            "Time spent committing them.",
            lambda: c.commit_seconds,
            unit="s",
        ),
        Reading("tidings.store.appends", "Pages appended.", lambda: c.appends),
        Reading("tidings.store.reads", "Reads carried out.", lambda: c.reads),
        Reading("tidings.store.failures", "Times that the database failed.", lambda: c.failures),
        Reading(
            "tidings.store.recoveries",
            "Times that it could be written again.",
            lambda: c.recoveries,
        ),
        Reading(
            "tidings.store.healthy",
            "Whether the last write succeeded.",
            lambda: int(c.healthy),
            total=False,
        ),
    ]


def _scylla_readings(store: ScyllaStore) -> list[Reading]:
    c = store.counters
    return [
        Reading("tidings.store.requests", "Requests sent to the cluster.", lambda: c.requests),
        Reading("tidings.store.appends", "Pages appended.", lambda: c.appends),
        Reading(
            "tidings.store.conflicts", "Appends refused for another head.", lambda: c.conflicts
        ),
        Reading("tidings.store.unknown", "Appends whose outcome was unknown.", lambda: c.unknown),
        Reading(
            "tidings.store.failures",
            "Requests that failed or weren't answered.",
            lambda: c.failures,
        ),
        Reading("tidings.store.in_flight", "Requests under way.", lambda: c.in_flight, total=False),
        Reading(
            "tidings.store.healthy",
            "Whether the last request was answered.",
            lambda: int(c.healthy),
            total=False,
        ),
    ]
