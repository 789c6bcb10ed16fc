"""Wall clocks of a simulation: each differs from the true time, drifts and is set, also backwards."""

from __future__ import annotations

from .loop import SimLoop

EPOCH_MS = 1_790_000_000_000
"""The true time at the beginning of every simulation, in milliseconds since the Unix epoch."""


class TrueTime:
    """The true time: the loop's, and what passes while all the simulation sleeps."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self.slept_ms = 0

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return EPOCH_MS + self.slept_ms + int(self._loop.time() * 1000)


class SimClock:
    """A machine's clock, off by `skew_ms`."""

    def __init__(self, true: TrueTime, skew_ms: int = 0) -> None:
        self._true = true
        self.skew_ms = skew_ms

    def now_ms(self) -> int:
        """See `Clock`."""
        return self._true.now_ms() + self.skew_ms
