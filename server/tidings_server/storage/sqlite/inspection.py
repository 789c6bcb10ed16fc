"""Looking at a database file that no server uses, without changing it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw

from tidings_server.storage.base import StoreCorrupt, StoreUnavailable
from tidings_server.storage.sqlite.backup import Contents, verify
from tidings_server.storage.sqlite.lock import FileLock, lock_path
from tidings_server.storage.sqlite.schema import check_ours


def inspect(path: Path) -> Contents:
    """Reads and checks all of a database, holding its lock meanwhile.

    Raises StoreCorrupt with what is wrong, and StoreUnavailable when the database is in use or can't be read.
    """
    lock = FileLock(lock_path(path))
    lock.acquire()
    try:
        # Read-only: closing a connection that could write would move the write-ahead log into the database.
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as db:
            check_ours(db)
            return verify(db)
    except (apsw.NotADBError, apsw.CorruptError) as problem:
        raise StoreCorrupt(f"{path} is not a sound database: {problem}") from problem
    except (apsw.Error, OSError) as problem:
        raise StoreUnavailable(f"{path} can't be read: {problem}") from problem
    finally:
        lock.release()
