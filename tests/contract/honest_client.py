"""A client of a store that keeps the port's rules, and holds the store to every answer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tests.contract.samples import append_of, page
from tidings_server.core.pages import Page
from tidings_server.storage.base import (
    APPLIED,
    UNKNOWN,
    Append,
    Conflict,
    CursorRow,
    Store,
    StoreUnavailable,
)

T = TypeVar("T")

DEADLINE_S = 20.0
_devices = itertools.count(1)


async def at_last(call: Callable[[], Awaitable[T]]) -> T:
    """What a call answers once the store can be used."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await call()
            except StoreUnavailable:
                await asyncio.sleep(0.001)


class HonestClient:
    """Appends to some logs, which nobody else does. `acknowledged` are the pages that the store said are there."""

    def __init__(self, store: Store, logs: Sequence[str]) -> None:
        self.store = store
        self.acknowledged: dict[str, list[Page]] = {log: [] for log in logs}
        self.cursors: dict[str, int] = dict.fromkeys(logs, 0)
        self.device = f"device-{next(_devices)}"
        self.unknown = 0
        self.refused: set[bytes] = set()

    async def work(self, rounds: int) -> None:
        """So many pages for each log, all logs at once, and a cursor with each."""
        for _ in range(rounds):
            await asyncio.gather(*(self._advance(log) for log in self.acknowledged))

    async def _advance(self, log: str) -> None:
        pages = self.acknowledged[log]
        head = pages[-1].last_seq if pages else 0
        async with asyncio.timeout(DEADLINE_S):
            while True:
                # An append that was refused is never repeated, so that it would be noticed if it came back.
                request = append_of(log, page(head + 1, 2, body=bytes([head % 251]) * 300))
                if await self.settled(request):
                    break
                self.refused.add(request.page.commit_id)
                await asyncio.sleep(0.001)
        pages.append(request.page)
        row = CursorRow("ann", self.device, log, head + 1)
        await at_last(lambda: self.store.put_cursors([row]))
        self.cursors[log] = head + 1

    async def settled(self, request: Append) -> bool:
        """Sends an append until its outcome is definite: whether it is stored."""
        unknown = False
        while True:
            try:
                answer = await self.store.append(request)
            except StoreUnavailable:
                if not unknown:
                    return False
                await asyncio.sleep(0.001)
                continue
            if answer is APPLIED:
                return True
            if answer is UNKNOWN:
                unknown = True
                self.unknown += 1
                await asyncio.sleep(0.001)
                continue
            assert isinstance(answer, Conflict)
            assert unknown, (
                f"{request.log} is at {answer.head}: an append that was refused is there"
            )
            found = await at_last(
                lambda: self.store.read(request.log, request.expected_head, max_bytes=1)
            )
            assert found[0].commit_id == request.page.commit_id
            return True

    async def verify(self, store: Store | None = None, owed: Acknowledged | None = None) -> None:
        """Checks that a store has what was acknowledged, in order, once, without gaps.

        With `owed`, as of an earlier moment, it is a store that was cut off then: it may have what was under way, but
        nothing that had been refused.
        """
        store = self.store if store is None else store
        cursors = await at_last(lambda: store.cursors("ann", self.device))
        for log, pages in self.acknowledged.items():
            found = await at_last(lambda log=log: store.read(log, 0, max_bytes=1 << 40))  # type: ignore[misc]
            if owed is None:
                assert found == pages
                assert cursors.get(log, 0) == self.cursors[log]
            else:
                assert found[: owed.pages[log]] == pages[: owed.pages[log]]
                assert owed.pages[log] <= len(found) <= owed.pages[log] + 1
                assert [p.first_seq for p in found] == [1 + 2 * n for n in range(len(found))]
                assert owed.refused.isdisjoint(p.commit_id for p in found)
                assert cursors.get(log, 0) >= owed.cursors[log]

    def so_far(self) -> Acknowledged:
        """What a store owes now."""
        return Acknowledged(
            {log: len(pages) for log, pages in self.acknowledged.items()},
            dict(self.cursors),
            frozenset(self.refused),
        )


@dataclass(frozen=True)
class Acknowledged:
    """So many pages of each log, such cursors, and no append of those that were refused."""

    pages: dict[str, int]
    cursors: dict[str, int]
    refused: frozenset[bytes]
