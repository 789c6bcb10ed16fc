"""A state store in one SQLite file, written by a thread of its own, for one process at a time."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from ._state import StoredCursor, StoredFailure, StoredMessage, StoredSession, StoredState
from .errors import StateError

_VERSION: Final = 1
_APPLICATION_ID: Final = 0x7469_6464

_SCHEMA: Final = """
CREATE TABLE session (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    incarnation TEXT NOT NULL,
    announced INTEGER NOT NULL
) STRICT;
CREATE TABLE cursor (
    log TEXT PRIMARY KEY,
    seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (
    position INTEGER PRIMARY KEY,
    conversation_id TEXT NOT NULL,
    message_id TEXT NOT NULL UNIQUE,
    content BLOB NOT NULL,
    time_ms INTEGER NOT NULL,
    sealed INTEGER NOT NULL,
    failure TEXT
) STRICT;
"""

_Work: TypeAlias = Callable[[sqlite3.Connection], Any]


class _Job:
    """One call of the port on its way to the thread."""

    __slots__ = ("done", "durable", "future", "loop", "work")

    def __init__(
        self,
        work: _Work,
        future: asyncio.Future[Any],
        loop: asyncio.AbstractEventLoop,
        *,
        durable: bool,
    ) -> None:
        self.work = work
        self.future = future
        self.loop = loop
        self.durable = durable

    def answer(self, result: Any, error: BaseException | None) -> None:
        def settle() -> None:
            if self.future.done():
                return
            if error is None:
                self.future.set_result(result)
            else:
                self.future.set_exception(error)

        # The loop may be closed by now; then nobody waits.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(settle)


class FileStateStore:
    """A state store in one file (and SQLite's two beside it); see StateStore for what it promises.

    Calls that wait at the same time are written in one transaction. A second process, or a second store in this one,
    is refused while the file is open.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def open(self) -> StoredState:
        """See StateStore."""
        if self._thread is not None:
            raise StateError(f"{self.path} is in use by another client")
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[StoredState] = loop.create_future()
        first = _Job(_read, opened, loop, durable=False)
        self._thread = threading.Thread(
            target=self._run, args=(first,), name="tidings-state", daemon=True
        )
        self._thread.start()
        try:
            return await opened
        except StateError:
            # The thread is over when the file can't be opened, and waits for jobs when it can't be read.
            self._jobs.put(None)
            await loop.run_in_executor(None, self._thread.join)
            self._jobs = queue.SimpleQueue()
            self._thread = None
            raise

    async def add(self, messages: Collection[StoredMessage]) -> None:
        """See StateStore."""
        rows = [_row(message) for message in messages]

        def work(db: sqlite3.Connection) -> None:
            db.executemany("INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

        await self._do(work, durable=True)

    async def update(self, messages: Mapping[str, StoredMessage]) -> None:
        """See StateStore."""
        rows = [
            (message.message_id, message.sealed, _failure_text(message.failure), old)
            for old, message in messages.items()
        ]

        def work(db: sqlite3.Connection) -> None:
            db.executemany(
                "UPDATE outbox SET message_id = ?, sealed = ?, failure = ? WHERE message_id = ?",
                rows,
            )

        await self._do(work, durable=True)

    async def remove(self, message_ids: Collection[str]) -> None:
        """See StateStore."""
        rows = [(message_id,) for message_id in message_ids]

        def work(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM outbox WHERE message_id = ?", rows)

        await self._do(work, durable=False)

    async def save_cursors(self, cursors: Collection[StoredCursor]) -> None:
        """See StateStore."""
        rows = [(cursor.log, cursor.seq) for cursor in cursors if cursor.seq]
        forgotten = [(cursor.log,) for cursor in cursors if not cursor.seq]

        def work(db: sqlite3.Connection) -> None:
            db.executemany("INSERT OR REPLACE INTO cursor VALUES (?, ?)", rows)
            db.executemany("DELETE FROM cursor WHERE log = ?", forgotten)

        await self._do(work, durable=False)

    async def save_session(
        self, session: StoredSession, cursors: Collection[StoredCursor] | None = None
    ) -> None:
        """See StateStore."""
        row = (session.user_id, session.device_id, session.incarnation, session.announced)
        rows = None if cursors is None else [(cursor.log, cursor.seq) for cursor in cursors]

        def work(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO session VALUES (1, ?, ?, ?, ?)", row)
            if rows is not None:
                db.execute("DELETE FROM cursor")
                db.executemany("INSERT INTO cursor VALUES (?, ?)", rows)

        await self._do(work, durable=True)

    async def close(self) -> None:
        """See StateStore."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            await asyncio.get_running_loop().run_in_executor(None, thread.join)

    async def _do(self, work: _Work, *, durable: bool) -> None:
        if self._thread is None:
            raise StateError(f"{self.path} isn't open")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._jobs.put(_Job(work, future, loop, durable=durable))
        await future

    def _run(self, first: _Job) -> None:
        """The thread: opens, then carries out what comes, together what came together."""
        try:
            db = _open(self.path)
        except StateError as error:
            first.answer(None, error)
            return
        with contextlib.closing(db):
            self._carry_out(db, [first])
            closing = False
            while not closing:
                jobs: list[_Job] = []
                job = self._jobs.get()
                while True:
                    if job is None:
                        closing = True
                        break
                    jobs.append(job)
                    try:
                        job = self._jobs.get_nowait()
                    except queue.Empty:
                        break
                self._carry_out(db, jobs)

    def _carry_out(self, db: sqlite3.Connection, jobs: list[_Job]) -> None:
        try:
            results = _transact(db, jobs)
        except sqlite3.Error:
            # One of them is at fault, or the disk is: each by itself, so that the others don't fail with it.
            for job in jobs:
                try:
                    result = _transact(db, [job])[0]
                except sqlite3.Error as error:
                    failure = StateError(f"{self.path}: {error}")
                    failure.__cause__ = error
                    job.answer(None, failure)
                else:
                    job.answer(result, None)
        else:
            for job, result in zip(jobs, results, strict=True):
                job.answer(result, None)


def _transact(db: sqlite3.Connection, jobs: list[_Job]) -> list[Any]:
    """Carry out jobs in one transaction, flushed to the disk if one of them asks for that."""
    durable = any(job.durable for job in jobs)
    db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    db.execute("BEGIN IMMEDIATE")
    try:
        results = [job.work(db) for job in jobs]
        db.execute("COMMIT")
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return results


def _open(path: Path) -> sqlite3.Connection:
    """Open the file, for this connection alone."""
    try:
        # What people write is nobody else's: SQLite gives the files beside it the same permissions.
        path.touch(mode=0o600)
        db = sqlite3.connect(path, timeout=0.0, isolation_level=None, check_same_thread=False)
    except (sqlite3.Error, OSError) as error:
        raise StateError(f"{path}: {error}") from error
    try:
        # Exclusive from the first write on, until it is closed; the system lets go of it with the process.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")
        application_id = db.execute("PRAGMA application_id").fetchone()[0]
        version = db.execute("PRAGMA user_version").fetchone()[0]
        empty = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
        if application_id == 0 and version == 0 and empty:
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {_VERSION}")
        elif application_id != _APPLICATION_ID:
            raise StateError(f"{path} isn't a state file of Tidings")
        elif version != _VERSION:
            raise StateError(f"{path} was written by a version of the SDK that is not this one")
        db.execute("COMMIT")
    except sqlite3.OperationalError as error:
        db.close()
        if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StateError(f"{path} is in use by another client") from error
        raise StateError(f"{path}: {error}") from error
    except sqlite3.Error as error:
        db.close()
        raise StateError(f"{path}: {error}") from error
    except StateError:
        db.close()
        raise
    return db


_Row: TypeAlias = tuple[int, str, str, bytes, int, int, str | None]


def _failure_text(failure: StoredFailure | None) -> str | None:
    return None if failure is None else json.dumps(dataclasses.asdict(failure))


def _row(message: StoredMessage) -> _Row:
    return (
        message.position,
        message.conversation_id,
        message.message_id,
        message.content,
        message.time_ms,
        message.sealed,
        _failure_text(message.failure),
    )


def _message(row: _Row) -> StoredMessage:
    position, conversation_id, message_id, content, time_ms, sealed, failure = row
    return StoredMessage(
        position,
        conversation_id,
        message_id,
        content,
        time_ms,
        sealed != 0,
        None if failure is None else StoredFailure(**json.loads(failure)),
    )


def _read(db: sqlite3.Connection) -> StoredState:
    session = StoredSession()
    for user_id, device_id, incarnation, announced in db.execute(
        "SELECT user_id, device_id, incarnation, announced FROM session"
    ):
        session = StoredSession(user_id, device_id, incarnation, announced != 0)
    return StoredState(
        session,
        tuple(StoredCursor(*row) for row in db.execute("SELECT log, seq FROM cursor")),
        tuple(
            _message(row)
            for row in db.execute(
                "SELECT position, conversation_id, message_id, content, time_ms, sealed, failure"
                " FROM outbox ORDER BY position"
            )
        ),
    )
