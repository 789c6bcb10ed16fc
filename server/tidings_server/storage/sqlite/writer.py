"""The writer thread: takes all operations that wait into one transaction, and answers them together."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic, perf_counter
from typing import Any

import apsw

from tidings_server.core.pages import BUCKET_SIZE
from tidings_server.storage.base import (
    APPLIED,
    UNKNOWN,
    Append,
    Conflict,
    StoreUnavailable,
    Trouble,
)
from tidings_server.storage.columns import dump_positions
from tidings_server.storage.sqlite.connection import PROBE, describe, trouble_of
from tidings_server.storage.sqlite.counters import SqliteCounters
from tidings_server.storage.sqlite.database import Database, History
from tidings_server.storage.sqlite.handover import Answers, hand_over
from tidings_server.storage.sqlite.heads import HeadCache, KnownLog
from tidings_server.storage.sqlite.options import SqliteOptions
from tidings_server.storage.sqlite.statements import (
    BUCKETS,
    LOGS,
    PAGES,
    Row,
    Statement,
)

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Put:
    """Rows that one statement takes."""

    statement: Statement
    rows: list[Row]


class Signal(Enum):
    """What else the writer is asked for."""

    CHECK = "prove that the database can be written"
    STOP = "end, after everything asked before"


Operation = tuple[asyncio.Future[Any], Append | Put | Signal]

# Raised by a database that is in order, before anything was committed. The last are raised for values that no column
# can hold, and the database hears nothing of them.
_IN_ORDER = (
    apsw.BusyError,
    apsw.ConstraintError,
    apsw.LockedError,
    TypeError,
    ValueError,
    OverflowError,
    struct.error,
)
# Raised before anything was committed, even by a statement that is its own transaction.
_BEFORE_COMMIT = (*_IN_ORDER, apsw.CantOpenError, apsw.ReadOnlyError)

_FIND = """
SELECT id, coalesce(
    (SELECT first_seq + count - 1 FROM page WHERE log = id ORDER BY first_seq DESC LIMIT 1), 0)
