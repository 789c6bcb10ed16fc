"""The list of workloads: what each measures, its goal, and what the peers take for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from . import idle, returning, workloads
from .crash import crash
from .figures import Figures
from .processes import Target
from .profiler import Profiler
from .workloads import QUICK, Scale

KINDS = ("floor", "floor+engine", "floor+store", "server")
USUAL = ("floor", "floor+store", "server")
Run = Callable[[Sequence[Target], Scale, Mapping[str, Profiler]], Awaitable[dict[str, Figures]]]


@dataclass(frozen=True, slots=True)
class Work:
    """One workload.

    Attributes:
        name: How it is chosen.
        what: What happens.
        unit: What is counted.
        per: What is told of each unit: "us" of CPU, "KiB" of memory, or "" for a workload that only checks.
        goal: The most that is to be reached.
        peers: What Tinode and ejabberd took on such a machine, as issue 4 has it.
        kinds: What it can be run on.
        run: Runs it on targets that it starts itself, perhaps with profilers for some of them.
    """

    name: str
    what: str
    unit: str
    per: str
    goal: float
    peers: str
    kinds: tuple[str, ...]
    run: Run

    def value(self, figures: Figures) -> float:
        """What is told of each unit."""
        if self.per == "KiB":
            return figures.bytes_each / 1024
        return figures.cpu_us(self.unit) if self.per == "us" else 0.0


def _direct(window: int) -> Run:
    return lambda targets, scale, profilers: workloads.direct(targets, window, scale, profilers)


def _group(window: int) -> Run:
    return lambda targets, scale, profilers: workloads.group(targets, window, scale, profilers)


def _each(work: Callable[[Target, Scale, Profiler | None], Awaitable[Figures]]) -> Run:
    """One target after the other."""

    async def run(
        targets: Sequence[Target], scale: Scale, profilers: Mapping[str, Profiler]
    ) -> dict[str, Figures]:
        found = {}
        for target in targets:
            with target:
                found[target.kind] = await work(target, scale, profilers.get(target.kind))
        return found

    return run


async def _idle(target: Target, scale: Scale, profiler: Profiler | None) -> Figures:
    del profiler
    return await idle.idle(target, scale.connections, scale.measured_s)


def _returning(*, own: bool) -> Run:
    return _each(
        lambda target, scale, profiler: returning.come_back(
            target,
            devices=scale.devices,
            missed=scale.missed,
            own_conversations=own,
            profiler=profiler,
        )
    )


async def _crash(target: Target, scale: Scale, profiler: Profiler | None) -> Figures:
    del profiler
    return await crash(target, 32, scale.kills, scale)


_BARE = ("floor", "floor+engine", "server")
WORKS: tuple[Work, ...] = (
    Work("w1/1", "1-to-1, window 1", "message", "us", 220, "760-960", KINDS, _direct(1)),
    Work("w1/32", "1-to-1, window 32", "message", "us", 50, "760-960", KINDS, _direct(32)),
    Work("w2/1", "group, window 1", "delivery", "us", 45, "32-41 / 74-81", KINDS, _group(1)),
    Work("w2/8", "group, window 8", "delivery", "us", 8, "32-41 / 74-81", KINDS, _group(8)),
    Work("w3", "idle connections", "connection", "KiB", 44, "69 / 52", _BARE, _each(_idle)),
    Work(
        "w4",
        "devices come back, one group",
        "message",
        "us",
        1.5,
        "9.6 / 85",
        _BARE,
        _returning(own=False),
    ),
    Work(
        "w4/own",
        "devices come back, a conversation each",
        "message",
        "us",
        1.5,
        "9.6 / 85",
        _BARE,
        _returning(own=True),
    ),
    Work(
        "w5",
        "kill -9 in mid-load",
        "message",
        "",
        0,
        "loses, doubles, gaps",
        ("server",),
        _each(_crash),
    ),
)

FULL = Scale()
__all__ = ["FULL", "KINDS", "QUICK", "USUAL", "WORKS", "Work"]
