"""The bus over Redis: publications of this node go to its own sessions at once, and to the other nodes by pub/sub."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

import structlog

from ...redis_options import RedisAddress, RedisOptions
from ..base import Bus, HeadPublished, NoticePublished, PagePublished, Publication
from .frames import (
    LARGE_BYTES,
    Resync,
    UnknownFrame,
    decode,
    encode,
    encode_head,
    encode_resync,
    origin_of,
)
from .link import Link
from .publisher import Owed, Parcel, Publisher, Sent
from .subscriber import Subscriber
from .subscriptions import Wait
from .topology import Cluster, OneServer, Topology

log = structlog.get_logger(__name__)

CONFIRMED_WITHIN_S = 2.0
"""How long `subscribe` waits for the confirmation; after that a resync follows it."""
_CONNECTED_WITHIN_S = 2.0
_LAST_SENT_WITHIN_S = 1.0
_LOOK_AGAIN_S = 0.5
_NODES_LOG = ""
"""No log has this name: its channel is that of all nodes."""


@dataclass(slots=True)
class BusCounts:
    """What the bus counts. Numbers only grow."""

    sent: Sent = field(default_factory=Sent)
    pointers: int = 0
    """Pages that were too large and travelled as pointers."""
    received: int = 0
    """Publications of other nodes."""
    unknown_frames: int = 0
    """Frames that this version does not understand."""
    resyncs: int = 0
    """Times that every session looked at its heads."""
    unconfirmed: int = 0
    """Calls of `subscribe` that returned without a confirmation."""


class RedisBus(Bus):
    """See `Bus`. Own publications that come back are known by their sender and passed over."""

    def __init__(self, options: RedisOptions, rng: random.Random) -> None:
        self.counts = BusCounts()
        self._options = options
        self._rng = rng
        self._origin = rng.getrandbits(64).to_bytes(8, "big")
        self._topology: Topology = Cluster(options) if options.cluster else OneServer(options)
        self._prefix = f"{options.namespace}:"
        self._subscribers: dict[RedisAddress, Subscriber] = {}
        self._publishers: dict[RedisAddress, Publisher] = {}
        self._wanted: set[str] = set()
        # How many publications there were, and whether some came too late.
        self._published = 0
        self._too_late = False
        self._retired: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def connected(self) -> bool:
        """Whether every connection that is needed is there."""
        links = [*self._subscribers.values(), *self._publishers.values()]
        return bool(links) and all(link.connection is not None for link in links)

    @property
    def connects(self) -> int:
        """Connections that were had."""
        links = [*self._subscribers.values(), *self._publishers.values()]
        return sum(link.connects for link in links)

    @property
    def waiting_bytes(self) -> int:
        """What is published and not yet taken by Redis."""
        return sum(p.waiting_bytes for p in self._publishers.values())

    @property
    def owed_logs(self) -> int:
        """Logs of which receivers have still to be told how far they go."""
        return sum(len(p.owed) for p in self._publishers.values())

    async def start(self) -> None:
        """See `Bus`."""
        async with _within(_CONNECTED_WITHIN_S):
            await self._topology.refresh()
        # Nobody waits for this one: what is missed before it is confirmed, is before any session.
        subscriber = self._subscriber(_NODES_LOG)
        publisher = self._publisher(_NODES_LOG)
        subscriber.subscriptions.want(_NODES_LOG, self._channel(_NODES_LOG), Wait())
        subscriber.changed()
        async with _within(_CONNECTED_WITHIN_S):
            await subscriber.first_try.wait()
            await publisher.first_try.wait()
        if not self.connected:
            log.warning("bus_not_connected", effect="other nodes are reached once Redis is")

    async def stop(self) -> None:
        """See `Bus`."""
        async with _within(_LAST_SENT_WITHIN_S):
            for publisher in list(self._publishers.values()):
                await publisher.emptied()
        self._stopped = True
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        for link in (*self._subscribers.values(), *self._publishers.values()):
            await link.stop()
        for subscriber in self._subscribers.values():
            subscriber.subscriptions.release_all()
        if self._retired:
            await asyncio.wait(self._retired)
        await self._topology.close()

    def publish(self, publication: Publication) -> None:
        """See `Bus`."""
        name = publication.log
        if not self._stopped:
            seq = 0
            if isinstance(publication, PagePublished):
                seq = publication.page.last_seq
                if len(publication.page.body) > LARGE_BYTES:
                    self.counts.pointers += 1
            elif isinstance(publication, HeadPublished):
                seq = publication.seq
            self._published += 1
            frame = encode(publication, self._origin)
            parcel = Parcel(self._channel(name), frame, name, seq, self._published)
            self._publisher(name).send(parcel)
        elif not isinstance(publication, NoticePublished):
            self._too_late = True
        if name in self._wanted:
            self.on_publication(publication)

    def mark(self) -> int:
        """See `Bus`."""
        return self._published

    def taken(self, mark: int) -> bool:
        """See `Bus`."""
        oldest = (publisher.oldest() for publisher in self._publishers.values())
        return not self._too_late and all(n is None or n > mark for n in oldest)

    async def subscribe(self, logs: Iterable[str]) -> None:
        """See `Bus`."""
        names = list(logs)
        wait = Wait()
        down = False
        for name in names:
            self._wanted.add(name)
            subscriber = self._subscriber(name)
            subscriber.subscriptions.want(name, self._channel(name), wait)
            subscriber.changed()
            down = down or self._long_down(subscriber)
        if not wait.left:
            return
        if not down:
            async with _within(CONFIRMED_WITHIN_S):
                await wait.future
        if wait.left:
            self.counts.unconfirmed += 1
            for name in names:
                for subscriber in self._subscribers.values():
                    subscriber.subscriptions.give_up(name, wait)

    def unsubscribe(self, logs: Iterable[str]) -> None:
        """See `Bus`."""
        for name in logs:
            self._wanted.discard(name)
            subscriber = self._subscriber(name)
            subscriber.subscriptions.unwant(name)
            subscriber.changed()

    def _channel(self, name: str) -> bytes:
        return (self._prefix + name).encode()

    def _long_down(self, subscriber: Subscriber) -> bool:
        since = subscriber.down_since
        return since is not None and asyncio.get_running_loop().time() - since > CONFIRMED_WITHIN_S

    def _message(self, channel: bytes, frame: bytes) -> None:
        if origin_of(frame) == self._origin:
            return
        name = channel[len(self._prefix) :].decode()
        if name not in self._wanted and name != _NODES_LOG:
            return
        try:
            publication = decode(frame, name)
        except UnknownFrame:
            self.counts.unknown_frames += 1
            return
        if isinstance(publication, Resync):
            self._resync()
        else:
            self.counts.received += 1
            self.on_publication(publication)

    def _resync(self) -> None:
        if not self._stopped:
            self.counts.resyncs += 1
            self.on_resync()

    def _pointer(self, name: str, owed: Owed) -> Parcel:
        origin = self._origin
        frame = encode_head(owed.seq, origin) if name != _NODES_LOG else encode_resync(origin)
        return Parcel(self._channel(name), frame, name, owed.seq, owed.number)

    def _overflow(self, oldest: int) -> None:
        """More logs are owed than can be kept: all nodes look at all heads."""
        log.warning("bus_owes_too_much", effect="every node looks at the heads of its sessions")
        self._publisher(_NODES_LOG).owe(_NODES_LOG, Owed(1, oldest))

    # The servers of a cluster

    def _subscriber(self, name: str) -> Subscriber:
        address = self._topology.address_of(self._channel(name))
        link = self._subscribers.get(address)
        if link is None:
            link = self._subscribers[address] = Subscriber(
                self._options,
                address,
                self._rng,
                message=self._message,
                all_sure=self._resync,
                refused=self._look_again,
            )
            link.start()
        return link

    def _publisher(self, name: str) -> Publisher:
        address = self._topology.address_of(self._channel(name))
        link = self._publishers.get(address)
        if link is None:
            link = self._publishers[address] = Publisher(
                self._options,
                address,
                self._rng,
                counts=self.counts.sent,
                pointer=self._pointer,
                overflow=self._overflow,
                refused=self._look_again,
            )
            link.start()
        return link

    def _look_again(self) -> None:
        """A server could not be reached, or refused: channels may have moved."""
        if self._options.cluster and self._looking is None and not self._stopped:
            self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        try:
            if await self._topology.refresh():
                self._move()
            await asyncio.sleep(_LOOK_AGAIN_S)
        finally:
            self._looking = None

    def _move(self) -> None:
        """Channels and what is owed go to the servers that they belong to now."""
        for subscriber in list(self._subscribers.values()):
            for name in subscriber.subscriptions.logs:
                new = self._subscriber(name)
                if new is not subscriber:
                    waits = subscriber.subscriptions.evict(name)
                    new.subscriptions.adopt(name, self._channel(name), waits)
                    new.changed()
            subscriber.changed()
            if not subscriber.subscriptions.logs:
                del self._subscribers[subscriber.address]
                self._retire(subscriber)
        for publisher in list(self._publishers.values()):
            if publisher.connection is None:
                # What waits for its first connection is owed, too.
                publisher.down()
            owed, publisher.owed = publisher.owed, {}
            for name, what in owed.items():
                self._publisher(name).owe(name, what)
            if publisher.connection is None and not publisher.owed:
                del self._publishers[publisher.address]
                self._retire(publisher)

    def _retire(self, link: Link) -> None:
        task = asyncio.get_running_loop().create_task(link.stop())
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)


@contextlib.asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    """Ends what is in it after a time, without an error."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            yield
