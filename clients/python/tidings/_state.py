"""What a client keeps over restarts: the port and its contract, and a store in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from .errors import StateError


@dataclass(frozen=True, slots=True)
class StoredSession:
    """Whose state it is, and of which store.

    Attributes:
        user_id: The user, empty before the first session.
        device_id: The device, empty before the first session.
        incarnation: The incarnation of the server's store that the cursors belong to, empty before the first session.
        announced: Whether the application knows of that incarnation. While it doesn't, the cursors are the positions
            that it is to be told of.
    """

    user_id: str = ""
    device_id: str = ""
    incarnation: str = ""
    announced: bool = True


@dataclass(frozen=True, slots=True)
class StoredCursor:
    """How far one log was applied.

    Attributes:
        log: A conversation id, or "inbox:" followed by the user id.
        seq: The newest position applied; 0 to keep nothing of the log.
    """

    log: str
    seq: int


@dataclass(frozen=True, slots=True)
class StoredFailure:
    """Why a message was refused for good; see TidingsError."""

    code: int
    reason: str
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message in the outbox.

    Attributes:
        position: Its place in the order of sending; larger is later.
        conversation_id: The conversation.
        message_id: The UUIDv7 that names it.
        content: A serialised tidings.v1.MessageContent. It is sent as it is, always the same.
        time_ms: When it was queued, in milliseconds since the Unix epoch.
        sealed: Whether its id is final: it may have been sent, and is never made anew.
        failure: Why it was refused for good, until the application knows of it; None while it is to be sent.
    """

    position: int
    conversation_id: str
    message_id: str
    content: bytes
    time_ms: int
    sealed: bool
    failure: StoredFailure | None = None


@dataclass(frozen=True, slots=True)
class StoredState:
    """All that a store holds."""

    session: StoredSession = StoredSession()
    cursors: tuple[StoredCursor, ...] = ()
    messages: tuple[StoredMessage, ...] = ()


class StateStore(Protocol):
    """Where a client keeps its outbox and its cursors.

    Each call is atomic: it happens as a whole or not at all, and calls take effect in the order in which they were
    made, also when several are awaited at once. Every failure is raised as StateError, and then nothing of the call was
    done. One client uses a store at a time; `open` refuses a second one with StateError, also from another process
    where the store can be reached from there.

    "Durable" means that it survives the end of the process at any moment, and the loss of power. What is only "kept"
    survives the end of the process; after a loss of power the newest of it may be gone as if it had not been called.
    Messages are then offered to the server again, which knows their ids, and entries to the application again.
    """

    async def open(self) -> StoredState:
        """Get hold of the store and read everything in it. Called first, and again after `close`."""
        ...

    async def add(self, messages: Collection[StoredMessage]) -> None:
        """Add messages to the outbox. Durable when it returns: the network hears of a message only afterwards."""
        ...

    async def update(self, messages: Mapping[str, StoredMessage]) -> None:
        """Replace messages, named by the id that they had, passing over those that aren't there. Durable."""
        ...

    async def remove(self, message_ids: Collection[str]) -> None:
        """Remove messages from the outbox, passing over ids that aren't there. Kept."""
        ...

    async def save_cursors(self, cursors: Collection[StoredCursor]) -> None:
        """Set the cursors of some logs, upwards or downwards; a cursor of 0 is forgotten. Kept."""
        ...

    async def save_session(
        self, session: StoredSession, cursors: Collection[StoredCursor] | None = None
    ) -> None:
        """Set the session and, if cursors are given, put them in the place of all that there are. Durable."""
        ...

    async def close(self) -> None:
        """Let go of the store. Calls that were made before have taken effect."""
        ...


@dataclass(slots=True)
class MemoryStateStore:
    """A state store in memory: it survives reconnects and the closing of a client, but not the process."""

    session: StoredSession = field(default_factory=StoredSession)
    cursors: dict[str, StoredCursor] = field(default_factory=dict)
    messages: dict[str, StoredMessage] = field(default_factory=dict)
    _open: bool = field(default=False, repr=False)

    async def open(self) -> StoredState:
        """See StateStore."""
        if self._open:
            raise StateError("the store is in use by another client")
        self._open = True
        return self.snapshot()

    def snapshot(self) -> StoredState:
        """What it holds now."""
        messages = sorted(self.messages.values(), key=lambda message: message.position)
        return StoredState(self.session, tuple(self.cursors.values()), tuple(messages))

    async def add(self, messages: Collection[StoredMessage]) -> None:
        """See StateStore."""
        for message in messages:
            self.messages[message.message_id] = message

    async def update(self, messages: Mapping[str, StoredMessage]) -> None:
        """See StateStore."""
        for old_id, message in messages.items():
            if self.messages.pop(old_id, None) is not None:
                self.messages[message.message_id] = message

    async def remove(self, message_ids: Collection[str]) -> None:
        """See StateStore."""
        for message_id in message_ids:
            self.messages.pop(message_id, None)

    async def save_cursors(self, cursors: Collection[StoredCursor]) -> None:
        """See StateStore."""
        for cursor in cursors:
            if cursor.seq:
                self.cursors[cursor.log] = cursor
            else:
                self.cursors.pop(cursor.log, None)

    async def save_session(
        self, session: StoredSession, cursors: Collection[StoredCursor] | None = None
    ) -> None:
        """See StateStore."""
        self.session = session
        if cursors is not None:
            self.cursors = {cursor.log: cursor for cursor in cursors}

    async def close(self) -> None:
        """See StateStore."""
        self._open = False
