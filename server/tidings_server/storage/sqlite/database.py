"""The writer's hold on the database file: opening it, failing, and healing."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import apsw

from tidings_server.storage.base import StoreCorrupt, StoreUnavailable, Trouble
from tidings_server.storage.sqlite.connection import (
    PROBE,
    close,
    connect,
    describe,
    empty_wal,
    rewrite_wal,
    trouble_of,
)
from tidings_server.storage.sqlite.lock import FileLock, lock_path
from tidings_server.storage.sqlite.options import SqliteOptions
from tidings_server.storage.sqlite.schema import migrate

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class History:
    """The incarnation of a database, and the earlier ones, each with the stamp at which it ended."""

    incarnation: str
    ended: Mapping[str, int]


class Database:
    """The database file, held by one writer. All but `connect_reader` is for the writer's thread alone.

    It is *healthy* from a success of `open` or `heal` until `fail`. While it is, everything that connections see in it
    is durable, and everything that was not committed stays away for ever.
    """

    def __init__(self, options: SqliteOptions) -> None:
        self._options = options
        self._lock = FileLock(lock_path(options.path))
        # A reader that opens a connection while there is no other rebuilds the index of the write-ahead log from the
        # file, and may see commits in it that failed. So readers open only while the writer is healthy.
        self._gate = Lock()
        self.connection: apsw.Connection | None = None
        self.healthy = False
        self.problem = "it is not open"
        self.trouble = Trouble.OTHER

    def open(self, new_id: Callable[[], str]) -> History:
        """Takes the lock, opens the file, making it when it is absent, and gives its history.

        Raises StoreUnavailable or StoreCorrupt, and then holds nothing.
        """
        path = self._options.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            if not path.exists():
                # Messages are private: whatever the umask says, the file is the owner's alone. SQLite gives the files
                # beside it the same mode.
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            db = self._connect()
            migrate(db)
            self._trust(db)
            history = History(
                _incarnation(db, new_id),
                _ended(db),
            )
        except (apsw.NotADBError, apsw.CorruptError) as problem:
            self.close()
            raise StoreCorrupt(f"{path} is not a sound database: {describe(problem)}") from problem
        except (apsw.Error, OSError, MemoryError) as problem:
            self.close()
            raise StoreUnavailable(f"{path} can't be opened: {describe(problem)}") from problem
        except BaseException:
            self.close()
            raise
        self._set_healthy()
        return history

    def connect_reader(self) -> apsw.Connection:
        """A connection for reading. Raises StoreUnavailable while the database is not healthy, or apsw.Error."""
        with self._gate:
            if not self.healthy:
                raise StoreUnavailable(self.problem, self.trouble)
            return connect(self._options, writable=False)

    def fail(self, problem: BaseException) -> None:
        """Notes that the database can't be trusted, or not be written to, before it was healed."""
        with self._gate:
            self.healthy = False
        self.problem = f"the database failed: {describe(problem)}"
        self.trouble = trouble_of(problem)
        # The files are opened anew: whatever this connection believes of them may be wrong. Readers keep theirs, which
        # show what was durable before.
        self._disconnect()

    def heal(self) -> bool:
        """Tries to make the database healthy again, and says whether it is."""
        try:
            self._trust(self._connect())
        except Exception as problem:  # noqa: BLE001  # whatever it is, it will be tried again
            self.fail(problem)
            return False
        self._set_healthy()
        return True

    def rolled_back(self) -> bool:
        """Takes back what an open transaction has written. False when that can't be done."""
        db = self.connection
        if db is None:
            return True
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        except apsw.Error:
            _LOG.exception("a transaction can't be rolled back")
            return False
        return not db.in_transaction

    def close(self) -> None:
        """Closes the file and lets go of the lock. May be called in any state."""
        with self._gate:
            self.healthy = False
        self.problem = "the store is closed"
        self._disconnect()
        self._lock.release()

    def _connect(self) -> apsw.Connection:
        rewrite_wal(self._options)
        self.connection = connect(self._options, writable=True)
        return self.connection

    def _disconnect(self) -> None:
        if self.connection is not None:
            close(self.connection)
            self.connection = None

    @staticmethod
    def _trust(db: apsw.Connection) -> None:
        """Proves that the database can be written, and ends for good what failed commits left behind.

        What was committed is durable already: the log was rewritten before the connection was made. So what is copied
        out of it here can't be newer than what a power cut leaves of it.
        """
        empty_wal(db)
        db.execute(PROBE)

    def _set_healthy(self) -> None:
        with self._gate:
            self.healthy = True
        self.problem = ""


def _incarnation(db: apsw.Connection, new_id: Callable[[], str]) -> str:
    """The name of the history. A new database has none, and neither has one that was a backup."""
    found = db.execute("SELECT value FROM meta WHERE key = 'incarnation'").get
    if isinstance(found, str) and found:
        return found
    incarnation = new_id()
    db.execute(
        "INSERT INTO meta (key, value) VALUES ('incarnation', ?)"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (incarnation,),
    )
    return incarnation


def _ended(db: apsw.Connection) -> dict[str, int]:
    rows: list[Any] = db.execute("SELECT incarnation, stamp FROM ended_history").fetchall()
    return dict(rows)
