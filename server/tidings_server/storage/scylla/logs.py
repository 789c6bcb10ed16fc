"""Reads logs: pages forwards and backwards over buckets, ids, and the pages that have flags."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from cassandra.query import PreparedStatement

from tidings_server.core.pages import BUCKET_SIZE, Page, bucket_of
from tidings_server.storage.base import PageIds, Snapshot, StoreUnavailable
from tidings_server.storage.scylla.courier import Courier
from tidings_server.storage.scylla.heads import Heads, bucket_end
from tidings_server.storage.scylla.statements import Statements, parts

_LAST = (1 << 63) - 1
_PAGES_AT_ONCE = 64
_IDS_AT_ONCE = 500
_MARKS_AT_ONCE = 500
_TYPICAL_BODY = 512
_TRIES = 3


class Logs:
    """Questions about logs. Each may raise StoreUnavailable."""

    def __init__(self, courier: Courier, statements: Statements, heads: Heads) -> None:
        self._courier = courier
        self._statements = statements
        self._heads = heads

    async def snapshot(self, log: str) -> Snapshot | None:
        """The snapshot of the newest bucket."""
        head = (await self._heads.find([log])).get(log)
        if head is None:
            return None
        bucket = bucket_of(head.last_seq)
        rows = await self._courier.ask(self._statements.snapshot.bind((log, bucket)))
        return Snapshot(bucket * BUCKET_SIZE, rows[0][0] or b"")

    async def read(self, log: str, after: int, max_bytes: int, upto: int | None) -> list[Page]:
        """The pages that hold positions in `after + 1 .. upto`."""
        last = _LAST if upto is None else upto
        found: list[Page] = []
        size = 0
        at = after + 1
        while True:
            pages, more = await self._pages_from(log, at, last, max_bytes - size, first=not found)
            for page in pages:
                size += len(page.body)
                if found and size > max_bytes:
                    return found
                found.append(page)
                at = page.last_seq + 1
            if not more or at > last or size > max_bytes:
                return found

    async def _pages_from(
        self, log: str, at: int, last: int, max_bytes: int, *, first: bool
    ) -> tuple[list[Page], bool]:
        """Pages of one bucket without a gap from the one that holds `at`; and whether there may be more.

        Only the `first` ones asked for may begin before `at`: further on a page is known to begin there.
        """
        bucket = bucket_of(at)
        end = min(last, bucket_end(bucket))
        limit = _page_limit(max_bytes)
        for _ in range(_TRIES):
            pages: list[Page] = []
            if at <= end:
                rows = await self._courier.ask(
                    self._statements.pages_from.bind((log, bucket, at, end, limit))
                )
                pages = [Page(*row) for row in rows]
            if pages and pages[0].first_seq == at:
                _check(log, pages)
                full = pages[-1].last_seq == bucket_end(bucket)
                return pages, full or len(pages) == limit
            if not first or at == bucket * BUCKET_SIZE + 1:
                if not pages:
                    return [], False
            else:
                before = await self._page_before(log, bucket, at)
                if before is not None and before.last_seq >= at:
                    return ([before], True) if before.first_seq <= last else ([], False)
                if not pages:
                    return [], False
            # The page at `at` was appended after the one request, and the next before the other.
        raise StoreUnavailable(f"{log} has a gap at {at}")

    async def _page_before(self, log: str, bucket: int, at: int) -> Page | None:
        rows = await self._courier.ask(self._statements.pages_back.bind((log, bucket, at, 1)))
        return Page(*rows[0]) if rows else None

    async def read_back(self, log: str, before: int, max_bytes: int) -> list[Page]:
        """The pages that begin before `before`, newest first."""
        found: list[Page] = []
        size = 0
        limit = _page_limit(max_bytes)
        descending = self._descend(self._statements.pages_back, log, before, limit)
        async with aclosing(descending):
            async for row in descending:
                page = Page(*row)
                if found and page.last_seq + 1 != found[-1].first_seq:
                    raise StoreUnavailable(f"{log} has a gap before {found[-1].first_seq}")
                size += len(page.body)
                if found and size > max_bytes:
                    break
                found.append(page)
                if size > max_bytes:
                    break
        return found

    async def read_ids(
        self, log: str, before: int, min_stamp: int, max_pages: int
    ) -> list[PageIds]:
        """The ids of the newest pages that begin before `before`, down to a stamp."""
        found: list[PageIds] = []
        if max_pages < 1:
            return found
        limit = min(max_pages, _IDS_AT_ONCE)
        descending = self._descend(self._statements.ids_back, log, before, limit)
        async with aclosing(descending):
            async for first_seq, stamp, ids in descending:
                # Stamps never descend along a log: nothing older is recent enough.
                if stamp < min_stamp:
                    break
                found.append(PageIds(first_seq, stamp, ids))
                if len(found) == max_pages:
                    break
        return found

    async def _descend(
        self, statement: PreparedStatement, log: str, before: int, limit: int
    ) -> AsyncGenerator[Sequence[Any], None]:
        """Rows of pages that begin before `before`, newest first, over all buckets."""
        at = before - 1
        if at < 1:
            return
        if bucket_of(at):
            head = (await self._heads.find([log])).get(log)
            if head is None:
                return
            at = min(at, head.last_seq)
        while at > 0:
            bucket = bucket_of(at)
            rows = await self._courier.ask(statement.bind((log, bucket, at, limit)))
            for row in rows:
                yield row
            at = rows[-1][0] - 1 if len(rows) == limit else bucket * BUCKET_SIZE

    async def read_flagged(self, log: str, after: int, flag: int, limit: int) -> list[Page]:
        """The first pages with a bit of `flag` that begin after `after`."""
        found: list[Page] = []
        if limit < 1:
            return found
        head = (await self._heads.find([log])).get(log)
        newest = bucket_of(head.last_seq) if head is not None else -1
        at = after
        while len(found) < limit and (bucket := bucket_of(at + 1)) <= newest:
            marks = await self._courier.ask(
                self._statements.marks.bind((log, bucket, at, _MARKS_AT_ONCE))
            )
            wanted = [seq for seq, flags in marks if flags & flag][: limit - len(found)]
            found += await self._pages_at(log, bucket, wanted)
            at = marks[-1][0] if len(marks) == _MARKS_AT_ONCE else bucket_end(bucket)
        return found

    async def _pages_at(self, log: str, bucket: int, seqs: Sequence[int]) -> list[Page]:
        answers = await self._courier.ask_all(
            self._statements.pages_at.bind((log, bucket, list(part))) for part in parts(seqs)
        )
        return [Page(*row) for rows in answers for row in rows]


def _page_limit(max_bytes: int) -> int:
    """How many pages to ask for: enough, and not so many that large ones would fill the memory."""
    return max(1, min(_PAGES_AT_ONCE, max_bytes // _TYPICAL_BODY + 1))


def _check(log: str, pages: Sequence[Page]) -> None:
    for page, following in itertools.pairwise(pages):
        if following.first_seq != page.last_seq + 1:
            raise StoreUnavailable(f"{log} has a gap before {following.first_seq}")
