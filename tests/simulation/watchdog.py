"""The watchdog: ends a world that spins within one step, which no count of steps would ever notice.

It looks at the CPU time that was spent, so a slow or a busy machine does not set it off; when it does, is the only
thing about a world that the machine has a part in.
"""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .loop import Runaway, SimLoop

STEP_CPU_S = 8.0
"""The CPU time that one step may take: thousands of times that of the longest."""
_FRAMES = 6
_LOOKS = 4
"""Looks within that time."""


class Spinning(BaseException):
    """Raised in the middle of a step that does not end; code that goes on after exceptions must not go on after it."""


@contextmanager
def watched_for_spins(loop: SimLoop, step_cpu_s: float = STEP_CPU_S) -> Iterator[None]:
    """Ends a step that takes more than so many seconds of CPU: it becomes the loop's failure, and the world ends.

    Needs the main thread.
    """
    seen, same = -1, 0

    def look(_number: int, frame: FrameType | None) -> None:
        nonlocal seen, same
        if loop.steps != seen:
            seen, same = loop.steps, 0
            return
        same += 1
        # Whoever goes on all the same is interrupted again at every look.
        if same >= _LOOKS:
            where = "".join(traceback.format_stack(frame, limit=_FRAMES))
            text = f"step {loop.steps} does not end, at {loop.time():.3f} s:\n{where}"
            loop.failure = loop.failure or Runaway(text)
            raise Spinning(text)

    before = signal.signal(signal.SIGVTALRM, look)
    signal.setitimer(signal.ITIMER_VIRTUAL, step_cpu_s / _LOOKS, step_cpu_s / _LOOKS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
