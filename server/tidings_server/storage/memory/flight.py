"""One call on its way through a memory store: its effect, its answer, what a crash leaves of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from tidings_server.storage.base import StoreUnavailable
from tidings_server.storage.memory.faults import Call, Fate, Happens

T = TypeVar("T")

_TAKES_EFFECT = (Happens.DONE, Happens.UNSURE_DONE)


class Flight(Generic[T]):
    """Carries out `apply` as `fate` says and answers `future`, whether or not anybody waits for it.

    `lost` is given when the answer is lost; None raises StoreUnavailable. `landed` is called at the
    end.
    """

    def __init__(
        self,
        call: Call,
        fate: Fate,
        apply: Callable[[], T],
        lost: T | None,
        future: asyncio.Future[T],
        landed: Callable[[Flight[T]], None],
    ) -> None:
        self._call = call
        self._fate = fate
        self._apply = apply
        self._lost = lost
        self._future = future
        self._landed = landed
        self._loop = asyncio.get_running_loop()
        self._in_effect = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begins. Without a delay it takes effect, and may be answered, before this returns."""
        if self._fate.happens is Happens.UNSURE_LATE:
            self._loop.call_later(self._fate.late, self._apply)
        self._after(self._fate.before, self._take_effect)

    def crash(self, survives: Callable[[], bool]) -> None:
        """Ends it unanswered. A write without effect so far takes it now, if it `survives`."""
        if self._timer is not None:
            self._timer.cancel()
        owed = not self._in_effect and self._fate.happens in _TAKES_EFFECT
        if owed and self._call.is_write and survives():
            self._apply()

    def _after(self, delay: float, step: Callable[[], None]) -> None:
        if delay:
            self._timer = self._loop.call_later(delay, step)
        else:
            step()

    def _take_effect(self) -> None:
        self._in_effect = True
        result = self._apply() if self._fate.happens in _TAKES_EFFECT else None
        self._after(self._fate.after, lambda: self._answer(result))

    def _answer(self, result: T | None) -> None:
        self._landed(self)
        if self._future.done():
            return
        happens = self._fate.happens
        if happens is Happens.DONE:
            # `T` may be None itself: then the result of a call that was done is None.
            self._future.set_result(result)  # type: ignore[arg-type]
        elif happens is Happens.REFUSED:
            self._future.set_exception(StoreUnavailable(f"{self._call.method} was refused"))
        elif self._lost is not None:
            self._future.set_result(self._lost)
        else:
            self._future.set_exception(
                StoreUnavailable(f"the answer to {self._call.method} was lost")
            )
