"""The event loop of a simulation: simulated time, a seeded order of what is ready, processes that can be killed.

Nothing here waits, reads a clock or starts a thread. Time stands still while anything is ready and then jumps to the
next timer. Everything that runs belongs to a process, known by a context variable, so that a crash is exact: from one
step to the next nothing of the process runs any more, not even its `finally` blocks.

Tasks and futures hash by a number of their own, since `asyncio` and its users keep them in sets: with hashes made from
addresses the order of such a set, and with it the run, would differ from process to process.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
from asyncio import events
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from enum import Enum
from hashlib import blake2b
from typing import Any, TypeVar

T = TypeVar("T")


class Order(Enum):
    """Which of the callbacks that are ready runs next."""

    FIFO = "fifo"
    """The one that has waited the longest, as asyncio promises."""
    RANDOM = "random"
    """Any. Code that needs no more than each future's own order must not notice."""


class Deadlock(Exception):
    """Nothing is ready and no timer runs, so nothing will ever happen."""


class Runaway(Exception):
    """Too many steps were made, in all or without time going on."""


_LOOKED_AT = 100
_DIALLED_S = 0.0005


class Process:
    """A program that runs in the simulation. It lives until `SimLoop.kill`; while it is paused its steps wait."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.parked: list[asyncio.Handle] = []
        self.tasks: list[SimTask] = []
        self.looked_at = 0
        self.suspects: set[int] = set()
        self.context = copy_context()
        self.context.run(_PROCESS.set, self)


_PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


def current_process() -> Process | None:
    """The process that runs now, or None in the world outside of all processes."""
    return _PROCESS.get()


class SimTask(asyncio.Task[Any]):
    """A task with a hash that does not depend on its address."""

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        loop: SimLoop,
        serial: int,
        name: str | None,
        context: Context | None,
    ) -> None:
        self.serial = serial
        super().__init__(coro, loop=loop, name=name or f"task-{serial}", context=context)

    def __hash__(self) -> int:
        return self.serial


class SimFuture(asyncio.Future[Any]):
    """A future with a hash that does not depend on its address."""

    def __init__(self, *, loop: SimLoop, serial: int) -> None:
        self.serial = serial
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.serial


class _Handle(asyncio.Handle):
    """A callback to be called. Made without what asyncio does for its debug mode: a run makes a hundred thousand."""

    __slots__ = ()

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[object, ...],
        loop: SimLoop,
        context: Context | None,
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class _TimerHandle(asyncio.TimerHandle):
    """A callback to be called at a moment, made likewise."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[object, ...],
        loop: SimLoop,
        context: Context | None,
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None
        self._when = when
        self._scheduled = True


