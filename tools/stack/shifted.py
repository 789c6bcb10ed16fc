"""`python -m tools.stack.shifted MILLISECONDS serve`: a server whose clock is wrong by so much, ahead or behind."""

from __future__ import annotations

import runpy
import sys
import time
from collections.abc import Callable


def shift(offset_ms: int) -> None:
    """Moves the wall clock of this process. Its monotone clock goes on."""
    seconds, nanoseconds = time.time, time.time_ns
    later: Callable[[], float] = lambda: seconds() + offset_ms / 1000  # noqa: E731
    later_ns: Callable[[], int] = lambda: nanoseconds() + offset_ms * 1_000_000  # noqa: E731
    time.time, time.time_ns = later, later_ns


if __name__ == "__main__":
    shift(int(sys.argv.pop(1)))
    runpy.run_module("tidings_server", run_name="__main__", alter_sys=True)
