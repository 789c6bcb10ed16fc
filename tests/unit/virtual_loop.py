"""An event loop whose clock stands still while there is work, and jumps to the next timer when there is none."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from selectors import SelectorKey

_LONGEST_S = 86_400.0


class NothingLeft(RuntimeError):
    """Everything waits, and nothing will come: in real time the test would hang for ever."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Hours pass at once, a day at most. For code without threads and sockets."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_JumpingSelector(self._jump))

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._now

    def _jump(self, seconds: float) -> None:
        self._now += seconds
        if self._now > _LONGEST_S:
            raise NothingLeft


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise NothingLeft
            self._jump(timeout)
        return ready


class VirtualClock:
    """The wall clock beside a virtual loop: it goes on with the loop's time, and can be set forward and back."""

    def __init__(self, now_ms: int = 1_750_000_000_000) -> None:
        self._epoch_ms = now_ms

    def now_ms(self) -> int:
        return self._epoch_ms + int(asyncio.get_running_loop().time() * 1000)

    def step(self, ms: int) -> None:
        self._epoch_ms += ms
