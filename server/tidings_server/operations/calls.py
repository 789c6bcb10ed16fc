"""Unary calls: how many of one user are under way at once, so that nobody's take all memory and time.

The answer to a reading call may have two megabytes, and grpc holds it until the caller takes it.
"""

from __future__ import annotations

import asyncio

from ..errors import DomainError, Reason

READS_AT_ONCE = 16
"""Reading calls of a user that are carried out, or whose answers wait for the user."""


class _User:
    __slots__ = ("calls", "reads")

    def __init__(self) -> None:
        self.calls = 0
        self.reads = asyncio.Semaphore(READS_AT_ONCE)


class Calls:
    """The calls of each user: `most` at most, of which reading ones over `READS_AT_ONCE` wait."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._users: dict[str, _User] = {}

    async def enter(self, user_id: str, *, reads: bool) -> None:
        """Returns when a call may be carried out; `leave` ends it.

        Raises DomainError (TOO_MANY_IN_FLIGHT).
        """
        user = self._users.get(user_id)
        if user is None:
            user = self._users[user_id] = _User()
        if user.calls >= self._most:
            raise DomainError(
                Reason.TOO_MANY_IN_FLIGHT,
                "Too many calls are waiting for their answers.",
                retry_after_ms=100,
            )
        user.calls += 1
        if not reads:
            return
        try:
            await user.reads.acquire()
        except BaseException:
            self._forget(user_id, user)
            raise

    def leave(self, user_id: str, *, reads: bool) -> None:
        """A call is carried out, and its answer was taken, or nobody waits for it any more."""
        user = self._users[user_id]
        if reads:
            user.reads.release()
        self._forget(user_id, user)

    def _forget(self, user_id: str, user: _User) -> None:
        user.calls -= 1
        if not user.calls:
            del self._users[user_id]
