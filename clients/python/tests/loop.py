"""An event loop whose time is simulated: nobody waits, and every run is the same."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class _Selector(selectors.DefaultSelector):
    """Lets time jump to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("everybody waits, and for nothing that has a time")
            self.now += max(0.0, timeout)
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop with simulated time, which begins at 0."""

    def __init__(self) -> None:
        self._simulated = _Selector()
        super().__init__(self._simulated)

    def time(self) -> float:
        return self._simulated.now


def simulated(test: Callable[[], Coroutine[Any, Any, _T]]) -> Callable[[], _T]:
    """A test that runs in simulated time; faults in tasks and callbacks fail it as well."""

    def run() -> _T:
        problems: list[dict[str, Any]] = []

        async def main() -> _T:
            asyncio.get_running_loop().set_exception_handler(
                lambda _, context: problems.append(context)
            )
            result = await test()
            left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            assert not left, f"tasks are left: {left}"
            return result

        with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
            result = runner.run(main())
        assert not problems, problems
        return result

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run
