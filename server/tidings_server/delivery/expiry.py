"""Expiry: ends a session whose device does not say hello, or whose token has expired, after a warning."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..core.clock import Clock
from ..errors import DomainError, Reason

HELLO_WITHIN_S = 30.0


class Expiry:
    """Watches over one session, from when it is made.

    `interval_ms` is how often `watch` is called at least; `warn` is told when the token ends, once, about `warning_ms`
    before; `end` is told why the session must end.
    """

    def __init__(
        self,
        clock: Clock,
        interval_ms: int,
        warning_ms: int,
        warn: Callable[[int], None],
        end: Callable[[DomainError], None],
    ) -> None:
        self._clock = clock
        self._interval_ms = interval_ms
        self._most_warning_ms = self._warning_ms = warning_ms
        self._warn = warn
        self._end = end
        self._expires_ms = 0
        self._warned = False
        # Until hello, the end of waiting for it.
        self._timer: asyncio.TimerHandle | None = asyncio.get_running_loop().call_later(
            HELLO_WITHIN_S, self._never_greeted
        )

    def watch(self, expires_ms: int) -> None:
        """Warns of the token's expiry, and sees to what is due before the next call."""
        self.close()
        self._expires_ms = expires_ms
        left_ms = expires_ms - self._clock.now_ms()
        if left_ms <= self._warning_ms and not self._warned:
            self._warned = True
            self._warn(expires_ms)
        due_ms = max(left_ms if self._warned else left_ms - self._warning_ms, 0)
        if due_ms <= self._interval_ms:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(due_ms / 1000, self._token_due)

    def renewed(self, expires_ms: int) -> None:
        """The session goes on with another token."""
        self._warned = False
        # Of a token that lives shorter than the warning, it comes at half its life, not at once again.
        left_ms = expires_ms - self._clock.now_ms()
        self._warning_ms = min(self._most_warning_ms, left_ms // 2)
        self.watch(expires_ms)

    def close(self) -> None:
        """Watches no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _token_due(self) -> None:
        # The wall clock decides: it may have been set, and timers are not exact.
        if self._clock.now_ms() < self._expires_ms:
            self.watch(self._expires_ms)
            return
        self._timer = None
        self._end(
            DomainError(Reason.TOKEN_EXPIRED, "The token has expired; connect with a new one.")
        )

    def _never_greeted(self) -> None:
        self._timer = None
        self._end(DomainError(Reason.HELLO_EXPECTED, "The device has not said hello."))
