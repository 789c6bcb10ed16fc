"""The trail: what this node did lately with pages and sessions, for whoever asks why a message has not arrived.

A few bounded rings in memory, which forget the oldest. A page costs one step when it is committed here and one when it
is handed to sessions, however many messages and sessions there are; a session costs one when it opens, ends, or falls
behind. Nothing is written about what people wrote.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final, NamedTuple

from ..core.clock import Clock
from ..core.pages import Page

PAGES: Final = 8_192
SESSION_EVENTS: Final = 4_096
REFUSALS: Final = 2_048


class SessionDid(Enum):
    """What happened to a session."""

    OPENED = "opened"
    ENDED = "ended"
    GAP_SEEN = "fell behind: a page did not follow what was sent"
    WINDOW_FULL = "fell behind: the device has too much to acknowledge"
    OUTBOX_FULL = "fell behind: the device does not read"
    MEMBERSHIP_UNSURE = "fell behind: whether the user is a member again was being looked up"
    HEAD_MOVED = "fell behind: the head moved by pages that were not pushed"
    LEVEL = "was brought level"


class PageTrace(NamedTuple):
    """A page was handed to the bus by the commit here, or to this node's `sessions`. `time_ms` is this node's clock."""

    time_ms: int
    log: str
    first_seq: int
    entries: int
    sessions: int = 0


class SessionTrace(NamedTuple):
    """Something happened to a session; `log` is empty where it concerns all. `detail` is a reason's name, or empty."""

    time_ms: int
    did: SessionDid
    session_id: str
    user_id: str
    device_id: str
    log: str
    detail: str


class RefusalTrace(NamedTuple):
    """A send was refused here."""

    time_ms: int
    log: str
    user_id: str
    message_id: str
    reason: str


class Trail:
    """The rings of one node. All methods are for the event loop."""

    __slots__ = ("_committed", "_now_ms", "_offered", "_refusals", "_sessions", "_since_ms")

    def __init__(
        self,
        clock: Clock,
        *,
        pages: int = PAGES,
        sessions: int = SESSION_EVENTS,
        refusals: int = REFUSALS,
    ) -> None:
        self._now_ms = clock.now_ms
        self._since_ms = clock.now_ms()
        # Plain tuples: a NamedTuple costs four times as much to make, and most are never looked at.
        self._committed: deque[tuple[int, str, int, int]] = deque(maxlen=pages)
        self._offered: deque[tuple[int, str, int, int, int]] = deque(maxlen=pages)
        self._sessions: deque[SessionTrace] = deque(maxlen=sessions)
        self._refusals: deque[RefusalTrace] = deque(maxlen=refusals)

    # The hot path

    def committed(self, log: str, page: Page) -> None:
        """A page was committed here and handed to the bus."""
        self._committed.append((self._now_ms(), log, page.first_seq, page.count))

    def offered(self, now_ms: int, log: str, page: Page, sessions: int) -> None:
        """A page came from the bus and is handed to so many sessions."""
        self._offered.append((now_ms, log, page.first_seq, page.count, sessions))

    # Off the hot path

    def session(
        self,
        did: SessionDid,
        session_id: str,
        user_id: str,
        device_id: str,
        log: str = "",
        detail: str = "",
    ) -> None:
        """Something happened to a session."""
        self._sessions.append(
            SessionTrace(self._now_ms(), did, session_id, user_id, device_id, log, detail)
        )

    def refused(self, log: str, user_id: str, message_id: str, reason: str) -> None:
        """A send was refused."""
        self._refusals.append(RefusalTrace(self._now_ms(), log, user_id, message_id, reason))

    # Questions. They look at whole rings, which takes a millisecond.

    def commit_of(self, log: str, seq: int) -> PageTrace | None:
        """When a position was committed here."""
        for time_ms, name, first, count in reversed(self._committed):
            if name == log and first <= seq < first + count:
                return PageTrace(time_ms, name, first, count)
        return None

    def offer_of(self, log: str, seq: int) -> PageTrace | None:
        """When a position was handed to this node's sessions the last time."""
        for trace in reversed(self._offered):
            if trace[1] == log and trace[2] <= seq < trace[2] + trace[3]:
                return PageTrace(*trace)
        return None

    def sessions_of(self, user_id: str, log: str) -> list[SessionTrace]:
        """What happened to the sessions of a user, as far as it concerns a log, the oldest first."""
        return [s for s in self._sessions if s.user_id == user_id and s.log in ("", log)]

    def refusals_of(self, log: str, message_id: str) -> list[RefusalTrace]:
        """Refusals of a message, the oldest first."""
        return [r for r in self._refusals if r.message_id == message_id and r.log == log]

    @property
    def commits_since_ms(self) -> int:
        """From when on every commit here is still known."""
        return self._oldest(self._committed)

    @property
    def offers_since_ms(self) -> int:
        """From when on every page that came from the bus is still known."""
        return self._oldest(self._offered)

    @property
    def offers_forgotten(self) -> bool:
        """Whether pages that came from the bus are forgotten."""
        return len(self._offered) == self._offered.maxlen

    @property
    def sessions_since_ms(self) -> int:
        """From when on everything that happened to sessions here is still known."""
        return self._oldest(self._sessions)

    @property
    def refusals_since_ms(self) -> int:
        """From when on every refusal here is still known."""
        return self._oldest(self._refusals)

    def _oldest(
        self,
        ring: (
            deque[tuple[int, str, int, int]]
            | deque[tuple[int, str, int, int, int]]
            | deque[SessionTrace]
            | deque[RefusalTrace]
        ),
    ) -> int:
        return ring[0][0] if len(ring) == ring.maxlen else self._since_ms
