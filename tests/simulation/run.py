"""Runs one seed from beginning to end, and tells what came of it."""

from __future__ import annotations

import contextlib
import gc
import logging
import random
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

import structlog

from tidings_server.storage.base import StoreUnavailable

from .config import Config, draw
from .loop import Deadlock, Runaway, SimLoop
from .nemesis import Nemesis
from .outbox_watch import watched_outboxes
from .presence import PresenceAtTheEnd
from .quiet import Quiet
from .silence import Silence
from .sizes import made_small
from .violation import Violation
from .watchdog import STEP_CPU_S, Spinning, watched_for_spins
from .workload import Workload
from .world import Happened, World


@dataclass(slots=True)
class Outcome:
    """What came of a seed. `failure` is empty when every invariant held."""

    seed: int
    invariant: str = ""
    failure: str = ""
    steps: int = 0
    seconds: float = 0.0
    checks: int = 0
    acks: int = 0
    refusals: int = 0
    repeats: int = 0
    entries: int = 0
    digest: str = ""
    trace: str = ""
    story: list[Happened] = field(default_factory=list)


def run_seed(
    seed: int,
    *,
    trace: bool = False,
    config: Config | None = None,
    step_cpu_s: float = STEP_CPU_S,
) -> Outcome:
    """Simulates the world of a seed. A step that takes more than `step_cpu_s` of CPU fails it."""
    config = config or draw(seed)
    loop = SimLoop(  # type: ignore[abstract]
        random.Random(f"{config.seed} schedule"),
        config.order,
        trace=trace,
        # Whoever stops does not wait for what the store has to say any more.
        may_be_lost=(StoreUnavailable,),
    )
    world = World(config, loop)
    outcome = Outcome(seed)
    gc_was = gc.isenabled()
    # A collection in the middle would be harmless, but none is needed.
    gc.disable()
    try:
        with (
            watched_for_spins(loop, step_cpu_s),
            _logs(world),
            made_small(config.sizes),
            watched_outboxes(config.limits.max_commands_in_flight, world.report),
        ):
            found: BaseException | None = None
            try:
                loop.run_until_complete(_live(world))
            except (Exception, Spinning) as problem:  # noqa: BLE001 - a fault of any part is what we look for
                found = problem
            # What an unawaited task died of is told before what came of it.
            found = world.violation or loop.untaken(world.processes()) or found
            if found is not None:
                _failed(outcome, found)
            _sum_up(outcome, world)
            loop.end_all(world.processes())
            loop.close()
    finally:
        if gc_was:
            gc.enable()
    return outcome


async def _live(world: World) -> None:
    workload, nemesis, quiet = Workload(world), Nemesis(world), Quiet(world)
    for server in world.servers:
        await server.start()
    for device in world.devices:
        device.start()
    await workload.open()
    nemesis.begin()
    await workload.run()
    await nemesis.end()
    await quiet.level()
    if len(world.servers) > 1:
        await Silence(world).falls()
        await quiet.level()
    await quiet.stays_level()
    await quiet.fresh()
    if world.config.presence:
        await PresenceAtTheEnd(world).check()
    quiet.final()


def _failed(outcome: Outcome, problem: BaseException) -> None:
    outcome.invariant = (
        problem.invariant if isinstance(problem, Violation) else type(problem).__name__
    )
    outcome.failure = str(problem) or repr(problem)
    if not isinstance(problem, Violation | Runaway | Deadlock):
        outcome.failure = "".join(traceback.format_exception(problem))


def _sum_up(outcome: Outcome, world: World) -> None:
    loop, ledger = world.loop, world.judge.ledger
    outcome.steps, outcome.seconds = loop.steps, loop.time()
    outcome.checks, outcome.acks = world.judge.checks, ledger.acks
    outcome.refusals, outcome.repeats = ledger.refusals, ledger.repeats
    outcome.entries = sum(log.head for log in world.truth.logs.values())
    digest = blake2b(digest_size=8)
    for name in sorted(world.truth.logs):
        for raw in world.truth.log(name).raw:
            digest.update(raw)
    digest.update(f"{loop.steps} {loop.time()!r}".encode())
    outcome.digest = digest.hexdigest()
    outcome.trace = loop.trace if loop.traced else ""
    outcome.story = list(world.story)


class _Handler(logging.Handler):
    """Errors that the SDK logs fail the run."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        """See logging."""
        if "state can't be saved" in record.getMessage():
            return
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self._world.report(Violation("fault", f"the SDK: {text}"))


@contextlib.contextmanager
def _logs(world: World) -> Iterator[None]:
    """What the server and the SDK log as an error fails the run; the rest goes into the story."""

    def take(_logger: object, method: str, event: structlog.types.EventDict) -> str:
        if method in ("error", "exception", "critical"):
            problem = event.pop("exc_info", None)
            if problem is True:
                problem = sys.exc_info()[1]
            text = f"the server: {event}"
            if isinstance(problem, BaseException):
                text += "\n" + "".join(traceback.format_exception(problem))
            world.report(Violation("fault", text))
        else:
            world.tell("log", str(event))
        raise structlog.DropEvent

    config = structlog.get_config()
    structlog.configure(
        processors=[take], wrapper_class=structlog.BoundLogger, cache_logger_on_first_use=False
    )
    handler = _Handler(world)
    log = logging.getLogger("tidings")
    propagate, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagate
        structlog.configure(**config)
