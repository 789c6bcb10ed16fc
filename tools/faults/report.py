"""The report of fault runs: what was done, what came of it, and how long clients felt it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import Any, Final

from tools.replay.findings import KINDS
from tools.replay.markdown import table
from tools.replay.report import Report
from tools.stack.faults import Fault

_WIDTH: Final = 118


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one fault."""

    fault: Fault[Any]
    report: Report
    witnessed: int
    refused: int

    @property
    def slowest_way(self) -> str:
        """How that message went."""
        return max(self.report.ways.items(), key=lambda item: item[1].max_ms)[0]

    @property
    def slowest_ms(self) -> float:
        """The longest that a message waited for its acknowledgement, in milliseconds."""
        return max(way.max_ms for way in self.report.ways.values())


@dataclass(slots=True)
class Part:
    """The faults that were dealt to one stage. `broken` are those in which the play could not go on, and why."""

    stage: str
    outcomes: list[Outcome] = field(default_factory=list)
    broken: list[tuple[Fault[Any], str]] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether nothing is wrong."""
        return not self.broken and all(outcome.report.right for outcome in self.outcomes)


@dataclass(slots=True)
class FaultRuns:
    """All of them. `suites` are the test suites that were run besides: a name, what it tries, and how it ended."""

    command: str
    began: str
    machine: dict[str, str]
    versions: dict[str, str]
    devices: int
    rate: float
    parts: list[Part] = field(default_factory=list)
    suites: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether nothing is wrong."""
        return all(part.right for part in self.parts) and all(
            how.endswith("passed") for _, _, how in self.suites
        )

    def as_markdown(self) -> str:
        """The report for people."""
        parts = [text for part in self.parts for text in _part(part)]
        return "\n\n".join([*self._head(), *parts, *self._suites()]) + "\n"

    def _head(self) -> list[str]:
        return [
            "# Faults on real processes",
            _paragraph(
                f"Each fault was dealt while {self.devices} devices, visitors and unary callers sent"
                f" {self.rate:g} messages a second of real conversations, and while in a group beside them a"
                " member was removed and went on writing. Afterwards everything was verified as in the"
                " [replay](replay.md): from every device's point of view and from history. This page was written by:"
            ),
            f"    {self.command}",
            f"Begun {self.began}.",
            table(("machine", ""), [*self.machine.items(), *self.versions.items()], "ll"),
            _paragraph(
                "*Acknowledged* of as many messages that were sent; *applied* are entries by all devices. *Nothing"
                " taken* is the longest time in which no message of anybody was acknowledged, *slowest* the longest"
                " that any message waited for its acknowledgement, over all attempts and with what waits before it,"
                " and by which way it went. *Away* is the longest that a connected device was without a session: the"
                " first number is of lean devices, the second of the SDK. *All back* is when as many devices were"
                " connected as before, from the beginning of the fault; *level* when all had everything, after the"
                " last acknowledgement."
            ),
            _paragraph(
                "*Right* means: each acknowledged message stands in history once, at its acknowledged position"
                " (I1, I2), positions are 1 to N (I3), all devices applied the same bytes in order, without gap or"
                " double, and reached every head by themselves (I4, I5, I13); what was refused is not there (I6); read"
                " marks did not go back and unread counts are right (I7); the removed member got the removal and"
                " nothing after it (I9); no server logged an error, where the fault itself is not one of its resources."
            ),
        ]

    def _suites(self) -> list[str]:
        if not self.suites:
            return []
        rows: list[tuple[str, ...]] = [(f"`{name}`", what, how) for name, what, how in self.suites]
        return ["## Test suites of faults", table(("suite", "what", "ended"), rows, "lll")]


def _part(part: Part) -> list[str]:
    rows = [_row(outcome) for outcome in part.outcomes]
    rows += [(fault.name, *[""] * 8, why) for fault, why in part.broken]
    texts = [
        f"## {part.stage[0].upper()}{part.stage[1:]}",
        table(
            (
                "fault",
                "acknowledged",
                "applied",
                "lasted, s",
                "nothing taken, s",
                "slowest, s",
                "away, s",
                "all back, s",
                "level, s",
                "verdict",
            ),
            rows,
            "lrrrrrrrrl",
        ),
        "\n".join(_item(f"`{o.fault.name}`: {o.fault.what}.") for o in part.outcomes),
    ]
    for outcome in part.outcomes:
        for kind, count in outcome.report.wrong.items():
            examples = outcome.report.examples[kind]
            texts.append(f"`{outcome.fault.name}`, {kind} ({KINDS[kind]}): {count:,}")
            texts.append("\n".join(_item(example) for example in examples))
    return texts


def _row(outcome: Outcome) -> tuple[str, ...]:
    report = outcome.report
    (blow,) = report.blows
    acked = sum(way.messages for way in report.ways.values())
    wrong = sum(report.wrong.values())
    return (
        outcome.fault.name,
        f"{acked + outcome.witnessed:,} of {report.messages + outcome.witnessed:,}",
        f"{report.verified.device_entries:,}",
        f"{blow.back_s:.1f}",
        f"{blow.silence_s:.2f}",
        f"{outcome.slowest_ms / 1000:.2f} ({outcome.slowest_way})",
        f"{report.tally.longest_away_s:.2f}, {report.tally.sdk_longest_away_s:.2f}",
        f"{blow.reconnected_s:.1f}" if blow.reconnected_s else "-",
        f"{report.verified.level_after_s:.1f}",
        "right" if report.right else f"**{wrong} wrong**",
    )


def _paragraph(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _item(text: str) -> str:
    return textwrap.fill(
        text, _WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False
    )
