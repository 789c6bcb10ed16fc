"""The bus port: how a commit reaches the nodes that have receivers connected.

Channels are named by logs. The bus is at-most-once: a publication may be lost, come late, twice, or
out of order. Receivers see that by positions and read the log. A publication is never invented or
altered.

`subscribe` returns once everything published from then on will be handed on (unless it is lost):
whoever reads heads after it misses nothing. When a connection to the bus was renewed, `on_resync`
is called, since anything may have been lost before. While the bus can't be reached `subscribe` may
return all the same, so that an outage of the bus is none of the node: `on_resync` follows once the
subscription is there.

A page whose publishing failed is made good by a `HeadPublished` of its log, or by `on_resync` on
every node, as soon as the bus can be reached again, unless the publisher ends before. Pages too large
for the bus come as `HeadPublished` too. A notice that could not be sent is lost.

Handlers are plain functions, called on the event loop, and must not raise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from ..core.pages import Page
from ..core.records import record


@record(frozen=True, slots=True)
class PagePublished:
    """A page was committed to a log."""

    log: str
    page: Page


@record(frozen=True, slots=True)
class NoticePublished:
    """Something that is not kept: `frame` is one or more joined `events` elements for the members
    of a log who are connected.
    """

    log: str
    frame: bytes


@record(frozen=True, slots=True)
class HeadPublished:
    """A log goes up to `seq`, as far as its publisher knows: what is missing is to be read from the log."""

    log: str
    seq: int


Publication = PagePublished | NoticePublished | HeadPublished


class Bus(ABC):
    """Carries publications between nodes. `on_publication` and `on_resync` are set by the
    composition root before `start`.
    """

    on_publication: Callable[[Publication], None]
    on_resync: Callable[[], None]

    @abstractmethod
    async def start(self) -> None:
        """Connects. Returns after a moment even if that was not possible: it is tried again."""

    @abstractmethod
    async def stop(self) -> None:
        """Lets go of everything. What was published and is not sent yet gets a moment."""

    @abstractmethod
    def publish(self, publication: Publication) -> None:
        """Hands a publication to every node subscribed to its log, this one included. Never blocks,
        never raises.
        """

    @abstractmethod
    def mark(self) -> int:
        """A name for all that was published until now, for `taken`."""

    @abstractmethod
    def taken(self, mark: int) -> bool:
        """Whether the pages and heads published before a mark are the publisher's worry no more: the bus carries
        them, or what makes them good, even if the publisher ends now. May be asked after `stop`.
        """

    @abstractmethod
    async def subscribe(self, logs: Iterable[str]) -> None:
        """Subscribes this node to channels; returns when confirmed. Subscribing twice is
        subscribing once.
        """

    @abstractmethod
    def unsubscribe(self, logs: Iterable[str]) -> None:
        """Ends subscriptions of this node."""
