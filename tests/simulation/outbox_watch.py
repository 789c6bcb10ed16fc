"""Watches the outboxes of sessions: I11, at every piece that is put in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tidings_server.delivery import session as session_module
from tidings_server.delivery.outbox import Outbox

from .violation import Violation

CONTROL_BYTES = 400
"""The most bytes of one control piece: a result with an error, a beacon, a notice."""
FRAME_COMMANDS = 12
"""The most commands that a simulated device puts into one frame."""


@contextmanager
def watched_outboxes(
    commands_in_flight: int, report: Callable[[Violation], None]
) -> Iterator[None]:
    """Makes every session watch its outbox: beyond its limit, or one large piece, it may hold the results of the
    commands that may be open, and those of one frame.
    """
    control = (commands_in_flight + FRAME_COMMANDS) * CONTROL_BYTES

    class WatchedOutbox(Outbox):
        """An outbox that checks its own size."""

        __slots__ = ("largest",)

        def put_deferred(self, piece: bytes) -> None:
            """See `Outbox`."""
            if not self.bytes:
                # An empty outbox takes one piece of any size.
                self.largest = len(piece)
            super().put_deferred(piece)
            bound = max(self._max_bytes, self.largest) + control
            if self.bytes > bound:
                report(
                    Violation("I11", f"{self.bytes} bytes wait in an outbox, at most {bound} may")
                )

    module = session_module
    module.Outbox = WatchedOutbox  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.Outbox = Outbox  # type: ignore[attr-defined]
