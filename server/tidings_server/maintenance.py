"""Maintenance of the embedded store: bringing it up to date, backing it up, restoring and inspecting it.

Everything here blocks, and raises StoreUnavailable, StoreCorrupt or OSError with a text for the operator.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import uvloop

from tidings_server.core.clock import SystemClock
from tidings_server.core.ids import uuid7
from tidings_server.doctor import Inspection
from tidings_server.storage.base import StoreCorrupt, StoreUnavailable
from tidings_server.storage.sqlite import SqliteOptions, SqliteStore
from tidings_server.storage.sqlite import backup as copies
from tidings_server.storage.sqlite.backup import Contents
from tidings_server.storage.sqlite.inspection import inspect as inspect_file

Progress = Callable[[int, int], None]


def migrate(path: Path) -> None:
    """Makes the store if it is absent, and brings its schema up to date."""

    async def open_and_close() -> None:
        store = SqliteStore(SqliteOptions(path=path), new_id=_new_id)
        await store.open()
        await store.close()

    uvloop.run(open_and_close())


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