class SimLoop(asyncio.AbstractEventLoop):
    """Runs everything of one simulation.

    `max_steps` bounds the steps of a run, `max_burst` those without time going on. With `trace` a hash of every step is
    kept, to compare runs. Exceptions that nobody takes from a future fail the run, but for those in `may_be_lost`.
    """

    def __init__(
        self,
        rng: random.Random,
        order: Order = Order.FIFO,
        *,
        max_steps: int = 400_000,
        max_burst: int = 50_000,
        trace: bool = False,
        may_be_lost: tuple[type[BaseException], ...] = (),
    ) -> None:
        self._may_be_lost = may_be_lost
        self._rng = rng
        self._order = order
        self._max_steps = max_steps
        self._max_burst = max_burst
        self._now = 0.0
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._serial = 0
        self._burst = 0
        self._closed = False
        self._running = False
        self._world = Process("world")
        self._dead: list[Process] = []
        self._countdown: tuple[int, Process, Callable[[], None]] | None = None
        self._trace = blake2b(digest_size=16) if trace else None
        self._last: list[str] = []
        self.steps = 0
        self.failure: BaseException | None = None
        self.dial: Callable[[Process, str, Any], asyncio.Transport] = _nowhere
        """Connects the protocol of a process to a host."""
        self.context = copy_context()
        """The context of the world outside of all processes."""

    # Running

    def run_until_complete(self, future: Any) -> Any:
        """Runs until the future is done and returns its result.

        Raises whatever a callback or an unawaited task raised, Deadlock and Runaway.
        """
        before = events._get_running_loop()
        events._set_running_loop(self)
        self._running = True
        try:
            task = asyncio.ensure_future(future, loop=self)
            while not task.done():
                self._step()
                if self.failure is not None:
                    raise self.failure
            return task.result()
        finally:
            self._running = False
            events._set_running_loop(before)

    def _step(self) -> None:
        ready = self._ready
        if not ready:
            self._next_moment()
        if len(ready) > 1 and self._order is Order.RANDOM:
            at = int(self._rng.random() * len(ready))
            ready[0], ready[at] = ready[at], ready[0]
        handle = ready.popleft()
        if handle._cancelled:
            return
        context = handle._context  # type: ignore[attr-defined]
        process = context.get(_PROCESS)
        if process is not None:
            if not process.alive:
                return
            if process.paused:
                process.parked.append(handle)
                return
        self.steps += 1
        self._burst += 1
        if self.steps > self._max_steps or self._burst > self._max_burst:
            self._run_away(handle, process)
        if self._trace is not None:
            self._note(handle, process)
        try:
            context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as problem:  # noqa: BLE001 - whatever it is, it fails the run
            self.failure = self.failure or problem
        if self._countdown is not None and process is self._countdown[1]:
            left, _, act = self._countdown
            self._countdown = (left - 1, process, act) if left > 1 else None
            if left <= 1:
                act()

    def _run_away(self, handle: asyncio.Handle, process: Process | None) -> None:
        """Too many steps: the last ones are looked at, to tell which. Raises Runaway."""
        self._last.append(f"{_named(handle)} in {process.name if process else 'the world'}")
        if len(self._last) < _LOOKED_AT:
            return
        most = Counter(self._last).most_common(5)
        told = ", ".join(f"{count} times {what}" for what, count in most)
        raise Runaway(
            f"{self.steps} steps, {self._burst} of them at {self._now:.3f} s; of the last {_LOOKED_AT}: {told}"
        )

    def _next_moment(self) -> None:
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers:
            raise Deadlock(f"nothing is ready and no timer runs at {self._now:.3f} s")
        when = timers[0][0]
        if when > self._now:
            self._now = when
            self._burst = 0
        while timers and timers[0][0] <= when:
            _, _, timer = heapq.heappop(timers)
            if not timer._cancelled:
                self._ready.append(timer)

    def _note(self, handle: asyncio.Handle, process: Process | None) -> None:
        line = f"{self._now!r} {process.name if process else '-'} {_named(handle, serial=True)}\n"
        assert self._trace is not None
        self._trace.update(line.encode())

    @property
    def traced(self) -> bool:
        """Whether a trace is kept."""
        return self._trace is not None

    @property
    def trace(self) -> str:
        """The hash of every step made so far: when, in which process, and what ran."""
        assert self._trace is not None
        return self._trace.hexdigest()

    # Processes

    def spawn(self, process: Process | None, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begins a task in a process, or outside of all."""
        context = (process.context if process else self.context).copy()
        return self.create_task(coro, context=context)

    def soon(
        self, process: Process | None, callback: Callable[..., object], *args: object
    ) -> asyncio.Handle:
        """Calls something in a process, or outside of all."""
        return self.call_soon(
            callback, *args, context=(process.context if process else self.context)
        )

    def later(self, delay: float, callback: Callable[..., object], *args: object) -> asyncio.Handle:
        """Calls something later, outside of all processes: nobody's crash prevents it."""
        return self.call_later(delay, callback, *args, context=self.context)

    def kill(self, process: Process) -> None:
        """Ends a process between two steps. Nothing of it ever runs again."""
        process.alive = False
        process.parked.clear()
        self._dead.append(process)
        if self._countdown is not None and self._countdown[1] is process:
            self._countdown = None

    def after_steps(self, count: int, process: Process, act: Callable[[], None]) -> None:
        """Calls `act` once the process has made so many more steps, right behind the last of them."""
        self._countdown = (max(count, 1), process, act)

    def pause(self, process: Process) -> None:
        """Stops a process, as SIGSTOP does."""
        process.paused = True

    def resume(self, process: Process) -> None:
        """Lets a paused process go on."""
        process.paused = False
        parked, process.parked = process.parked, []
        self._ready.extend(parked)

    # Scheduling

    def time(self) -> float:
        """Simulated seconds since the beginning."""
        return self._now

    def call_soon(
        self, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> asyncio.Handle:
        """See asyncio."""
        handle = _Handle(callback, args, self, context)
        if not self._closed:
            self._ready.append(handle)
        return handle

    def call_soon_threadsafe(self, *_: object, **__: object) -> asyncio.Handle:
        """There are no threads here."""
        raise RuntimeError("a simulation has no threads")

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: object,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        return self.call_at(self._now + max(delay, 0.0), callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: object,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        timer = _TimerHandle(when, callback, args, self, context)
        if not self._closed:
            self._serial += 1
            heapq.heappush(self._timers, (when, self._serial, timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are dropped when their time comes."""

    def create_future(self) -> SimFuture:
        """See asyncio."""
        self._serial += 1
        return SimFuture(loop=self, serial=self._serial)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """See asyncio."""
        self._serial += 1
        task = SimTask(coro, loop=self, serial=self._serial, name=name, context=context)  # type: ignore[arg-type]
        process = (context.get(_PROCESS) if context is not None else _PROCESS.get()) or self._world
        tasks = process.tasks
        tasks.append(task)
        if len(tasks) > process.looked_at + 512:
            self._look_at(process)
        return task

    def _look_at(self, process: Process, *, finally_: bool = False) -> None:
        """Lets go of tasks that are done; an exception of theirs that nobody took fails the run.

        Whoever waits for a task takes its exception only some steps later, so what nobody took is a suspect at first.
        """
        left = []
        before, process.suspects = process.suspects, set()
        for task in process.tasks:
            if not task.done():
                left.append(task)
            elif task._log_traceback and not task.cancelled():
                if finally_ or task.serial in before:
                    problem = task.exception()
                    assert problem is not None
                    self.failure = self.failure or problem
                else:
                    process.suspects.add(task.serial)
                    left.append(task)
        process.tasks = left
        process.looked_at = len(left)

    # The network

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], Any], host: str, port: int, **_: object
    ) -> tuple[asyncio.Transport, Any]:
        """See asyncio: a connection of the process that runs now, to what `dial` finds. Raises OSError."""
        process = current_process()
        assert process is not None
        protocol = protocol_factory()
        await asyncio.sleep(_DIALLED_S)
        transport = self.dial(process, host, protocol)
        protocol.connection_made(transport)
        return transport, protocol

    # Ending

    def untaken(self, processes: list[Process]) -> BaseException | None:
        """The first exception that nobody took, of the world and of these processes, or None."""
        for process in (self._world, *processes):
            if process.alive:
                self._look_at(process, finally_=True)
        return self.failure

    def end_all(self, processes: list[Process]) -> None:
        """Kills what still runs."""
        for process in processes:
            if process.alive:
                self.kill(process)

    def close(self) -> None:
        """Lets go of everything. What the dead still hold is unwound now, where it can do no harm."""
        self._closed = True
        self._ready.clear()
        self._timers.clear()
        before = events._get_running_loop()
        events._set_running_loop(self)
        try:
            for process in (*self._dead, self._world):
                for task in process.tasks:
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    if task.done():
                        task._log_traceback = False
                        continue
                    with contextlib.suppress(BaseException):
                        process.context.copy().run(task.get_coro().close)
                process.tasks.clear()
        finally:
            events._set_running_loop(before)

    def is_running(self) -> bool:
        """See asyncio."""
        return self._running

    def is_closed(self) -> bool:
        """See asyncio."""
        return self._closed

    def get_debug(self) -> bool:
        """See asyncio."""
        return False

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """See asyncio: here it fails the run."""
        self.call_exception_handler(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An exception that nobody took fails the run."""
        problem = context.get("exception") or RuntimeError(str(context.get("message")))
        lost = isinstance(context.get("future"), SimFuture) and isinstance(
            problem, self._may_be_lost
        )
        if not self._closed and not lost:
            self.failure = self.failure or problem


def _nowhere(_process: Process, host: str, _protocol: Any) -> asyncio.Transport:
    raise ConnectionRefusedError(f"nobody is at {host}")


def _named(handle: asyncio.Handle, *, serial: bool = False) -> str:
    """What a handle calls: of a task its coroutine, with the task's number if asked for."""
    callback: Any = handle._callback  # type: ignore[attr-defined]
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, SimTask):
        coro: Any = owner.get_coro()
        return f"{owner.serial} {coro.__qualname__}" if serial else str(coro.__qualname__)
    return str(getattr(callback, "__qualname__", type(callback).__name__))
