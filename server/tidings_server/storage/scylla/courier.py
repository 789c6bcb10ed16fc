"""Sends requests through the driver, whose threads answer, and hands the answers to the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from cassandra.cluster import Session

from tidings_server.storage.base import StoreUnavailable
from tidings_server.storage.scylla.connection import PLAIN, translate
from tidings_server.storage.scylla.counters import ScyllaCounters

_LOG = logging.getLogger(__name__)

Rows = list[Any]
Answered = Callable[[Rows, StoreUnavailable | None], None]
"""Called on the event loop with the rows of an answer (none for a write), or with what went wrong."""

_AT_ONCE = 256


class Courier:
    """Requests of one event loop. `send` must be called on it.

    However many answers come at once, the event loop is woken once.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        session: Session,
        counters: ScyllaCounters,
        *,
        max_in_flight: int,
    ) -> None:
        self._loop = loop
        self._session = session
        self._counters = counters
        self._max_in_flight = max_in_flight
        self._landed: deque[tuple[Answered, Any, Exception | None]] = deque()
        self._woken = False
        self._quiet: asyncio.Future[None] | None = None

    def send(self, statement: Any, answered: Answered, profile: str = PLAIN) -> None:
        """Sends a request. `answered` is called later, never before this returns."""
        counters = self._counters
        if counters.in_flight >= self._max_in_flight:
            full = StoreUnavailable(f"{counters.in_flight} requests to the cluster are under way")
            self._loop.call_soon(answered, [], full)
            return
        counters.requests += 1
        counters.in_flight += 1
        try:
            sent = self._session.execute_async(statement, execution_profile=profile)
            sent.add_callbacks(
                self._came, self._failed, callback_args=(answered,), errback_args=(answered,)
            )
        except Exception as problem:  # noqa: BLE001  # whatever it is, the caller is told
            # The driver has taken nothing: it raises before it sends.
            _LOG.exception("a request could not be sent")
            self._land(answered, None, StoreUnavailable(f"a request could not be sent: {problem}"))

    def ask(self, statement: Any, profile: str = PLAIN) -> asyncio.Future[Rows]:
        """Sends a request; the future has the rows, or StoreUnavailable."""
        future: asyncio.Future[Rows] = self._loop.create_future()

        def answered(rows: Rows, problem: StoreUnavailable | None) -> None:
            if future.done():
                return
            if problem is None:
                future.set_result(rows)
            else:
                future.set_exception(problem)
                # Who asked may have been cancelled: then it needs no complaint that nobody took it.
                future.exception()

        self.send(statement, answered, profile)
        return future

    async def ask_all(self, statements: Iterable[Any]) -> list[Rows]:
        """Sends requests, a few hundred at a time, and gives their rows in the same order.

        Returns when all of them have ended. Raises the first StoreUnavailable.
        """
        waiting = list(statements)
        found: list[Rows] = []
        for at in range(0, len(waiting), _AT_ONCE):
            futures = [self.ask(statement) for statement in waiting[at : at + _AT_ONCE]]
            if len(futures) > 1:
                await asyncio.wait(futures)
                # Each is looked at, so that none complains of an exception that nobody took.
                problems = [f.exception() for f in futures]
                for problem in problems:
                    if problem is not None:
                        raise problem
            found += [await future for future in futures]
        return found

    async def drain(self) -> None:
        """Returns when nothing is under way."""
        while self._counters.in_flight:
            if self._quiet is None:
                self._quiet = self._loop.create_future()
            await asyncio.shield(self._quiet)

    # On the driver's threads (or ours, when an answer is there at once)

    def _came(self, rows: Any, answered: Answered) -> None:
        self._land(answered, rows, None)

    def _failed(self, problem: Exception, answered: Answered) -> None:
        self._land(answered, None, problem)

    def _land(self, answered: Answered, rows: Any, problem: Exception | None) -> None:
        self._landed.append((answered, rows, problem))
        # What is appended before the event loop takes the flag down, it finds; what comes later wakes it again.
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._hand_over)
            except RuntimeError:
                # The event loop was closed: nobody waits any more.
                if not self._loop.is_closed():
                    raise

    # On the event loop

    def _hand_over(self) -> None:
        self._woken = False
        landed, counters = self._landed, self._counters
        while landed:
            answered, rows, problem = landed.popleft()
            counters.in_flight -= 1
            trouble = None
            if problem is None:
                counters.healthy = True
            else:
                counters.failures += 1
                counters.healthy = False
                trouble = problem if isinstance(problem, StoreUnavailable) else translate(problem)
            try:
                answered(rows or [], trouble)
            except Exception as trouble_of_ours:  # noqa: BLE001  # the other answers must be told
                self._loop.call_exception_handler(
                    {"message": "an answer could not be taken", "exception": trouble_of_ours}
                )
        if not counters.in_flight and self._quiet is not None:
            self._quiet.set_result(None)
            self._quiet = None
