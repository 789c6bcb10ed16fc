"""Reading calls: how many of one user are carried out at once, so that nobody's take all memory
and time.

The answer to a call may have two megabytes, and grpc holds it until the caller takes it.
"""

from __future__ import annotations

import asyncio

from ..errors import DomainError, Reason

AT_ONCE = 16
"""Reading calls of a user that are carried out, or whose answers wait for the user."""


class _User:
    __slots__ = ("calls", "slots")

    def __init__(self) -> None:
        self.calls = 0
        self.slots = asyncio.Semaphore(AT_ONCE)


class Reads:
    """The reading calls of each user. What is over `AT_ONCE` waits, `most` of a user at most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._users: dict[str, _User] = {}

    async def enter(self, user_id: str) -> None:
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
        try:
            await user.slots.acquire()
        except BaseException:
            self._forget(user_id, user)
            raise

    def leave(self, user_id: str) -> None:
        """The answer to a call was taken, or nobody waits for it any more."""
        user = self._users[user_id]
        user.slots.release()
        self._forget(user_id, user)

    def _forget(self, user_id: str, user: _User) -> None:
        user.calls -= 1
        if not user.calls:
            del self._users[user_id]
