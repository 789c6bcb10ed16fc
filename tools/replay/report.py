"""The report of a replay: everything that is told of a run, as data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from .chaos import Blow
from .findings import Findings
from .verifier import Verified
from .world import Tally


@dataclass(slots=True)
class Costs:
    """What a part of a run took: seconds by the clock, and of CPU in the server and in the replay itself."""

    seconds: float = 0.0
    server_cpu_s: float = 0.0
    own_cpu_s: float = 0.0

    def each_us(self, count: int) -> float:
        """Microseconds of the server's CPU for each of so many."""
        return self.server_cpu_s * 1e6 / count if count else 0.0


@dataclass(slots=True)
class Way:
    """A way that messages went: how many, and milliseconds until they were acknowledged."""

    messages: int
    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(slots=True)
class Room:
    """A room of the script."""

    name: str
    members: int
    messages: int


@dataclass(slots=True)
class Report:
    """All that is told of a run. Sizes are in bytes."""

    command: str
    began: str
    stage: str
    machine: dict[str, str]
    files: list[str]
    rooms: list[Room]
    messages: int
    text_bytes: int
    people: int
    conversations: int
    directs: int
    devices: int = 0
    sdk_devices: int = 0
    second_devices: int = 0
    ways: dict[str, Way] = field(default_factory=dict)
    deliveries: int = 0
    setup: Costs = field(default_factory=Costs)
    play: Costs = field(default_factory=Costs)
    verification: Costs = field(default_factory=Costs)
    peak_rss: int = 0
    own_peak_rss: int = 0
    database: int = 0
    blows: list[Blow] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    verified: Verified = field(default_factory=Verified)
    complaints: list[str] = field(default_factory=list)
    wrong: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def conclude(self, findings: Findings) -> None:
        """Takes over what was found wrong."""
        self.wrong = dict(findings.counts)
        self.examples = dict(findings.examples)

    @property
    def right(self) -> bool:
        """Whether nothing is wrong."""
        return not self.wrong

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {**asdict(self), "right": self.right}


def way_of(seconds: Iterable[float]) -> Way:
    """A way that messages went, by how long each took."""
    ordered = sorted(seconds)
    return Way(
        messages=len(ordered),
        p50_ms=ordered[len(ordered) // 2] * 1000,
        p99_ms=ordered[len(ordered) * 99 // 100] * 1000,
        max_ms=ordered[-1] * 1000,
    )
