"""The contract of buses: what every implementation does, and what those between nodes do besides."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable

import pytest

from tests.contract.samples import INBOX, LOG, OTHER, page
from tidings_server.bus.base import (
    Bus,
    HeadPublished,
    NoticePublished,
    PagePublished,
    Publication,
)
from tidings_server.core.pages import Page, PageFlag

PATIENCE_S = 20.0


async def until(condition: Callable[[], object]) -> None:
    """Waits for a condition."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # what it looks at tells nobody
            await asyncio.sleep(0.002)


class Listener:
    """A node's ears: what its bus handed on."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.got: list[Publication] = []
        self.resyncs = 0
        bus.on_publication = self.got.append
        bus.on_resync = self._resync

    def pages(self, log: str = LOG) -> list[int]:
        """The first positions of the pages that came for a log."""
        return [p.page.first_seq for p in self.got if isinstance(p, PagePublished) and p.log == log]

    async def hears(self, *publications: Publication) -> None:
        """Waits until exactly these have come, in whatever order."""
        await until(lambda: len(self.got) >= len(publications))
        assert sorted(map(repr, self.got)) == sorted(map(repr, publications))
        self.got.clear()

    def _resync(self) -> None:
        self.resyncs += 1


class BusNet(ABC):
    """Where buses meet. `largest` is the longest body of a page that travels as it is."""

    largest = 1 << 20

    @abstractmethod
    async def node(self) -> Listener:
        """A node with its bus, started."""

    @abstractmethod
    async def close(self) -> None:
        """Stops all of them."""


class BusContract:
    """What holds for one node with a bus."""

    @pytest.fixture
    def net(self) -> BusNet:
        pytest.fail("a subclass gives the net")

    @pytest.fixture
    async def node(self, net: BusNet) -> AsyncIterator[Listener]:
        yield await net.node()
        await net.close()

    async def test_a_node_hears_itself_once(self, node: Listener) -> None:
        await node.bus.subscribe([LOG])
        node.bus.publish(PagePublished(LOG, page(1)))
        node.bus.publish(NoticePublished(LOG, b"typing"))
        node.bus.publish(HeadPublished(LOG, 7))
        await until(lambda: len(node.got) >= 3)
        await self._nothing_more(node)
        assert [type(p) for p in node.got] == [PagePublished, NoticePublished, HeadPublished]

    async def test_only_what_is_subscribed_to(self, node: Listener) -> None:
        await node.bus.subscribe([OTHER])
        node.bus.publish(PagePublished(LOG, page(1)))
        node.bus.publish(PagePublished(OTHER, page(2)))
        await until(lambda: node.got)
        await self._nothing_more(node)
        assert node.pages(OTHER) == [2]
        assert not node.pages(LOG)

    async def test_the_last_of_subscribing_and_unsubscribing_counts(self, node: Listener) -> None:
        bus = node.bus
        first = asyncio.create_task(bus.subscribe([LOG, OTHER]))
        await asyncio.sleep(0)
        bus.unsubscribe([LOG])
        second = asyncio.create_task(bus.subscribe([LOG]))
        await asyncio.sleep(0)
        bus.unsubscribe([OTHER])
        await first
        await second
        bus.publish(PagePublished(LOG, page(1)))
        bus.publish(PagePublished(OTHER, page(1)))
        await until(lambda: node.got)
        await self._nothing_more(node)
        assert (node.pages(), node.pages(OTHER)) == ([1], [])

    async def test_subscribing_twice_is_subscribing_once(self, node: Listener) -> None:
        await asyncio.gather(node.bus.subscribe([LOG]), node.bus.subscribe([LOG, LOG]))
        node.bus.publish(PagePublished(LOG, page(1)))
        await until(lambda: node.got)
        await self._nothing_more(node)
        assert node.pages() == [1]
        node.bus.unsubscribe([LOG])
        node.bus.publish(PagePublished(LOG, page(2)))
        await self._nothing_more(node)
        assert node.pages() == [1]

    async def test_unsubscribing_from_what_was_not_subscribed_to(self, node: Listener) -> None:
        node.bus.unsubscribe([LOG, OTHER])
        await node.bus.subscribe([])

    async def test_what_was_published_is_taken(self, node: Listener) -> None:
        bus = node.bus
        assert bus.taken(bus.mark())
        for n in range(300):
            bus.publish(PagePublished(f"log-{n}", page(1)))
        mark = bus.mark()
        bus.publish(HeadPublished(LOG, 2))
        await until(lambda: bus.taken(mark))
        # Also once it has ended.
        bus.publish(HeadPublished(LOG, 3))
        mark = bus.mark()
        await bus.stop()
        assert bus.taken(mark)

    async def _nothing_more(self, node: Listener) -> None:
        """Returns when whatever was published before would have come: a bus keeps the order here."""
        marker = f"marker-{random.Random(len(node.got)).random()}"
        await node.bus.subscribe([marker])
        node.bus.publish(NoticePublished(marker, b""))
        await until(lambda: any(p.log == marker for p in node.got))
        node.got[:] = [p for p in node.got if p.log != marker]


class ManyNodesContract(BusContract):
    """What holds between nodes."""

    @pytest.fixture
    async def others(self, net: BusNet, node: Listener) -> list[Listener]:
        return [await net.node(), await net.node()]

    async def test_every_subscribed_node_hears_it_once(
        self, node: Listener, others: list[Listener]
    ) -> None:
        for listener in (node, *others):
            await listener.bus.subscribe([LOG, INBOX])
        content: list[Publication] = [
            PagePublished(LOG, page(1, 3, flags=PageFlag.STATE | PageFlag.REMOVAL)),
            PagePublished(INBOX, page(9)),
            NoticePublished(INBOX, b"\x00 anything \xff"),
            HeadPublished(LOG, 2**40),
        ]
        for publication in content:
            node.bus.publish(publication)
        for listener in (node, *others):
            await listener.hears(*content)
        # What comes back or twice would come before these.
        ends: list[Publication] = [HeadPublished(LOG, 2**41), HeadPublished(INBOX, 2**41)]
        for publication in ends:
            others[0].bus.publish(publication)
        for listener in (node, *others):
            await listener.hears(*ends)

    async def test_all_fields_of_a_page_arrive(
        self, node: Listener, others: list[Listener]
    ) -> None:
        sent = Page(2**40, 2, 2**41, 2**39, bytes(range(16)), b"i" * 32, 7, b"b" * 4096, 3)
        await others[0].bus.subscribe([LOG])
        node.bus.publish(PagePublished(LOG, sent))
        await others[0].hears(PagePublished(LOG, sent))

    async def test_a_confirmed_subscription_misses_nothing(
        self, node: Listener, others: list[Listener]
    ) -> None:
        logs = [f"log-{i}" for i in range(300)]
        other = others[0]
        for log in logs:
            await other.bus.subscribe([log])
            node.bus.publish(PagePublished(log, page(1)))
        await until(lambda: len(other.got) >= len(logs))
        assert [p.log for p in sorted(other.got, key=lambda p: int(p.log[4:]))] == logs

    async def test_many_at_once_and_a_flood(self, node: Listener, others: list[Listener]) -> None:
        logs = [f"log-{i}" for i in range(3000)]
        other = others[0]
        await other.bus.subscribe(logs)
        for log in logs:
            node.bus.publish(PagePublished(log, page(1, body=b"x" * 300)))
        await until(lambda: len(other.got) >= len(logs))
        assert sorted(p.log for p in other.got) == sorted(logs)

    async def test_large_pages_arrive_or_are_pointed_to(
        self, net: BusNet, node: Listener, others: list[Listener]
    ) -> None:
        await others[0].bus.subscribe([LOG])
        fits = PagePublished(LOG, page(1, body=b"x" * net.largest))
        node.bus.publish(fits)
        await others[0].hears(fits)
        node.bus.publish(PagePublished(LOG, page(2, 5, body=b"x" * (net.largest + 1))))
        await others[0].hears(HeadPublished(LOG, 6))

    async def test_flapping_sessions_agree_in_the_end(
        self, node: Listener, others: list[Listener]
    ) -> None:
        """Sessions come and go faster than the bus confirms; then it is as the last of them wanted."""
        rng = random.Random(7)
        logs = [f"log-{i}" for i in range(8)]
        wanted: set[str] = set()
        other, tasks = others[0], []
        for _ in range(2000):
            log = rng.choice(logs)
            if rng.random() < 0.5:
                tasks.append(asyncio.create_task(other.bus.subscribe([log])))
                wanted.add(log)
                # It begins at once, as the hub's does.
                await asyncio.sleep(0)
            else:
                other.bus.unsubscribe([log])
                wanted.discard(log)
            if rng.random() < 0.05:
                await asyncio.sleep(0.001)
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*tasks)
        await other.bus.subscribe(["end"])
        for log in (*logs, "end"):
            node.bus.publish(HeadPublished(log, 1))
        await until(lambda: wanted <= {p.log for p in other.got})
        assert {p.log for p in other.got} - {"end"} == wanted
