"""Lanes: writes about one thing go one after the other, and what waits meanwhile goes together in the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from typing import Any, Generic, TypeVar

from tidings_server.storage.base import StoreUnavailable

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")

Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Lanes(Generic[K, R]):
    """A lane for each key, while it is used. `write` is given rows in the order in which they were put."""

    def __init__(self, write: Callable[[K, Sequence[R]], Awaitable[None]], spawn: Spawn) -> None:
        self._write = write
        self._spawn = spawn
        self._waiting: dict[K, list[tuple[list[R], asyncio.Future[None]]]] = {}

    def put(self, key: K, rows: list[R]) -> asyncio.Future[None]:
        """Writes rows. The future ends when they are written, or with StoreUnavailable."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = [(rows, future)]
            self._spawn(self._run(key))
        else:
            waiting.append((rows, future))
        return future

    async def _run(self, key: K) -> None:
        while waiting := self._waiting[key]:
            self._waiting[key] = []
            problem: StoreUnavailable | None = None
            try:
                await self._write(key, [row for rows, _ in waiting for row in rows])
            except StoreUnavailable as unavailable:
                problem = unavailable
            for _, future in waiting:
                if future.done():
                    continue
                if problem is None:
                    future.set_result(None)
                else:
                    future.set_exception(problem)
                    # Who put it may have been cancelled: then it needs no complaint that nobody took it.
                    future.exception()
        del self._waiting[key]
