"""Maintenance of the store: bringing it up to date, backing it up, restoring and inspecting it.

Everything here blocks, and raises StoreUnavailable, StoreCorrupt or OSError with a text for the operator.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import uvloop

from tidings_server.cluster_doctor import ClusterFacts
from tidings_server.config import Settings
from tidings_server.core.clock import SystemClock
from tidings_server.core.ids import uuid7
from tidings_server.doctor import Inspection
from tidings_server.storage.base import StoreCorrupt, StoreUnavailable
from tidings_server.storage.sqlite import backup as copies
from tidings_server.storage.sqlite.backup import Contents
from tidings_server.storage.sqlite.inspection import inspect as inspect_file
from tidings_server.stores import make_store, scylla_options

Progress = Callable[[int, int], None]


def migrate(settings: Settings) -> None:
    """Makes the store if it is absent, and brings its schema up to date."""

    async def open_and_close() -> None:
        store = make_store(settings, _new_id)
        await store.open()
        await store.close()

    uvloop.run(open_and_close())


def begin_history(settings: Settings) -> tuple[str, int]:
    """Begins a new history in a keyspace that was restored; gives its incarnation, and the stamp at which the old one
    ended. No server may use the keyspace.
    """
    options = scylla_options(settings.scylla)
    from tidings_server.storage.scylla.restoring import begin_restored  # noqa: PLC0415

    history = begin_restored(options, new_id=_new_id)
    return history.incarnation, max(history.ended.values())


def inspect_cluster(settings: Settings) -> ClusterFacts:
    """Looks at the cluster for the doctor."""
    options = scylla_options(settings.scylla)
    from tidings_server.storage.scylla.inspection import inspect as look  # noqa: PLC0415

    return look(options)


def backup(path: Path, target: Path, progress: Progress) -> Contents:
    """Copies a store, which may be in use, to a new file, and verifies the copy."""
    return copies.backup(path, target, progress=progress)


def restore(source: Path, path: Path, progress: Progress) -> Contents:
    """Makes a store of a backup, with a new incarnation. None may be there."""
    return copies.restore(source, path, new_id=_new_id, progress=progress)


def inspect(path: Path) -> Inspection:
    """Looks at a store for the doctor."""
    try:
        found = inspect_file(path)
    except StoreUnavailable as problem:
        return Inspection(unavailable=str(problem))
    except StoreCorrupt as problem:
        return Inspection(corrupt=str(problem))
    return Inspection(what=tell(found))


def tell(contents: Contents) -> str:
    """What a store holds, for people."""
    size = contents.bytes / (1 << 20)
    return f"{contents.entries:,} entries in {contents.logs:,} logs, {size:,.1f} MiB"


def _new_id() -> str:
    return uuid7(SystemClock().now_ms(), random.SystemRandom())
