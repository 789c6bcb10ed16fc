"""Intents: before a node appends to a log it notes durably that it may, so that others know what to look at when it
ends before it has told of everything. `takeover.py` is what the others do.

A note holds for one round. Rounds are counted by this node alone, by time that only it measures: a log's first append
in a round waits for its note, further ones begin at once. An append begins before its round ends, or is noted anew. A
round's notes are removed when all that was begun in it is decided, its effects are written, and the bus has taken what
was published of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from functools import partial

import structlog

from ..bus.base import Bus
from ..storage.base import Append, Outcome, Store, StoreUnavailable
from ..telemetry.counters import Counters

log = structlog.get_logger(__name__)

ROUND_S = 60.0
"""No append begins on a note that is older."""
LATE_S = 30.0
"""What was asked of a store takes effect within this time, or never: more than its longest time-out."""
_CLEAR_EVERY_S = 15.0
_LAST_CLEAR_WITHIN_S = 2.0
_NOTED_TOGETHER = 250

_Waiting = tuple[Append, asyncio.Future[Outcome]]


class Intents:
    """Appends of one node to a store that others use as well."""

    def __init__(self, store: Store, bus: Bus, node_id: str, counters: Counters) -> None:
        self._store = store
        self._bus = bus
        self._node_id = node_id
        self._counters = counters
        self._round = -1
        # When the round ends, in the event loop's time.
        self._ends = 0.0
        # The logs that are noted in this round.
        self._noted: set[str] = set()
        # The logs that have an append of which it is not decided, or not published, what became, each with the round of
        # its last try; and what writes effects.
        self._open: dict[str | asyncio.Task[None], int] = {}
        # What waits for its note. The round of those that are being written.
        self._waiting: deque[_Waiting] = deque()
        self._noting: asyncio.Task[None] | None = None
        self._noting_round: int | None = None
        # Rounds that are over, each with the bus's mark by which all of it was published.
        self._over: deque[tuple[int, int]] = deque()
        self._newest_over = self._clearable = self._cleared = -1
        self._clearing: asyncio.Task[None] | None = None
        self._stopped = False

    def start(self) -> None:
        """Begins to remove what is no longer needed."""
        self._clearing = asyncio.get_running_loop().create_task(self._clear_again_and_again())

    async def stop(self) -> None:
        """Begins nothing more. What is noted is removed if nothing is left to tell. Comes after the end of the bus."""
        self._stopped = True
        tasks = [task for task in (self._clearing, self._noting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not self._open and self._bus.taken(self._bus.mark()) and self._cleared < self._round:
            with contextlib.suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(_LAST_CLEAR_WITHIN_S):
                    await self._store.clear_intents(self._node_id, self._round)

    def append(self, request: Append) -> asyncio.Future[Outcome]:
        """Appends as `Store.append` does, once that is noted. What can't be noted is not begun: StoreUnavailable."""
        loop = asyncio.get_running_loop()
        if request.log in self._noted and loop.time() < self._ends and not self._stopped:
            self._open[request.log] = self._round
            return self._store.append(request)
        future: asyncio.Future[Outcome] = loop.create_future()
        if self._stopped:
            future.set_exception(StoreUnavailable("the node has ended"))
            return future
        self._waiting.append((request, future))
        if self._noting is None:
            self._noting = loop.create_task(self._note())
        return future

    def decided(self, name: str) -> None:
        """It is known what became of the append to a log, and it was published if it was applied."""
        self._open.pop(name, None)

    def hold(self, name: str, effects: asyncio.Task[None]) -> None:
        """The effects of what was just appended to a log are being written: others see to it if this node ends before
        the task does. Comes before `decided`.
        """
        self._open[effects] = self._open[name]
        effects.add_done_callback(self._written)

    def _written(self, effects: asyncio.Task[None]) -> None:
        if not effects.cancelled():
            del self._open[effects]

    # Noting

    async def _note(self) -> None:
        """Writes notes as long as something waits for them, for many logs at once."""
        waiting: list[_Waiting] = []
        try:
            while self._waiting:
                count = min(len(self._waiting), _NOTED_TOGETHER)
                waiting = [self._waiting.popleft() for _ in range(count)]
                try:
                    await self._note_logs(dict.fromkeys(request.log for request, _ in waiting))
                except StoreUnavailable as problem:
                    _refuse(waiting, problem)
                except Exception:
                    log.exception("noting_failed")
                    _refuse(waiting, StoreUnavailable("what is to be appended can't be noted"))
                for request, future in waiting:
                    # Who gave up, or was refused, begins nothing.
                    if not future.done():
                        self._begin(request, future)
        finally:
            self._noting = None
            # What is begun is answered by the store; the rest never will be.
            if self._stopped:
                _refuse([*waiting, *self._waiting], StoreUnavailable("the node has ended"))

    async def _note_logs(self, logs: dict[str, None]) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._ends:
            self._round += 1
            self._ends = now + ROUND_S
            self._noted = set()
        new = [name for name in logs if name not in self._noted]
        if not new:
            return
        self._noting_round = self._round
        try:
            self._counters.intents += len(new)
            await self._store.put_intents(self._node_id, self._round, new)
        finally:
            self._noting_round = None
        self._noted.update(new)

    def _begin(self, request: Append, future: asyncio.Future[Outcome]) -> None:
        if asyncio.get_running_loop().time() >= self._ends:
            # Noting took so long that the note holds no more.
            self._waiting.append((request, future))
            return
        self._open[request.log] = self._round
        try:
            self._store.append(request).add_done_callback(partial(_hand_on, future))
        except Exception as problem:  # noqa: BLE001 - whoever asked for it is told
            future.set_exception(problem)

    # Clearing

    async def _clear_again_and_again(self) -> None:
        waits = False
        while True:
            await asyncio.sleep(_CLEAR_EVERY_S)
            try:
                await self._clear()
                waits = False
            except StoreUnavailable as problem:
                # Once an outage.
                if not waits:
                    log.warning("intents_not_cleared", cause=str(problem))
                waits = True
            except Exception:
                log.exception("clearing_failed")

    async def _clear(self) -> None:
        """Removes the rounds in which everything is decided, published, and taken by the bus."""
        over = self._decided_round()
        if over > self._newest_over:
            self._newest_over = over
            self._over.append((over, self._bus.mark()))
        while self._over and self._bus.taken(self._over[0][1]):
            self._clearable = self._over.popleft()[0]
        if self._clearable > self._cleared:
            upto = self._clearable
            await self._store.clear_intents(self._node_id, upto)
            self._cleared = upto

    def _decided_round(self) -> int:
        """The newest round in which nothing is begun any more, and of which nothing is open."""
        ended = asyncio.get_running_loop().time() >= self._ends
        rounds = [self._round + 1 if ended else self._round, *self._open.values()]
        if self._noting_round is not None:
            rounds.append(self._noting_round)
        return min(rounds) - 1


def _refuse(waiting: list[_Waiting], problem: StoreUnavailable) -> None:
    for _, future in waiting:
        if not future.done():
            future.set_exception(problem)


def _hand_on(future: asyncio.Future[Outcome], answered: asyncio.Future[Outcome]) -> None:
    """The store has answered an append: so is who asked for it."""
    problem = None if answered.cancelled() else answered.exception()
    if future.done():
        return
    if answered.cancelled():
        future.cancel()
    elif problem is not None:
        future.set_exception(problem)
    else:
        future.set_result(answered.result())
