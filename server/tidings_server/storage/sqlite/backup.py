"""Backups of a database that is in use, and restoring one as a new history."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import apsw

from tidings_server.storage.base import StoreCorrupt, StoreUnavailable
from tidings_server.storage.sqlite.connection import describe, wal_path
from tidings_server.storage.sqlite.lock import FileLock, lock_path
from tidings_server.storage.sqlite.schema import check_ours

Progress = Callable[[int, int], None]
"""Told how many of how many database pages are copied."""

_STEP_PAGES = 2_000
_BUSY_MS = 10_000


@dataclass(frozen=True, slots=True)
class Contents:
    """What a verified copy holds. `entries` counts those of all logs."""

    logs: int
    entries: int
    bytes: int


def backup(source: Path, target: Path, *, progress: Progress | None = None) -> Contents:
    """Writes a verified copy of a database, as of now, to the new file `target`.

    The database may be in use by a server, which goes on writing meanwhile: the copy is one moment of it. The copy is
    a single file, has no incarnation of its own, and says when the history that it was taken of ended for it: whatever
    way it gets back into service, it is a new history.

    Raises FileExistsError when `target` exists, StoreCorrupt when the database or the copy is not sound, and
    StoreUnavailable when something can't be read or written.
    """
    return _copied(source, target, progress, None)


def restore(
    source: Path, target: Path, *, new_id: Callable[[], str], progress: Progress | None = None
) -> Contents:
    """Makes the new database `target` of a backup, with a new incarnation.

    Raises as `backup` does. Neither a database nor anything of one may be at `target`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_path(target))
    lock.acquire()
    try:
        if wal_path(target).exists():
            raise FileExistsError(f"{wal_path(target)} is there: move it away first")
        return _copied(source, target, progress, new_id())
    finally:
        lock.release()


def verify(db: apsw.Connection) -> Contents:
    """Checks a database file and the logs in it, reading all of it. Raises StoreCorrupt with what is wrong."""
    complaints = [row[0] for row in db.execute("PRAGMA integrity_check").fetchall()]
    if complaints != ["ok"]:
        raise StoreCorrupt(f"{db.filename} is damaged: {complaints[0]}")
    gap = db.execute(_GAP).fetchone()
    if gap is not None:
        raise StoreCorrupt(f"{db.filename} is damaged: log {gap[0]} has a gap before {gap[1]}")
    logs, entries = db.execute("SELECT count(DISTINCT log), coalesce(sum(count), 0) FROM page").get
    size = db.pragma("page_count") * db.pragma("page_size")
    return Contents(logs, entries, size)


_GAP = """
SELECT log.name, first_seq FROM (
    SELECT log, first_seq,
        coalesce(lag(first_seq + count) OVER (PARTITION BY log ORDER BY first_seq), 1) AS due
    FROM page
) LEFT JOIN log ON log.id = log
WHERE first_seq <> due OR log.name IS NULL LIMIT 1
"""


def _copied(
    source: Path, target: Path, progress: Progress | None, incarnation: str | None
) -> Contents:
    if target.exists():
        raise FileExistsError(f"{target} exists already")
    if not source.is_file():
        raise StoreUnavailable(f"there is no database at {source}")
    partial = target.with_name(target.name + ".partial")
    try:
        _remove(partial)
        os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        _copy(source, partial, progress)
        with closing(_open(partial)) as copy:
            # One file that holds everything; a server that opens it brings the write-ahead log back.
            copy.pragma("journal_mode", "delete")
            with copy:
                _begin_history(copy, incarnation or "")
            contents = verify(copy)
        _sync(partial)
        partial.rename(target)
        _sync(target.parent)
    except (apsw.NotADBError, apsw.CorruptError) as problem:
        raise StoreCorrupt(f"{source} is not a sound database: {describe(problem)}") from problem
    except (apsw.Error, OSError) as problem:
        raise StoreUnavailable(
            f"{source} can't be copied to {target}: {describe(problem)}"
        ) from problem
    finally:
        _remove(partial)
    return contents


def _copy(source: Path, partial: Path, progress: Progress | None) -> None:
    with closing(_open(source)) as original, closing(_open(partial)) as copy:
        check_ours(original)
        # A transaction that reads pins the moment. Without it the copying would begin anew with each commit.
        original.execute("BEGIN")
        original.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        with copy.backup("main", original, "main") as copying:
            while not copying.done:
                copying.step(_STEP_PAGES)
                if progress is not None:
                    progress(copying.page_count - copying.remaining, copying.page_count)
        original.execute("COMMIT")


def _begin_history(db: apsw.Connection, incarnation: str) -> None:
    """Ends the history that the copy was taken of, if that was not done before, and names the new one."""
    ended = db.execute("SELECT value FROM meta WHERE key = 'incarnation'").get
    if ended:
        db.execute(
            "INSERT INTO ended_history (incarnation, stamp)"
            " SELECT ?, coalesce(max(stamp), 0) + 1 FROM page",
            (ended,),
        )
    db.execute(
        "INSERT INTO meta (key, value) VALUES ('incarnation', ?)"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (incarnation,),
    )


def _open(path: Path) -> apsw.Connection:
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    db.set_busy_timeout(_BUSY_MS)
    return db


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(partial: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        partial.with_name(partial.name + suffix).unlink(missing_ok=True)
