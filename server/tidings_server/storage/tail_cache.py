"""The tail cache: the newest pages of active logs in memory, so that a storm of reconnects reads
the store once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from ..core.pages import Page, PageFlag
from .base import Store

_PAGE_OVERHEAD = 300


class _Tail:
    __slots__ = ("bytes", "pages")

    def __init__(self) -> None:
        self.pages: list[Page] = []
        self.bytes = 0


class TailCache:
    """Reads logs like a `Store`, from memory where the pages are there.

    `max_bytes` bounds all pages held together, `max_log_bytes` those of one log. Pages are given by
    `add` in the order of their commits; one that does not follow the newest held starts the tail of
    its log anew.
    """

    def __init__(
        self, store: Store, *, max_bytes: int = 64 << 20, max_log_bytes: int = 1 << 20
    ) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._max_log_bytes = max_log_bytes
        self._tails: OrderedDict[str, _Tail] = OrderedDict()
        self.bytes = 0

    def add(self, log: str, page: Page) -> None:
        """Takes a page that was committed. Pages that are held already are passed over."""
        if page.flags & PageFlag.ERASURE:
            # What it erases may be held, and is held no more once this is told.
            self.forget(log)
        tail = self._tails.get(log)
        if tail is None:
            tail = self._tails[log] = _Tail()
        elif tail.pages:
            newest = tail.pages[-1].last_seq
            if page.last_seq <= newest:
                return
            if page.first_seq != newest + 1:
                self._drop(tail, len(tail.pages))
        size = len(page.body) + _PAGE_OVERHEAD
        tail.pages.append(page)
        tail.bytes += size
        self.bytes += size
        if tail.bytes > self._max_log_bytes:
            self._drop(tail, max(1, len(tail.pages) // 4))
        while self.bytes > self._max_bytes and self._tails:
            _, oldest = self._tails.popitem(last=False)
            self._drop(oldest, len(oldest.pages))

    def forget(self, log: str) -> None:
        """Drops what is held of a log."""
        tail = self._tails.pop(log, None)
        if tail is not None:
            self._drop(tail, len(tail.pages))

    async def read(
        self, log: str, after: int, *, max_bytes: int, upto: int | None = None, head: int = 0
    ) -> Sequence[Page]:
        """See `Store.read`; except that pages newer than the newest held may be left out when some
        are given. What entries up to `head` have erased is not in them.
        """
        tail = self._tails.get(log)
        if (
            tail is not None
            and tail.pages
            and tail.pages[0].first_seq <= after + 1
            and tail.pages[-1].last_seq >= head
        ):
            found = self._held(tail, after, max_bytes, upto)
            if found:
                self._tails.move_to_end(log)
                return found
        return await self._store.read(log, after, max_bytes=max_bytes, upto=upto)

    def _held(self, tail: _Tail, after: int, max_bytes: int, upto: int | None) -> list[Page]:
        pages = tail.pages
        low, high = 0, len(pages)
        while low < high:
            middle = (low + high) // 2
            if pages[middle].last_seq <= after:
                low = middle + 1
            else:
                high = middle
        found: list[Page] = []
        size = 0
        for page in pages[low:]:
            if (upto is not None and page.first_seq > upto) or (found and size > max_bytes):
                break
            found.append(page)
            size += len(page.body)
        return found

    def _drop(self, tail: _Tail, count: int) -> None:
        size = sum(len(p.body) + _PAGE_OVERHEAD for p in tail.pages[:count])
        del tail.pages[:count]
        tail.bytes -= size
        self.bytes -= size
