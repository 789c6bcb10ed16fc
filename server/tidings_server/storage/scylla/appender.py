"""Appends pages by lightweight transactions, one partition and one condition each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from tidings_server.core.pages import bucket_of
from tidings_server.storage.base import (
    APPLIED,
    UNKNOWN,
    Append,
    Conflict,
    Outcome,
    StoreUnavailable,
)
from tidings_server.storage.scylla.connection import CONDITIONAL, CONDITIONAL_ELSEWHERE, Unsure
from tidings_server.storage.scylla.counters import ScyllaCounters
from tidings_server.storage.scylla.courier import Courier, Rows
from tidings_server.storage.scylla.heads import Heads, bucket_end
from tidings_server.storage.scylla.statements import Statements, append_of

Spawn = Callable[[Coroutine[Any, Any, None]], object]
"""Runs something that the store waits for before it closes."""

_DOUBTFUL_LOGS = 10_000


class Appender:
    """Carries out appends. Where nothing has to be read, no task is made."""

    def __init__(
        self,
        courier: Courier,
        statements: Statements,
        heads: Heads,
        counters: ScyllaCounters,
        spawn: Spawn,
    ) -> None:
        self._courier = courier
        self._statements = statements
        self._heads = heads
        self._counters = counters
        self._spawn = spawn
        # The commit of each log whose outcome is unknown, as far as is remembered: it is sent again to any replica,
        # since the usual one may be what does not answer.
        self._doubtful: dict[str, bytes] = {}

    def begin(self, request: Append, future: asyncio.Future[Outcome]) -> None:
        """Appends a page; the future is answered as the port says."""
        if request.snapshot is not None and request.expected_head:
            self._spawn(self._open_bucket(request, future))
        else:
            self._send(request, future)

    def _send(self, request: Append, future: asyncio.Future[Outcome]) -> None:
        profile = CONDITIONAL
        if self._doubtful and self._doubtful.get(request.log) == request.page.commit_id:
            self._counters.sent_again += 1
            profile = CONDITIONAL_ELSEWHERE

        def answered(rows: Rows, problem: StoreUnavailable | None) -> None:
            self._answered(request, future, rows, problem)

        self._courier.send(append_of(self._statements, request), answered, profile)

    def _answered(
        self,
        request: Append,
        future: asyncio.Future[Outcome],
        rows: Rows,
        problem: StoreUnavailable | None,
    ) -> None:
        if problem is None and not rows:
            problem = Unsure("the answer to a conditional request is empty")
        if problem is not None:
            self._failed(request, future, problem)
            return
        if self._doubtful:
            self._doubtful.pop(request.log, None)
        # One row, or, from ScyllaDB, one for each statement of a batch. What else is in it depends on the outcome, and
        # on the engine: by name, and it may be absent.
        if rows[0]["[applied]"]:
            self._applied(request)
            _answer(future, APPLIED)
            return
        self._counters.conflicts += 1
        bucket = bucket_of(request.page.first_seq)
        head = next((row["last_seq"] for row in rows if row.get("last_seq") is not None), None)
        if head is None and not bucket:
            _answer(future, Conflict(0))
        elif head is None or head == bucket_end(bucket):
            # The newest position is in another bucket, or may be.
            self._spawn(self._refuse(request, future))
        else:
            _answer(future, Conflict(head))

    def _applied(self, request: Append) -> None:
        self._counters.appends += 1
        if request.snapshot is not None and request.expected_head:
            bucket = bucket_of(request.page.first_seq)
            self._counters.buckets_opened += 1
            self._heads.opened(request.log, bucket)
            self._spawn(self._note(request.log, bucket))

    async def _note(self, log: str, bucket: int) -> None:
        try:
            await self._heads.note(log, bucket)
        except StoreUnavailable:
            # Only a hint: without it the buckets are tried one after the other.
            return

    async def _open_bucket(self, request: Append, future: asyncio.Future[Outcome]) -> None:
        """Appends the first page of a later bucket: only after the one before is full, which is for ever."""
        before = bucket_of(request.expected_head)
        try:
            rows = await self._courier.ask(
                self._statements.heads.bind(([request.log], before)),
            )
            if rows and rows[0][1] == request.expected_head:
                self._send(request, future)
            else:
                self._counters.conflicts += 1
                await self._refuse(request, future)
        except StoreUnavailable as problem:
            # Nothing was written.
            _fail(future, StoreUnavailable(str(problem)))

    async def _refuse(self, request: Append, future: asyncio.Future[Outcome]) -> None:
        """Answers an append that was refused, once the newest position is found."""
        try:
            heads = await self._heads.find([request.log])
        except StoreUnavailable as problem:
            _fail(future, StoreUnavailable(str(problem)))
            return
        head = heads.get(request.log)
        _answer(future, Conflict(head.last_seq if head is not None else 0))

    def _failed(
        self, request: Append, future: asyncio.Future[Outcome], problem: StoreUnavailable
    ) -> None:
        if not isinstance(problem, Unsure):
            _fail(future, problem)
            return
        self._counters.unknown += 1
        if len(self._doubtful) >= _DOUBTFUL_LOGS:
            self._doubtful.clear()
        self._doubtful[request.log] = request.page.commit_id
        _answer(future, UNKNOWN)


def _answer(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)


def _fail(future: asyncio.Future[Outcome], problem: StoreUnavailable) -> None:
    if not future.done():
        future.set_exception(problem)
