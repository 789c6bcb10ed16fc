"""The outbox: sends wait here until the server has them for good, in order, each under the one id. No I/O, no clock.

Every conversation is a lane. The sends of a lane are pipelined, and each names its predecessor that isn't acknowledged
yet, so that the server keeps their order whatever is refused, lost or sent again.
"""

from __future__ import annotations

import bisect
import enum
import heapq
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ._backoff import Backoff
from ._state import StoredMessage
from .errors import Code, TidingsError


class SendState(enum.Enum):
    """Where a message of the outbox is."""

    HELD = enum.auto()
    """Waiting for something about it to be durable here; those behind it in its conversation wait as well."""
    QUEUED = enum.auto()
    """To be sent."""
    IN_FLIGHT = enum.auto()
    """Sent on this connection, without a result yet."""
    FAILED = enum.auto()
    """Refused for good, until the application knows."""
    DONE = enum.auto()
    """Out of the outbox."""


@dataclass(slots=True, eq=False)
class Outgoing:
    """One message of the outbox.

    Attributes:
        message: The message as it is kept.
        state: Where it is.
        after: The predecessor named when it was last sent, or None.
        sent_before: Whether an attempt before the one in flight may have reached a server.
    """

    message: StoredMessage
    state: SendState
    after: Outgoing | None = None
    sent_before: bool = False

    def __lt__(self, other: Outgoing) -> bool:
        return self.message.position < other.message.position


@dataclass(slots=True, eq=False)
class _Lane:
    conversation_id: str
    items: list[Outgoing] = field(default_factory=list)
    """All that isn't acknowledged, in order."""
    queue: list[Outgoing] = field(default_factory=list)
    """A heap of those to be sent or being stored."""
    attempt: int = 0
    not_before: float = 0.0
    ready: bool = False

    def predecessor(self, item: Outgoing) -> Outgoing | None:
        index = bisect.bisect_left(self.items, item)
        return self.items[index - 1] if index > 0 else None

    def discard(self, item: Outgoing) -> None:
        index = bisect.bisect_left(self.items, item)
        if index < len(self.items) and self.items[index] is item:
            del self.items[index]


_RETRYABLE = frozenset(
    {
        Code.CANCELLED,
        Code.UNKNOWN,
        Code.DEADLINE_EXCEEDED,
        Code.RESOURCE_EXHAUSTED,
        Code.ABORTED,
        Code.INTERNAL,
        Code.UNAVAILABLE,
        Code.UNAUTHENTICATED,
    }
)
_RETRYABLE_REASONS = frozenset({"PREDECESSOR_MISSING", "HELLO_EXPECTED", "OUTCOME_UNKNOWN"})


def is_retryable(error: TidingsError) -> bool:
    """Whether the same message may be taken later."""
    if error.reason == "TOO_LARGE":
        return False
    return error.code in _RETRYABLE or error.reason in _RETRYABLE_REASONS


