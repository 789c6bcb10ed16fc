"""What the core has to keep over restarts and hasn't saved yet."""

from __future__ import annotations

from dataclasses import dataclass, field

from ._logs import Log
from ._state import StoredCursor, StoredMessage, StoredSession


@dataclass(slots=True)
class Batch:
    """What is to be saved, in this order, and then given to `saved`."""

    updated: dict[str, StoredMessage] = field(default_factory=dict)
    session: StoredSession | None = None
    all_cursors: list[StoredCursor] | None = None
    cursors: list[tuple[Log, StoredCursor]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    gate: int = 0

    def __bool__(self) -> bool:
        return bool(self.updated or self.session is not None or self.cursors or self.removed)


class Unsaved:
    """Gathers what is to be saved until it is taken.

    Attributes:
        urgent: Whether something waits for it.
    """

    def __init__(self) -> None:
        self._batch = Batch()
        self.urgent = False

    def __bool__(self) -> bool:
        return bool(self._batch)

    def take(self) -> Batch:
        """What there is."""
        batch, self._batch = self._batch, Batch()
        self.urgent = False
        return batch

    def update(self, old_id: str, message: StoredMessage) -> None:
        """A message waits until it is stored like this."""
        self._batch.updated[old_id] = message
        self.urgent = True

    def remove(self, message_id: str) -> None:
        """A message is no longer needed."""
        self._batch.removed.append(message_id)

    def session(
        self, session: StoredSession, all_cursors: list[StoredCursor] | None = None
    ) -> None:
        """The session is to be set and, if given, the cursors are to replace all others."""
        self._batch.session = session
        if all_cursors is not None:
            self._batch.all_cursors = all_cursors
        self.urgent = True
