"""The events that wait for the application, bounded, whoever does or doesn't take them. No I/O, no clock."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Final, TypeAlias

from . import _convert, events
from ._logs import Log
from .v1 import entry_pb2, message_pb2

_KEPT: Final = (tuple, events.IncarnationChanged, events.PositionLost, events.MessageFailed)
"""What is never dropped for want of room."""


class _Receipt:
    """A receipt that waits; a newer one of the same member takes its place."""

    __slots__ = ("update",)

    def __init__(self, update: events.ReceiptUpdate) -> None:
        self.update = update


_InLog: TypeAlias = entry_pb2.Entry | message_pb2.MessageState | events.Gap | events.Skipped
_Queued: TypeAlias = tuple[Log, _InLog] | events.Event | _Receipt
"""What stands in a log, or comes again with it, is with its log, and is converted when it is handed on."""


class EventQueue:
    """Events in the order in which they are to be applied.

    What stands in logs is bounded by the server's window. Receipts are merged. Of the rest the oldest is dropped where
    nobody takes it.
    """

    def __init__(self, max_events: int) -> None:
        self._max_events = max_events
        self._items: deque[_Queued] = deque()
        self._receipts: dict[tuple[str, str], _Receipt] = {}

    def __len__(self) -> int:
        return len(self._items)

    def put(self, event: events.Event) -> None:
        """Queue an event that stands in no log."""
        if len(self._items) >= self._max_events:
            self._make_room()
        self._items.append(event)

    def put_entry(self, log: Log, item: _InLog) -> None:
        """Queue what stands in a log, or comes again with what follows it there."""
        self._items.append((log, item))

    def put_receipt(self, update: events.ReceiptUpdate) -> None:
        """Queue a receipt, or raise the marks of one that waits."""
        key = (update.conversation_id, update.user_id)
        waiting = self._receipts.get(key)
        if waiting is None:
            self._receipts[key] = waiting = _Receipt(update)
            self._items.append(waiting)
        else:
            waiting.update = replace(
                update,
                delivered_seq=max(update.delivered_seq, waiting.update.delivered_seq),
                read_seq=max(update.read_seq, waiting.update.read_seq),
            )

    def take(self, user_id: str) -> events.Event | None:
        """The next event for the application of a user, handed on from now on, or None."""
        if not self._items:
            return None
        item = self._items.popleft()
        if isinstance(item, tuple):
            log, content = item
            if isinstance(content, message_pb2.MessageState):
                return _convert.state_of(content)
            if isinstance(content, (events.Gap, events.Skipped)):
                log.hand(content.to_seq)
                return content
            log.hand(content.seq)
            return _convert.entry_of(content, user_id)
        if isinstance(item, _Receipt):
            self._forget(item)
            return item.update
        return item

    def drop_logs(self) -> None:
        """Drop what stands in logs: it will come again."""
        self._items = deque(item for item in self._items if not isinstance(item, tuple))

    def drop_log(self, log: Log) -> None:
        """Drop what stands in one log."""
        self._items = deque(
            item for item in self._items if not isinstance(item, tuple) or item[0] is not log
        )

    def _make_room(self) -> None:
        """Half of what stands in no log goes, the oldest first."""
        kept: deque[_Queued] = deque()
        spare = len(self._items) // 2
        for item in self._items:
            if spare == 0 or isinstance(item, _KEPT):
                kept.append(item)
                continue
            spare -= 1
            if isinstance(item, _Receipt):
                self._forget(item)
        self._items = kept

    def _forget(self, receipt: _Receipt) -> None:
        del self._receipts[receipt.update.conversation_id, receipt.update.user_id]
