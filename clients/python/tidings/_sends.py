"""Own messages: queued, made durable, sealed, sent, refused, and what is told of that. No I/O, no clock."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, TypeAlias

from . import _convert, events
from ._ids import IdMaker, ServerClock, id_time_ms
from ._outbox import Outbox, Outgoing, SendState
from ._queue import EventQueue
from ._state import StoredFailure, StoredMessage
from ._unsaved import Unsaved
from .errors import Code, TidingsError, error_for
from .v1 import entry_pb2, message_pb2

_MAX_AHEAD_MS: Final = 5_000
"""An id further ahead of the server's time is made anew before its first sending; of ids over 10 s ahead the server
takes few."""
_DISCARDED: Final = "DISCARDED"

Outcome: TypeAlias = events.MessageSent | events.MessageFailed | events.MessagePending
"""What those who hold a handle of a message want to know."""


class Sends:
    """The messages of the outbox, with what is told and kept of them."""

    def __init__(
        self,
        outbox: Outbox,
        ids: IdMaker,
        clock: ServerClock,
        queue: EventQueue,
        unsaved: Unsaved,
    ) -> None:
        self.outbox = outbox
        self._ids = ids
        self._clock = clock
        self._events = queue
        self._unsaved = unsaved
        self.outcomes: list[Outcome] = []
        """What happened, for those who wait for one message; the shell takes it."""

    def restore(self, message: StoredMessage) -> None:
        """Take a message that an earlier process left."""
        failure = message.failure
        if failure is not None and failure.reason == _DISCARDED:
            self._unsaved.remove(message.message_id)
            return
        self.outbox.restore(message)
        # The application may not have heard of it, or of the id that it has now, before its process ended.
        self._events.put(self._pending_event(message, restored=True))
        if failure is not None:
            self._failed(message)

    def enqueue(self, conversation_id: str, content: bytes, now: float) -> Outgoing:
        """Make a message, to be made durable by the caller and then given to `stored`, or else dropped."""
        time_ms = self._clock.now_ms(now)
        message = StoredMessage(
            position=self.outbox.next_position(),
            conversation_id=conversation_id,
            message_id=self._ids.make(time_ms),
            content=content,
            time_ms=time_ms,
            # An id made by the server's time needs no second look.
            sealed=self._clock.known,
        )
        return self.outbox.add(message)

    def seal_all(self, now: float) -> None:
        """The server has told its time: the ids of what was never sent are made final."""
        for item in self.outbox.unsealed():
            self._seal(item, now)

    def updated(self, message: StoredMessage) -> None:
        """A message is stored as was asked for: it goes on, or has failed."""
        item = self.outbox.get(message.message_id)
        if item is None or item.state is not SendState.HELD:
            return
        if message.failure is not None:
            self.outbox.fail(item)
            self._failed(item.message)
        else:
            self.outbox.stored(item)

    def on_result(
        self,
        item: Outgoing,
        sent: message_pb2.SendMessageResponse,
        error: TidingsError | None,
        now: float,
    ) -> None:
        """The server has answered for a message."""
        if item.state is not SendState.IN_FLIGHT:
            return
        if error is None:
            self._sent(item, sent.seq, _convert.ms_of(sent.create_time))
        elif self.outbox.may_be_taken_later(item, error):
            self.outbox.retry(item, error, now)
        else:
            self._refused(item, error)

    def stored(self, item: Outgoing, now: float) -> None:
        """A message is durable."""
        if item.state is not SendState.HELD:
            return
        self._events.put(self._pending_event(item.message))
        if item.message.sealed or not self._clock.known:
            self.outbox.stored(item)
        else:
            self._seal(item, now)

    def discarding(self, item: Outgoing) -> StoredMessage:
        """A message is to be taken out: hold it until what is returned is stored, then call `discarded`."""
        self.outbox.hold(item)
        failure = StoredFailure(Code.CANCELLED, _DISCARDED, "", "taken out of the outbox")
        return replace(item.message, failure=failure)

    def discarded(self, item: Outgoing) -> None:
        """It is durable that a message isn't to be sent."""
        self.outbox.drop(item)
        self._unsaved.remove(item.message.message_id)

    def forget_failed(self, message_id: str) -> None:
        """The application knows that a message has failed."""
        item = self.outbox.get(message_id)
        if item is not None and item.state is SendState.FAILED:
            self.outbox.drop(item)
            self._unsaved.remove(message_id)

    def _seal(self, item: Outgoing, now: float) -> None:
        """Make an id final that was made before the server had told its time."""
        old = item.message
        message_id = old.message_id
        server_ms = self._clock.now_ms(now)
        if id_time_ms(message_id) > server_ms + _MAX_AHEAD_MS:
            message_id = self._ids.make(server_ms)
        self.outbox.hold(item)
        message = self.outbox.seal(item, message_id)
        self._unsaved.update(old.message_id, message)
        if message_id != old.message_id:
            pending = self._pending_event(message, replaces=old.message_id)
            self._events.put(pending)
            self.outcomes.append(pending)

    def _pending_event(
        self, message: StoredMessage, *, restored: bool = False, replaces: str | None = None
    ) -> events.MessagePending:
        content = message_pb2.MessageContent.FromString(message.content)
        return events.MessagePending(
            conversation_id=message.conversation_id,
            message_id=message.message_id,
            text=content.text,
            reply_to=content.reply_to_message_id or None,
            time=_convert.time_of_ms(message.time_ms),
            restored=restored,
            replaces=replaces,
        )

    def _sent(self, item: Outgoing, seq: int, time_ms: int) -> None:
        self.outbox.accepted(item)
        message = item.message
        self._unsaved.remove(message.message_id)
        sent = events.MessageSent(
            conversation_id=message.conversation_id,
            message_id=message.message_id,
            seq=seq,
            time=_convert.time_of_ms(time_ms),
        )
        self._events.put(sent)
        self.outcomes.append(sent)

    def _refused(self, item: Outgoing, error: TidingsError) -> None:
        """A message is refused for good. Those behind it wait until that is durable, or a crash could bring it back."""
        self.outbox.hold(item)
        item.message = replace(
            item.message,
            failure=StoredFailure(error.code, error.reason, error.field, error.message),
        )
        self._unsaved.update(item.message.message_id, item.message)

    def _failed(self, message: StoredMessage) -> None:
        failure = message.failure
        assert failure is not None
        content = message_pb2.MessageContent.FromString(message.content)
        failed = events.MessageFailed(
            conversation_id=message.conversation_id,
            message_id=message.message_id,
            text=content.text,
            reply_to=content.reply_to_message_id or None,
            error=error_for(
                Code(failure.code), failure.message, reason=failure.reason, field=failure.field
            ),
        )
        self._events.put(failed)
        self.outcomes.append(failed)

    def note_own(self, entry: entry_pb2.Entry) -> None:
        """An own message in its log is the best proof that it was taken."""
        item = self.outbox.get(entry.id)
        if item is None or item.message.conversation_id != entry.conversation_id:
            return
        if entry.erased or entry.message == message_pb2.MessageContent.FromString(
            item.message.content
        ):
            self._sent(item, entry.seq, _convert.ms_of(entry.create_time))
