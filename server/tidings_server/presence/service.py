"""Presence of users: online while a session is open on any node, and a grace period longer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import structlog

from ..core.clock import Clock
from ..core.commands import (
    GetPresence,
    PresenceGot,
    PresenceView,
    SetStatus,
    StatusSet,
)
from ..core.ids import direct_conversation_id
from ..core.principal import Principal
from ..storage.base import PresenceRow, Store, StoreUnavailable
from .base import Leases

log = structlog.get_logger(__name__)

GRACE_S = 10.0
_RETRY_S = 1.0
_RETRY_AT_MOST_S = 30.0
_SHARED_LOOKED_AT = 200


class Presence:
    """Handles the commands about presence, and is told by the hub who comes and goes."""

    def __init__(self, store: Store, clock: Clock, leases: Leases) -> None:
        self._store = store
        self._clock = clock
        self._leases = leases
        self._leaving: dict[str, asyncio.TimerHandle] = {}
        # When those who have left were last seen, in ms, as far as it isn't written yet.
        self._seen: dict[str, int] = {}
        self._writing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        leases.left_behind = self._left_behind

    def user_came(self, user_id: str) -> None:
        """The first session of a user on this node has begun."""
        timer = self._leaving.pop(user_id, None)
        if timer is not None:
            timer.cancel()
        self._leases.came(user_id)

    def user_left(self, user_id: str) -> None:
        """The last session of a user on this node has ended: they stay online for the grace period."""
        seen = self._clock.now_ms()
        loop = asyncio.get_running_loop()
        self._leaving[user_id] = loop.call_later(GRACE_S, self._gone, user_id, seen)

    async def get(self, caller: Principal, command: GetPresence) -> PresenceGot:
        """Gets the presence of users with whom the caller shares a conversation."""
        mine: set[str] | None = None
        shown: list[str] = []
        for user in command.user_ids:
            if user != caller.user_id:
                if mine is None:
                    mine = await self._current(caller.user_id)
                if not await self._shares(caller.user_id, mine, user):
                    continue
            shown.append(user)
        rows = await self._store.presence(shown)
        online = await self._leases.online(shown)
        return PresenceGot(tuple(_view(u, rows.get(u), online=u in online) for u in shown))

    async def set_status(self, caller: Principal, command: SetStatus) -> StatusSet:
        """Sets the caller's status."""
        user = caller.user_id
        before = (await self._store.presence([user])).get(user, PresenceRow(user))
        row = PresenceRow(
            user,
            # The newest wins, also within a millisecond, and when the clock went back.
            status_ms=max(self._clock.now_ms(), before.status_ms + 1),
            availability=command.availability,
            status_text=command.status_text,
        )
        await self._store.put_presence([row])
        rows = await self._store.presence([user])
        online = await self._leases.online([user])
        return StatusSet(_view(user, rows.get(user), online=user in online))

    async def close(self) -> None:
        """Notes when those connected were last seen: now. What the store refuses then is lost."""
        for user, timer in list(self._leaving.items()):
            timer.cancel()
            self._gone(user, self._clock.now_ms())
        self._closing.set()
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def _current(self, user: str) -> set[str]:
        """The conversations that a user is a member of."""
        logs = await self._store.user_logs(user)
        rows = await self._store.memberships_of(user, logs)
        return {log for log, row in rows.items() if row.current}

    async def _shares(self, caller: str, mine: set[str], user: str) -> bool:
        if direct_conversation_id(caller, user) in mine:
            return True
        both = [log for log in await self._store.user_logs(user) if log in mine]
        rows = await self._store.memberships_of(user, both[:_SHARED_LOOKED_AT])
        return any(row.current for row in rows.values())

    async def _left_behind(self, users: Sequence[str], ago_s: float) -> None:
        """The node that users were connected to is dead. Who is connected elsewhere is seen later still."""
        seen = self._clock.now_ms() - int(ago_s * 1000)
        await self._store.put_presence([PresenceRow(user, last_seen_ms=seen) for user in users])

    def _gone(self, user: str, seen_ms: int) -> None:
        self._leaving.pop(user, None)
        self._leases.left(user)
        self._seen[user] = max(seen_ms, self._seen.get(user, 0))
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_seen())

    async def _write_seen(self) -> None:
        delay = _RETRY_S
        try:
            while self._seen:
                seen, self._seen = self._seen, {}
                rows = [PresenceRow(user, last_seen_ms=at_ms) for user, at_ms in seen.items()]
                try:
                    await self._store.put_presence(rows)
                except StoreUnavailable as problem:
                    log.warning("last_seen_not_written", users=len(seen), cause=str(problem))
                    if self._closing.is_set():
                        return
                    # Whoever has left once more since is seen later.
                    self._seen = seen | self._seen
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._closing.wait(), delay)
                    delay = min(2 * delay, _RETRY_AT_MOST_S)
        finally:
            self._writing = None


def _view(user: str, row: PresenceRow | None, *, online: bool) -> PresenceView:
    row = row or PresenceRow(user)
    return PresenceView(
        user,
        online,
        0 if online else row.last_seen_ms,
        row.availability,
        row.status_text,
    )