class Outbox:
    """All messages that the server doesn't have for good. Moments are seconds of the loop's clock."""

    def __init__(self, backoff: Backoff, rng: random.Random) -> None:
        self._backoff = backoff
        self._rng = rng
        self._items: dict[str, Outgoing] = {}
        self._lanes: dict[str, _Lane] = {}
        self._ready: deque[_Lane] = deque()
        self._waiting: dict[_Lane, None] = {}
        self._next_position = 1
        self.in_flight = 0

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._items

    def __iter__(self) -> Iterator[Outgoing]:
        return iter(sorted(self._items.values()))

    def get(self, message_id: str) -> Outgoing | None:
        """The message of an id, or None."""
        return self._items.get(message_id)

    def next_position(self) -> int:
        """The place of a new message: after all others."""
        position = self._next_position
        self._next_position += 1
        return position

    def restore(self, message: StoredMessage) -> Outgoing:
        """Take a message that is durable already."""
        self._next_position = max(self._next_position, message.position + 1)
        if message.failure is not None:
            item = self._items[message.message_id] = Outgoing(message, SendState.FAILED)
        else:
            item = self.add(message)
            item.sent_before = message.sealed
            self.stored(item)
        return item

    def add(self, message: StoredMessage) -> Outgoing:
        """Take a message that is being made durable; those behind it in its lane wait for it."""
        item = Outgoing(message, SendState.HELD)
        self._items[message.message_id] = item
        lane = self._lanes.get(message.conversation_id)
        if lane is None:
            lane = self._lanes[message.conversation_id] = _Lane(message.conversation_id)
        bisect.insort(lane.items, item)
        heapq.heappush(lane.queue, item)
        return item

    def hold(self, item: Outgoing) -> None:
        """Something about a message is to be made durable first. A result that is under way doesn't count any more."""
        if item.state is SendState.IN_FLIGHT:
            self._requeue(self._lanes[item.message.conversation_id], item)
        item.state = SendState.HELD

    def stored(self, item: Outgoing) -> None:
        """It is durable, and the message may be sent."""
        if item.state is SendState.HELD:
            item.state = SendState.QUEUED
            self._make_ready(self._lanes[item.message.conversation_id])

    def drop(self, item: Outgoing) -> None:
        """A message is out of the store, or couldn't be put there: those behind it go on without it."""
        lane = self._settle(item)
        self._items.pop(item.message.message_id, None)
        if lane is not None:
            self._make_ready(lane)

    def fail(self, item: Outgoing) -> None:
        """It is durable that a message was refused for good: those behind it go on without it."""
        lane = self._settle(item)
        item.state = SendState.FAILED
        if lane is not None:
            self._make_ready(lane)

    def unsealed(self) -> list[Outgoing]:
        """The messages that were never sent and whose id isn't final."""
        return [item for item in self if not item.message.sealed and item.state is SendState.QUEUED]

    def seal(self, item: Outgoing, message_id: str) -> StoredMessage:
        """Make a message's id final, perhaps another one, before it is first sent; it is to be stored like this."""
        old = item.message
        item.message = replace(old, message_id=message_id, sealed=True)
        if message_id != old.message_id:
            del self._items[old.message_id]
            self._items[message_id] = item
        return item.message

    def next_send(self, now: float, room: int) -> Outgoing | None:
        """The next message to be sent, in flight from now on, or None; `room` is how many may be in flight."""
        while self._ready and self.in_flight < room:
            lane = self._ready[0]
            item = self._head(lane)
            if item is None or lane.not_before > now:
                self._ready.popleft()
                lane.ready = False
                if item is not None:
                    self._waiting[lane] = None
                continue
            heapq.heappop(lane.queue)
            item.state = SendState.IN_FLIGHT
            item.after = lane.predecessor(item)
            self.in_flight += 1
            # The other lanes get their turn: a long backlog in one conversation doesn't hold up the rest.
            self._ready.rotate(-1)
            return item
        return None

    def accepted(self, item: Outgoing) -> None:
        """The server has a message for good."""
        lane = self._settle(item)
        self._items.pop(item.message.message_id, None)
        if lane is not None:
            lane.attempt = 0
            lane.not_before = 0.0
            self._make_ready(lane)

    def may_be_taken_later(self, item: Outgoing, error: TidingsError) -> bool:
        """Whether a message that was refused may be taken when it is sent again. An id that lies ahead of one server's
        clock may not lie ahead of another's, where an attempt before may be committed yet: time decides.
        """
        return is_retryable(error) or (error.reason == "ID_AHEAD" and item.sent_before)

    def retry(self, item: Outgoing, error: TidingsError, now: float) -> None:
        """The server didn't take a message that was in flight; it is sent again, after a while."""
        lane = self._lanes[item.message.conversation_id]
        self._requeue(lane, item)
        missing = error.reason == "PREDECESSOR_MISSING"
        after = item.after
        if missing and (after is None or after.state is not SendState.IN_FLIGHT):
            # The predecessor is to be sent first, or is out of the way: nothing to wait for.
            self._make_ready(lane)
        elif lane.not_before <= now:
            # One failure tells about the whole lane: the others of the same flight don't make it wait longer.
            delay = self._backoff.delay(lane.attempt, self._rng, error.retry_after or 0.0)
            lane.attempt += 1
            lane.not_before = now + delay
            self._waiting[lane] = None
        else:
            lane.not_before = max(lane.not_before, now + (error.retry_after or 0.0))
            self._waiting[lane] = None

    def reconnect(self) -> None:
        """The connection is gone: what was in flight is to be sent again, at once and in order."""
        for lane in self._lanes.values():
            for item in lane.items:
                if item.state is SendState.IN_FLIGHT:
                    self._requeue(lane, item)
            lane.not_before = 0.0
            self._make_ready(lane)

    def wake(self, now: float) -> None:
        """Let the lanes send that have waited long enough."""
        for lane in [lane for lane in self._waiting if lane.not_before <= now]:
            self._make_ready(lane)

    def wake_at(self) -> float | None:
        """When the next lane has waited long enough, or None."""
        return min((lane.not_before for lane in self._waiting), default=None)

    def _head(self, lane: _Lane) -> Outgoing | None:
        while lane.queue:
            item = lane.queue[0]
            if item.state is SendState.QUEUED:
                return item
            if item.state is SendState.HELD:
                return None
            # Settled while it waited, by its entry on the stream or by the application.
            heapq.heappop(lane.queue)
        return None

    def _requeue(self, lane: _Lane, item: Outgoing) -> None:
        item.state = SendState.QUEUED
        item.sent_before = True
        self.in_flight -= 1
        heapq.heappush(lane.queue, item)

    def _settle(self, item: Outgoing) -> _Lane | None:
        """Take a message out of its lane."""
        if item.state is SendState.IN_FLIGHT:
            self.in_flight -= 1
        lane = self._lanes.get(item.message.conversation_id)
        if lane is None:
            item.state = SendState.DONE
            return None
        lane.discard(item)
        item.state = SendState.DONE
        if not lane.items:
            lane.queue.clear()
            self._waiting.pop(lane, None)
            del self._lanes[lane.conversation_id]
        return lane

    def _make_ready(self, lane: _Lane) -> None:
        self._waiting.pop(lane, None)
        if not lane.ready and lane.queue:
            lane.ready = True
            self._ready.append(lane)
