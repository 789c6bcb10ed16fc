"""Connections to the database file, and what makes a connection trustworthy after a failure."""

from __future__ import annotations

import contextlib
from pathlib import Path

import apsw

from tidings_server.storage.base import Trouble
from tidings_server.storage.sqlite.options import SqliteOptions

_STATEMENTS = 400
# SQLite's file layer takes less than 128 KiB at a time: of a larger number it sees only the lower 17 bits.
_REWRITE_BYTES = 1 << 16


def connect(options: SqliteOptions, *, writable: bool) -> apsw.Connection:
    """Opens the existing database file. Raises apsw.Error.

    A commit on it is durable when it returns (write-ahead log, fsync at each commit). The write-ahead log is copied
    into the database only when that is asked for.
    """
    db = apsw.Connection(
        str(options.path),
        flags=apsw.SQLITE_OPEN_READWRITE,
        vfs=options.vfs,
        statementcachesize=_STATEMENTS,
    )
    try:
        db.set_busy_timeout(options.busy_ms)
        db.pragma("trusted_schema", False)
        db.pragma("cache_size", -options.cache_kib)
        db.pragma("temp_store", "memory")
        db.pragma("wal_autocheckpoint", 0)
        if writable:
            db.pragma("journal_size_limit", 64 << 20)
            mode = db.pragma("journal_mode", "wal")
            if mode != "wal":
                raise apsw.CantOpenError(f"no write-ahead log is possible here, only {mode}")
            db.pragma("synchronous", "full")
            # What was erased is overwritten, where SQLite would only mark its place as free.
            db.pragma("secure_delete", True)
        else:
            db.pragma("query_only", True)
            # SQLite opens the file and the write-ahead log with the first read.
            db.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except BaseException:
        close(db)
        raise
    return db


def close(db: apsw.Connection) -> None:
    """Closes a connection whatever state it is in."""
    # What can't be written any more is found again in the write-ahead log.
    with contextlib.suppress(Exception):
        db.close(True)


def rewrite_wal(options: SqliteOptions) -> None:
    """Makes a write-ahead log that a predecessor left behind as durable as it can be read. Raises apsw.Error.

    After an fsync has failed, Linux may keep what was to be written in memory, marked as clean: it can be read but is
    not on disk, and the next fsync says nothing of it. A process that died then leaves such a log to the next one,
    which would see commits in it that a power cut still takes away, or worse, takes away in the middle. Writing the
    same bytes again marks them as to be written.
    """
    wal = wal_path(options.path)
    if not wal.exists():
        return
    flags = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_READWRITE
    file = apsw.VFSFile(options.vfs or "", str(wal), [flags, 0])
    try:
        size = file.xFileSize()
        for at in range(0, size, _REWRITE_BYTES):
            file.xWrite(file.xRead(min(_REWRITE_BYTES, size - at), at), at)
        file.xSync(apsw.SQLITE_SYNC_NORMAL)
    finally:
        # No lock is lost by closing: SQLite's are on the database file and on the -shm file.
        file.xClose()


def describe(problem: BaseException) -> str:
    """What went wrong, with SQLite's name for it: its texts alone leave open which of several failures it was."""
    code: int = getattr(problem, "extendedresult", -1)
    names = apsw.mapping_extended_result_codes
    kind = str(names.get(code) or apsw.mapping_result_codes.get(code) or type(problem).__name__)
    text = str(problem)
    return f"{kind}: {text}" if text else kind


def trouble_of(problem: BaseException) -> Trouble:
    """What an operator is told of what went wrong."""
    if isinstance(problem, apsw.FullError):
        return Trouble.FULL
    if isinstance(problem, apsw.ReadOnlyError):
        return Trouble.READ_ONLY
    return Trouble.DISK if isinstance(problem, apsw.IOError) else Trouble.OTHER


def wal_path(path: Path) -> Path:
    """The write-ahead log of a database file."""
    return path.with_name(path.name + "-wal")


def empty_wal(db: apsw.Connection) -> None:
    """Copies the write-ahead log into the database, syncs that, and empties the log. Raises apsw.Error.

    When somebody reads the database at length, such as a backup, the log is left as it is.
    """
    with contextlib.suppress(apsw.BusyError):
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


PROBE = (
    "INSERT INTO meta (key, value) VALUES ('probe', 1)"
    " ON CONFLICT (key) DO UPDATE SET value = value + 1"
)
"""A statement that always writes.

Once it is committed, the database can be written and synced, and nothing that a failed commit left in the write-ahead
log can come back: what follows a commit in the log counts only if it was written after it.
"""