FROM log WHERE name = ?
"""
_COMMIT_ID = """
SELECT commit_id FROM page WHERE log = (SELECT id FROM log WHERE name = ?) AND first_seq = ?
"""


class _Work:
    """One transaction: what it writes, and whom it answers."""

    __slots__ = (
        "appends",
        "buckets",
        "checks",
        "committing",
        "conflicts",
        "logs",
        "pages",
        "put_rows",
        "puts",
    )

    def __init__(self) -> None:
        self.appends: list[asyncio.Future[Any]] = []
        self.pages: list[Row] = []
        self.buckets: list[Row] = []
        self.logs: list[Row] = []
        self.conflicts: Answers = []
        self.puts: list[asyncio.Future[Any]] = []
        self.put_rows: dict[Statement, list[Row]] = {}
        self.checks: list[asyncio.Future[Any]] = []
        self.committing = False

    def statements(self) -> list[tuple[str, Sequence[Any]]]:
        found: list[tuple[str, Sequence[Any]]] = []
        if self.logs:
            found += LOGS.statements(self.logs)
        if self.buckets:
            found += BUCKETS.statements(self.buckets)
        if self.pages:
            found += PAGES.statements(self.pages)
        for statement, rows in self.put_rows.items():
            found += statement.statements(rows)
        if self.checks:
            found.append((PROBE, ()))
        return found


class Writer:
    """Carries out operations in the order they are submitted, as many together as wait.

    `submit` takes an operation, from any thread; its future is answered once what it wrote is durable, or won't be.
    While the database has failed everything is answered with StoreUnavailable, and healing is tried again and again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        database: Database,
        options: SqliteOptions,
        counters: SqliteCounters,
    ) -> None:
        self._loop = loop
        self._database = database
        self._options = options
        self._counters = counters
        self._queue: SimpleQueue[Operation] = SimpleQueue()
        self.submit: Callable[[Operation], None] = self._queue.put
        # What a batch decides is found nowhere else until it is committed: the cache must hold all of it.
        self._heads = HeadCache(max(options.head_cache, options.max_batch))
        self._next_number: int | None = None
        self._retry_at = 0.0
        self._retry_delay = options.retry_first_s
        self._pages_at_checkpoint = 0

    def start(self, new_id: Callable[[], str]) -> asyncio.Future[History]:
        """Opens the database in the writer's thread and gives its history, or raises what `Database.open` does."""
        opened: asyncio.Future[History] = self._loop.create_future()
        Thread(target=self._run, args=(opened, new_id), name="sqlite-writer", daemon=True).start()
        return opened

    def _run(self, opened: asyncio.Future[History], new_id: Callable[[], str]) -> None:
        try:
            history = self._database.open(new_id)
        except Exception as problem:  # noqa: BLE001  # whatever it is, the one who opens must learn it
            hand_over(self._loop, [(opened, problem)])
            return
        self._counters.healthy = True
        hand_over(self._loop, [(opened, history)])
        stopped = None
        while stopped is None:
            batch = self._next_batch()
            if batch and batch[-1][1] is Signal.STOP:
                # Nothing is submitted after it.
                stopped = batch.pop()[0]
            if batch:
                self._take(batch)
        self._counters.healthy = False
        self._database.close()
        hand_over(self._loop, [(stopped, None)])

    def _next_batch(self) -> list[Operation]:
        """What waits, at least one operation; none when healing was due first."""
        queue = self._queue
        if self._database.healthy:
            batch = [queue.get()]
        else:
            try:
                batch = [queue.get(timeout=max(self._retry_at - monotonic(), 0.0))]
            except Empty:
                self._heal()
                return []
        # Nobody else takes from the queue: what it holds can be taken without waiting.
        for _ in range(min(queue.qsize(), self._options.max_batch - 1)):
            batch.append(queue.get_nowait())
        return batch

    def _take(self, batch: list[Operation]) -> None:
        if not self._database.healthy:
            problem, trouble = self._database.problem, self._database.trouble
            self._refuse([future for future, _ in batch], problem, trouble)
            return
        work = _Work()
        try:
            self._sort(batch, work)
            self._commit(work)
        except Exception as problem:  # noqa: BLE001  # whatever it is, the callers must be answered
            self._failed(batch, work, problem)
            return
        answers = work.conflicts
        if work.puts or work.checks:
            answers += [(future, None) for future in chain(work.puts, work.checks)]
        # Whatever else there is to do comes before the answers: after them the event loop wants Python's lock.
        counters = self._counters
        counters.appends += len(work.appends)
        counters.conflicts += len(work.conflicts)
        counters.largest_batch = max(counters.largest_batch, len(batch))
        due = self._checkpoint_is_due()
        hand_over(self._loop, answers, work.appends)
        if due:
            self._checkpoint()

    def _sort(self, batch: list[Operation], work: _Work) -> None:
        """Decides appends and collects rows. What is decided holds once the transaction is committed."""
        heads = self._heads
        for future, request in batch:
            if isinstance(request, Append):
                log = request.log
                number, head = heads.get(log) or self._find(log)
                if head != request.expected_head:
                    work.conflicts.append((future, Conflict(head)))
                    continue
                if not number:
                    number = self._new_number()
                    work.logs.append((number, log))
                page = request.page
                work.pages.append(
                    (
                        number,
                        page.first_seq,
                        page.count,
                        page.stamp,
                        page.ordinal,
                        page.flags,
                        0,
                        page.commit_id,
                        dump_positions(request.pending) if request.pending else b"",
                        page.ids,
                        page.body,
                    )
                )
                if request.snapshot is not None:
                    work.buckets.append((number, head // BUCKET_SIZE, request.snapshot))
                heads.set(log, (number, page.last_seq))
                work.appends.append(future)
            elif isinstance(request, Put):
                work.put_rows.setdefault(request.statement, []).extend(request.rows)
                work.puts.append(future)
            else:
                work.checks.append(future)

    def _find(self, log: str) -> KnownLog:
        """Asks the database. A log that it does not know has the number 0."""
        row = self._connection().execute(_FIND, (log,)).fetchone()
        known = (row[0], row[1]) if row else (0, 0)
        self._heads.set(log, known)
        return known

    def _new_number(self) -> int:
        if self._next_number is None:
            highest = self._connection().execute("SELECT max(id) FROM log").get
            self._next_number = (highest or 0) + 1
        number = self._next_number
        self._next_number += 1
        return number

    def _commit(self, work: _Work) -> None:
        statements = work.statements()
        if not statements:
            return
        execute = self._connection().execute
        began = perf_counter()
        if len(statements) == 1:
            # A statement alone is a transaction of its own: one call instead of three.
            work.committing = True
            execute(*statements[0])
        else:
            execute("BEGIN IMMEDIATE")
            for text, bindings in statements:
                execute(text, bindings)
            work.committing = True
            execute("COMMIT")
        took = perf_counter() - began
        counters = self._counters
        counters.transactions += 1
        counters.commit_seconds += took
        counters.slowest_commit_seconds = max(counters.slowest_commit_seconds, took)

    def _failed(self, batch: list[Operation], work: _Work, problem: Exception) -> None:
        """Answers the operations of a transaction that failed, once it is as clear as can be what became of it."""
        _LOG.error("a transaction failed", exc_info=problem)
        reason, trouble = describe(problem), trouble_of(problem)
        # What the cache says of this transaction may not have happened.
        self._heads.clear()
        self._next_number = None
        perhaps_committed = work.committing and not isinstance(problem, _BEFORE_COMMIT)
        if not (isinstance(problem, _IN_ORDER) and self._database.rolled_back()):
            self._note_failure(problem)
            self._heal()
        if not perhaps_committed:
            self._refuse([future for future, _ in batch], reason, trouble)
            return
        decided = {future for future, _ in work.conflicts}
        answers: Answers = []
        for future, request in batch:
            if isinstance(request, Append) and future not in decided:
                answers.append((future, self._outcome(request)))
            else:
                answers.append((future, StoreUnavailable(reason, trouble)))
        self._counters.unknown += sum(answer is UNKNOWN for _, answer in answers)
        self._counters.unavailable += sum(isinstance(a, StoreUnavailable) for _, a in answers)
        hand_over(self._loop, answers)

    def _outcome(self, request: Append) -> object:
        """What became of an append whose transaction failed while it was committed.

        A database that has healed tells: what it shows is durable, and what it doesn't show never comes back.
        """
        if not self._database.healthy:
            return UNKNOWN
        try:
            there = (
                self._connection()
                .execute(_COMMIT_ID, (request.log, request.page.first_seq))
                .fetchone()
            )
        except (apsw.Error, MemoryError) as problem:
            self._note_failure(problem)
            return UNKNOWN
        if there is None:
            return StoreUnavailable("the transaction failed and was taken back")
        return APPLIED if there[0] == request.page.commit_id else UNKNOWN

    def _refuse(
        self, futures: Sequence[asyncio.Future[Any]], reason: str, trouble: Trouble
    ) -> None:
        self._counters.unavailable += len(futures)
        hand_over(self._loop, [(future, StoreUnavailable(reason, trouble)) for future in futures])

    # Health

    def _note_failure(self, problem: Exception) -> None:
        self._counters.failures += 1
        self._counters.healthy = False
        self._database.fail(problem)

    def _heal(self) -> None:
        if self._database.heal():
            _LOG.warning("the database can be written")
            self._counters.recoveries += 1
            self._counters.healthy = True
            self._retry_delay = self._options.retry_first_s
            self._pages_at_checkpoint = self._pages_written()
        else:
            _LOG.warning("%s; trying again in %g s", self._database.problem, self._retry_delay)
            self._retry_at = monotonic() + self._retry_delay
            self._retry_delay = min(self._retry_delay * 2, self._options.retry_most_s)

    def _checkpoint_is_due(self) -> bool:
        if self._counters.transactions & 7:
            return False
        written = self._pages_written()
        if written - self._pages_at_checkpoint < self._options.checkpoint_pages:
            return False
        self._pages_at_checkpoint = written
        return True

    def _checkpoint(self) -> None:
        """Copies the write-ahead log, which has grown long, into the database."""
        began = perf_counter()
        try:
            # Passive: it waits for no reader, and what it can't copy the next one does.
            self._connection().wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:
            return
        except (apsw.Error, MemoryError) as problem:
            _LOG.error("a checkpoint failed", exc_info=problem)
            self._note_failure(problem)
            self._heal()
            return
        self._counters.checkpoints += 1
        self._counters.checkpoint_seconds += perf_counter() - began

    def _pages_written(self) -> int:
        return self._connection().status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0]

    def _connection(self) -> apsw.Connection:
        db = self._database.connection
        assert db is not None
        return db
