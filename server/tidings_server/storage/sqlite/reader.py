"""The reader thread: answers questions on a connection of its own, so that no read waits for a commit's fsync."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import apsw

from tidings_server.storage.base import StoreUnavailable
from tidings_server.storage.sqlite.connection import close, describe
from tidings_server.storage.sqlite.counters import SqliteCounters
from tidings_server.storage.sqlite.handover import Answers, hand_over

T = TypeVar("T")
Question = Callable[[apsw.Connection], Any]

_LOG = logging.getLogger(__name__)
_TOGETHER = 16


class Reader:
    """Runs questions in the order they are asked.

    `connect` opens a connection, or raises StoreUnavailable while none can be trusted. It is asked for one before the
    first question and after each failure of a connection.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connect: Callable[[], apsw.Connection],
        counters: SqliteCounters,
    ) -> None:
        self._loop = loop
        self._connect = connect
        self._counters = counters
        self._queue: SimpleQueue[tuple[asyncio.Future[Any], Question | None]] = SimpleQueue()
        self._db: apsw.Connection | None = None
        self._thread = Thread(target=self._run, name="sqlite-reader", daemon=True)
        self._thread.start()

    def ask(self, question: Callable[[apsw.Connection], T]) -> asyncio.Future[T]:
        """What a question finds. Raises StoreUnavailable through the future."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put((future, question))
        return future

    async def stop(self) -> None:
        """Answers what was asked and closes the connection."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue.put((future, None))
        await future

    def _run(self) -> None:
        while True:
            asked = [self._queue.get()]
            more = min(self._queue.qsize(), _TOGETHER - 1)
            asked += [self._queue.get_nowait() for _ in range(more)]
            answers: Answers = []
            for future, question in asked:
                if question is None:
                    self._drop()
                    answers.append((future, None))
                    hand_over(self._loop, answers)
                    return
                # Nobody waits for what was cancelled.
                if not future.cancelled():
                    answers.append((future, self._answer(question)))
            hand_over(self._loop, answers)

    def _answer(self, question: Question) -> object:
        self._counters.reads += 1
        try:
            if self._db is None:
                self._db = self._connect()
            return question(self._db)
        except StoreUnavailable as problem:
            self._counters.read_failures += 1
            return problem
        except apsw.BusyError as problem:
            self._counters.read_failures += 1
            return StoreUnavailable(describe(problem))
        except (apsw.Error, MemoryError, OSError) as problem:
            self._counters.read_failures += 1
            _LOG.exception("reading the database failed")
            self._drop()
            return StoreUnavailable(describe(problem))
        except Exception as bug:  # noqa: BLE001  # whatever it is belongs to who asked, and the thread lives on
            return bug

    def _drop(self) -> None:
        if self._db is not None:
            close(self._db)
            self._db = None
