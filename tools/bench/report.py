"""The report: medians of the runs, as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from .figures import Figures
from .works import Work


@dataclass(slots=True)
class Outcome:
    """The runs of a workload on each target."""

    work: Work
    runs: dict[str, list[Figures]] = field(default_factory=dict)

    def add(self, kind: str, figures: Figures) -> None:
        """Takes a run."""
        self.runs.setdefault(kind, []).append(figures)

    @property
    def wrong(self) -> int:
        """How much was wrong in all runs."""
        return sum(f.wrong for runs in self.runs.values() for f in runs)

    def median(self, kind: str, of: Callable[[Figures], float]) -> float | None:
        """The median of something, or None when there was no run."""
        runs = self.runs.get(kind)
        return median(of(f) for f in runs) if runs else None

    def ratio(self, kind: str) -> float | None:
        """The median of the server's figure divided by that of the run of the other target beside it."""
        pairs = list(zip(self.runs.get("server", []), self.runs.get(kind, []), strict=False))
        values = [self.work.value(s) / self.work.value(f) for s, f in pairs if self.work.value(f)]
        return median(values) if values else None


def table(outcomes: Sequence[Outcome], about: dict[str, str]) -> str:
    """Everything in Markdown."""
    lines = [f"- {name}: {text}" for name, text in about.items()]
    head = (
        "work",
        "what",
        "a unit of",
        "server",
        "floor",
        "ratio",
        "floor+store",
        "ratio",
        "goal",
        "peers",
    )
    rows = [
        (
            o.work.name,
            o.work.what,
            f"{o.work.per} a {o.work.unit}",
            _number(o.median("server", o.work.value)),
            _number(o.median("floor", o.work.value)),
            _number(o.ratio("floor")),
            _number(o.median("floor+store", o.work.value)),
            _number(o.ratio("floor+store")),
            f"{o.work.goal:g}",
            o.work.peers,
        )
        for o in outcomes
        if o.work.per
    ]
    more = (
        "work",
        "target",
        "ack p50/p99 ms",
        "delivery p50/p99 ms",
        "messages/s",
        "frames in/out a message",
        "sleeps a message",
        "commits a message",
        "kernel",
        "server busy",
        "client busy",
    )
    details = [_details(o, kind) for o in outcomes for kind in o.runs if o.work.per == "us"]
    checks = [
        f"- {o.work.name}: {sum(len(r) for r in o.runs.values())} runs, "
        + ("each message once, in order, no gap" if not o.wrong else f"{o.wrong} WRONG")
        + _extra(o)
        for o in outcomes
    ]
    parts = ["\n".join(lines), _markdown(head, rows), _markdown(more, details), "\n".join(checks)]
    return "\n\n".join(part for part in parts if part)


def _details(o: Outcome, kind: str) -> tuple[str, ...]:
    def each(of: Callable[[Figures], float]) -> float:
        return o.median(kind, lambda f: of(f) / max(1, f.units["message"])) or 0.0

    def of_time(of: Callable[[Figures], float]) -> str:
        return f"{o.median(kind, lambda f: of(f) / max(f.seconds, 1e-9)) or 0.0:.0%}"

    def times(of: Callable[[Figures], tuple[float, float]]) -> str:
        low, high = (o.median(kind, lambda f, i=i: of(f)[i]) or 0.0 for i in (0, 1))  # type: ignore[misc]
        return f"{low:.1f} / {high:.1f}" if high else ""

    rate = o.median(kind, lambda f: f.units["message"] / max(f.seconds, 1e-9)) or 0.0
    commits = each(lambda f: f.commits)
    return (
        o.work.name,
        kind,
        times(lambda f: f.ack_ms),
        times(lambda f: f.delivery_ms),
        f"{rate:,.0f}",
        f"{each(lambda f: f.frames_in):.2f} / {each(lambda f: f.frames_out):.2f}",
        f"{each(lambda f: f.used.sleeps):.2f}",
        f"{commits:.3f}" if commits >= 0 else "",
        f"{o.median(kind, lambda f: f.used.system_s / max(f.used.cpu_s, 1e-9)) or 0.0:.0%}",
        of_time(lambda f: f.used.cpu_s),
        of_time(lambda f: f.client_cpu_s),
    )


def _extra(o: Outcome) -> str:
    runs = o.runs.get("server", [])
    if o.work.per == "KiB" and runs:
        connect = median(f.connect_us for f in runs)
        idle = median(f.used.cpu_s / f.seconds for f in runs)
        return f"; {connect:.0f} us of CPU to connect each, {idle:.1%} of a core while idle"
    if not o.work.per and runs:
        told = [
            f"{f.units['message']:,} sent, {f.units['resent']} again after {f.units['kill']} kills"
            for f in runs
        ]
        return ": " + "; ".join(told)
    return ""


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [head, ["-" * w for w in widths], *rows]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
