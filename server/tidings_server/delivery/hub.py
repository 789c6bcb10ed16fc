"""The hub: which sessions of this node are to get what. Publications of the bus go to the sessions
that have joined their log.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, KeysView
from functools import partial

import structlog

from ..bus.base import Bus, HeadPublished, NoticePublished, Publication
from ..codec.entries import decode_entries
from ..core.clock import Clock
from ..core.entries import MemberRemoved
from ..core.pages import Page, PageFlag
from ..core.state import SMALL_MEMBERS
from ..errors import DomainError, Reason
from ..storage.tail_cache import TailCache
from ..telemetry.counters import Counters
from ..telemetry.trail import Trail
from .session import Session

log = structlog.get_logger(__name__)

GATHER_S = 0.002
"""How long what goes to many sessions waits to be written together with what follows."""
_BEATS = 30


class Hub:
    """The registry of this node's sessions.

    `user_left` is told when the last session of a user has ended, `user_came` when the first one
    begins.
    """

    def __init__(
        self,
        bus: Bus,
        pages: TailCache,
        clock: Clock,
        rng: random.Random,
        beacon_interval_ms: int,
        trail: Trail,
        counters: Counters,
        *,
        user_came: Callable[[str], None],
        user_left: Callable[[str], None],
    ) -> None:
        self._bus = bus
        self._pages = pages
        self._clock = clock
        self._rng = rng
        self._interval_s = beacon_interval_ms / 1000
        self._trail = trail
        self._counters = counters
        self._user_came = user_came
        self._user_left = user_left
        # Sessions in the order of joining; dicts, since rooms of thousands join one by one.
        self._joined: dict[str, dict[Session, None]] = {}
        self._devices: dict[tuple[str, str], Session] = {}
        self._users: dict[str, dict[Session, None]] = {}
        # By their ids, which tell when they were made: a new one comes at the end, or nearly.
        self._by_id: dict[str, Session] = {}
        self._ids: list[str] = []
        self._deferred: list[Session] = []
        self._beats: list[dict[Session, None]] = [{} for _ in range(_BEATS)]
        self._beat_of: dict[Session, int] = {}
        self._next_beat = 0
        self._beating: asyncio.Task[None] | None = None
        self._draining = False
        # The subscriptions that are not confirmed yet.
        self._confirming: dict[str, asyncio.Task[None]] = {}
        bus.on_publication = self.on_publication
        bus.on_resync = self.on_resync

    def start(self) -> None:
        """Begins the heartbeats."""
        self._beating = asyncio.get_running_loop().create_task(self._beat())

    async def stop(self) -> None:
        """Ends the heartbeats, and what waits for the bus."""
        for confirming in dict.fromkeys(self._confirming.values()):
            confirming.cancel()
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait([self._beating])

    @property
    def draining(self) -> bool:
        """Whether no new sessions are taken."""
        return self._draining

    def drain(self) -> None:
        """Takes no new sessions from now on."""
        self._draining = True

    @property
    def sessions(self) -> list[Session]:
        """The open sessions."""
        return list(self._devices.values())

    def sessions_after(self, session_id: str, limit: int) -> list[Session]:
        """The first `limit` open sessions whose ids are greater, in order. No others are looked at."""
        at = bisect_right(self._ids, session_id)
        return [self._by_id[i] for i in self._ids[at : at + limit]]

    def joined(self, log: str) -> list[Session]:
        """The sessions that get what is published to a log."""
        return list(self._joined.get(log, ()))

    def has_joined(self, log: str, session: Session) -> bool:
        """Whether a session gets what is published to a log."""
        return session in self._joined.get(log, ())

    def sessions_of(self, user_id: str) -> list[Session]:
        """The sessions of a user's devices here."""
        return list(self._users.get(user_id, ()))

    @property
    def logs(self) -> KeysView[str]:
        """The logs that sessions here have joined."""
        return self._joined.keys()

    @property
    def users(self) -> int:
        """How many users have a session here."""
        return len(self._users)

    def is_online(self, user_id: str) -> bool:
        """Whether a device of the user has a session on this node."""
        return user_id in self._users

    def open(self, session: Session) -> None:
        """A device has said hello. An older session of it ends."""
        user, device = session.principal.user_id, session.principal.device_id
        older = self._devices.get((user, device))
        if older is not None:
            older.end(
                DomainError(Reason.SESSION_REPLACED, "The same device has opened a newer session."),
                reconnect=False,
            )
        self._devices[user, device] = session
        self._by_id[session.id] = session
        insort(self._ids, session.id)
        sessions = self._users.get(user)
        if sessions is None:
            sessions = self._users[user] = {}
            self._user_came(user)
        sessions[session] = None
        # Sessions are spread over the beats of an interval, so that each beat is a small one.
        beat = self._rng.randrange(_BEATS)
        self._beats[beat][session] = None
        self._beat_of[session] = beat

    def close(self, session: Session) -> None:
        """A session has ended. May be called twice."""
        user, device = session.principal.user_id, session.principal.device_id
        if self._devices.get((user, device)) is session:
            del self._devices[user, device]
        sessions = self._users.get(user)
        if sessions is not None and session in sessions:
            del sessions[session]
            if not sessions:
                del self._users[user]
                self._user_left(user)
        if self._by_id.pop(session.id, None) is not None:
            del self._ids[bisect_left(self._ids, session.id)]
        beat = self._beat_of.pop(session, None)
        if beat is not None:
            self._beats[beat].pop(session, None)
        for log in session.logs():
            self.leave(log, session)

    async def join(self, logs: Iterable[str], session: Session) -> None:
        """A session is to get what is published to these logs from now on. Returns when that is
        sure.
        """
        new: list[str] = []
        waits: dict[asyncio.Task[None], None] = {}
        for log in logs:
            joined = self._joined.get(log)
            if joined is None:
                self._joined[log] = {session: None}
                new.append(log)
            else:
                joined[session] = None
                # Another session has asked for it, and may be told just now that it is sure.
                if (confirming := self._confirming.get(log)) is not None:
                    waits[confirming] = None
        if new:
            # Not this session's: it may end while others wait for the same.
            confirming = asyncio.get_running_loop().create_task(self._subscribe(new))
            self._confirming.update(dict.fromkeys(new, confirming))
            waits[confirming] = None
        for confirming in waits:
            await asyncio.shield(confirming)

    async def _subscribe(self, logs: list[str]) -> None:
        try:
            # Whoever asked may have left again before this ran: nobody would unsubscribe.
            await self._bus.subscribe([log for log in logs if log in self._joined])
        finally:
            me = asyncio.current_task()
            for log in logs:
                if self._confirming.get(log) is me:
                    del self._confirming[log]

    def leave(self, log: str, session: Session) -> None:
        """A session gets no more of a log."""
        joined = self._joined.get(log)
        if joined is None or session not in joined:
            return
        del joined[session]
        if not joined:
            del self._joined[log]
            self._bus.unsubscribe([log])

    def on_publication(self, publication: Publication) -> None:
        """Hands a publication to the sessions that have joined its log."""
        joined = self._joined.get(publication.log)
        if not joined:
            return
        if isinstance(publication, NoticePublished):
            _hand(joined, lambda session: session.notice(publication))
            return
        if isinstance(publication, HeadPublished):
            _hand(joined, lambda session: session.head_moved(publication))
            return
        page = publication.page
        self._pages.add(publication.log, page)
        now_ms = self._clock.now_ms()
        self._trail.offered(now_ms, publication.log, page, len(joined))
        self._counters.publication_duration_seconds.observe(max(now_ms - page.stamp, 0) / 1000)
        if len(joined) > SMALL_MEMBERS:
            if not self._deferred:
                asyncio.get_running_loop().call_later(GATHER_S, self._flush_deferred)
            self._deferred += _hand(
                joined, lambda session: session.offer(publication, deferred=True)
            )
        else:
            _hand(joined, lambda session: session.offer(publication, deferred=False))
        if page.flags & PageFlag.REMOVAL:
            self._un_join(publication.log, page)

    def on_resync(self) -> None:
        """Publications may have been lost: every session looks at its heads again."""
        for session in self._devices.values():
            session.recheck()

    def _un_join(self, log: str, page: Page) -> None:
        removed = decode_entries(page.body)[-1]
        assert isinstance(removed.body, MemberRemoved)
        for session in list(self._users.get(removed.body.user_id, ())):
            session.removed(log, removed.seq)
            self.leave(log, session)

    def _flush_deferred(self) -> None:
        deferred, self._deferred = self._deferred, []
        for session in deferred:
            session.outbox.flush()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s / _BEATS)
            now_ms = self._clock.now_ms()
            _hand(list(self._beats[self._next_beat]), partial(_give_beat, now_ms))
            self._next_beat = (self._next_beat + 1) % _BEATS


def _give_beat(now_ms: int, session: Session) -> None:
    session.beat(now_ms)


def _hand(sessions: Iterable[Session], give: Callable[[Session], object]) -> list[Session]:
    """Gives something to each session, and returns those for which `give` was true. A fault in one is none of the
    others.
    """
    taken: list[Session] = []
    failed: list[Session] = []
    for session in sessions:
        try:
            if give(session):
                taken.append(session)
        except Exception:
            log.exception("session_failed", session=session.id)
            failed.append(session)
    for session in failed:
        session.fail()
    return taken
