"""Catch-up: the one cure for being offline, slow, or having missed a publication. Reads the log
from what was sent up to the head, as fast as window and outbox allow.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import structlog

from ..codec.events import skipped_event
from ..core.ids import is_inbox
from ..core.pages import Page, PageFlag, cut
from ..errors import DomainError
from ..storage.base import StoreUnavailable
from ..storage.tail_cache import TailCache
from ..telemetry.counters import Counters
from .outbox import Outbox
from .position import Position, Window

log = structlog.get_logger(__name__)

CHUNK_BYTES = 128 * 1024
_RETRY_S = 0.5
PassedOver = Callable[[str, Sequence[tuple[int, int]], int, int, int], Awaitable[list[bytes]]]


class CatchUp:
    """Brings the lagging logs of one session level, a chunk of each in turn.

    `ranges` tells what the user may see of a conversation, and up to which position that holds.
    `passed_over` gives what is to be told before positions that the user may not see.
    `inbox_page` is shown pages of the inbox. `level` is called for a log that has become level, `failed` when a fault
    of the server's own has ended the reading.
    """

    __slots__ = (
        "_counters",
        "_failed",
        "_inbox_page",
        "_lagging",
        "_level",
        "_outbox",
        "_pages",
        "_passed_over",
        "_ranges",
        "_slots",
        "_task",
        "_window",
        "closed",
    )

    def __init__(
        self,
        pages: TailCache,
        outbox: Outbox,
        window: Window,
        counters: Counters,
        slots: asyncio.Semaphore,
        ranges: Callable[[str], Awaitable[tuple[tuple[tuple[int, int], ...], int]]],
        passed_over: PassedOver,
        inbox_page: Callable[[Page], None],
        level: Callable[[Position], None],
        failed: Callable[[], None],
    ) -> None:
        self._pages = pages
        self._outbox = outbox
        self._window = window
        self._counters = counters
        self._slots = slots
        self._ranges = ranges
        self._passed_over = passed_over
        self._inbox_page = inbox_page
        self._level = level
        self._failed = failed
        self._lagging: deque[Position] = deque()
        self._task: asyncio.Task[None] | None = None
        self.closed = False

    @property
    def idle(self) -> bool:
        """Whether no log lags."""
        return not self._lagging

    def lag(self, position: Position) -> None:
        """A log must be read from what was sent."""
        if not position.lagging:
            position.lagging = True
            position.lag_began = asyncio.get_running_loop().time()
            self._lagging.append(position)
            if not self.closed:
                self._counters.lagging_logs += 1
        self.go_on()

    def go_on(self) -> None:
        """Room may have come: begins to read unless that is under way."""
        if self._lagging and self._task is None and not self.closed:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Ends for good. May be called twice."""
        if not self.closed:
            self._counters.lagging_logs -= len(self._lagging)
        self.closed = True
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while self._lagging and not self.closed:
                position = self._lagging[0]
                try:
                    more = await self._advance(position)
                except (StoreUnavailable, DomainError) as problem:
                    log.warning("catch_up_waits", cause=str(problem))
                    await asyncio.sleep(_RETRY_S)
                    continue
                if more is None:
                    return
                self._lagging.popleft()
                if more:
                    self._lagging.append(position)
                else:
                    lag_s = asyncio.get_running_loop().time() - position.lag_began
                    self._counters.lagging_logs -= 1
                    self._counters.lag_duration_seconds.observe(lag_s)
                    self._level(position)
        except Exception:
            log.exception("catch_up_failed")
            self._failed()
        finally:
            self._task = None

    async def _advance(self, position: Position) -> bool | None:
        """Sends a chunk of a log. Returns whether more follows, or None when there is no room."""
        if position.head > position.checked and not is_inbox(position.log):
            # The head first, then the membership: what is sent was visible at that head.
            head = position.head
            position.ranges, position.checked = await self._ranges(position.log)
            if position.checked < head:
                raise StoreUnavailable("a head is ahead of what is known of the log")
            # Of a membership that has ended nothing more is pushed: the rest is read too.
            position.head = max(position.head, position.checked)
        part = position.next_part()
        if part is None:
            position.lagging = False
            return False
        kind, first, last = part
        if not is_inbox(position.log):
            # The head may have moved on while the membership was read, past a removal that is not known yet.
            last = min(last, position.checked)
            if last < first:
                return True
        if kind == "skip":
            told = await self._passed_over(
                position.log, position.ranges, first, last, position.checked
            )
            if self.closed or not self._outbox.room(sum(map(len, told))):
                return None
            for event in told:
                self._outbox.put(event)
            self._outbox.put(skipped_event(position.log, first, last))
            position.pass_to(last)
            return True
        room = self._window.room()
        if room <= 0 or not self._outbox.room(1):
            return None
        async with self._slots:
            pages = await self._pages.read(
                position.log, first - 1, max_bytes=CHUNK_BYTES, upto=last, head=position.head
            )
        # Nothing else moves `sent` while a log lags, but the session may have ended meanwhile.
        if self.closed:
            return None
        if not pages:
            raise StoreUnavailable("a head is ahead of what can be read")
        # When nothing fits, go on once the outbox is empty.
        return True if self._send(position, pages, last, self._window.room()) else None

    def _send(self, position: Position, pages: Sequence[Page], last: int, room: int) -> bool:
        before = position.sent
        for page in pages:
            first = position.sent + 1
            upto = min(page.last_seq, last, position.sent + room)
            if upto < first:
                break
            body = cut(page, first, upto)
            if not self._outbox.room(len(body)):
                break
            position.sent = upto
            count = upto - first + 1
            room -= count
            self._window.unacked += count
            self._outbox.put(body)
            self._counters.catch_up_pages += 1
            self._counters.catch_up_entries += count
            self._counters.delivered_entries += count
            if page.flags & PageFlag.STATE and is_inbox(position.log):
                self._inbox_page(page)
        return position.sent > before
