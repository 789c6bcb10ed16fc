"""Figures: what one run of one workload gave, and how runs are put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .procfs import Usage


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The value below which so many percent of the values lie; 0 when there are none."""
    if not ascending:
        return 0.0
    return ascending[min(len(ascending) - 1, int(len(ascending) * percent / 100))]


@dataclass(frozen=True, slots=True)
class Figures:
    """One run of one workload on one target.

    Attributes:
        used: What the target used while it was measured.
        units: How often the things happened by which `used` is divided.
        ack_ms: p50 and p99 of the time from sending to the acknowledgement.
        delivery_ms: p50 and p99 of the time from sending to a receiver.
        seconds: How long it was measured.
        frames_in: Frames that the target read.
        frames_out: Frames that the target wrote.
        client_cpu_s: What the load client used.
        bytes_each: Memory for each connection.
        connect_us: CPU to connect and bring level, for each connection.
        commits: Commits of the store; -1 when the target does not tell.
        problems: What was wrong with what the devices got.
        wrong: How much was wrong.
    """

    used: Usage
    units: dict[str, int]
    ack_ms: tuple[float, float] = (0.0, 0.0)
    delivery_ms: tuple[float, float] = (0.0, 0.0)
    seconds: float = 0.0
    frames_in: int = 0
    frames_out: int = 0
    client_cpu_s: float = 0.0
    bytes_each: float = 0.0
    connect_us: float = 0.0
    commits: int = -1
    problems: list[str] = field(default_factory=list)
    wrong: int = 0

    def cpu_us(self, unit: str) -> float:
        """Microseconds of CPU for each unit."""
        return self.used.cpu_s * 1e6 / max(1, self.units[unit])
