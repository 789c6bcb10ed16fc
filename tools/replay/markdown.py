"""The report of a replay for people, as Markdown."""

from __future__ import annotations

import textwrap
from typing import Final

from tools.stack.faults import FAULTS

from .findings import KINDS
from .report import Report

_WIDTH: Final = 118
_WAYS: Final = {
    "device": "streams of connected devices",
    "sdk": "outboxes of the SDK",
    "visitor": "streams of visitors",
    "call": "unary calls",
}


def as_markdown(report: Report) -> str:
    """The whole report."""
    parts = [*_what(report), *_figures(report), *_faults(report), *_verdict(report)]
    return "\n\n".join(parts) + "\n"


def _what(report: Report) -> list[str]:
    rooms = "; ".join(
        f"{room.name} with {room.members:,} members, {room.messages:,} messages"
        for room in sorted(report.rooms, key=lambda room: -room.members)
    )
    played = {
        "files": ", ".join(report.files),
        "messages": f"{report.messages:,} ({report.text_bytes:,} bytes of text)",
        "people": f"{report.people:,}",
        "conversations": f"{report.conversations:,}, of them {report.directs:,} direct",
        "rooms": rooms or "none",
        "connected devices": f"{report.devices:,}: {report.sdk_devices:,} are the Python SDK, {report.second_devices:,}"
        " second devices that came in mid-play",
        "visits": f"{report.tally.visits:,} by {report.verified.visitors:,} people",
    }
    return [
        "# Replay of real conversations",
        _paragraph(
            f"Played through real Chat streams against {report.stage}, and then verified from every device's point of"
            " view and from history. This page was written by:"
        ),
        f"    {report.command}",
        f"Begun {report.began}.",
        table(("machine", ""), [*report.machine.items()], "ll"),
        "## What was played",
        table(("", ""), [*played.items()], "ll"),
    ]


def _figures(report: Report) -> list[str]:
    play = report.play
    seconds = play.seconds or 1.0
    figures = {
        "messages": f"{report.messages:,} ({report.messages / seconds:,.0f}/s)",
        "deliveries": f"{report.deliveries:,} ({report.deliveries / seconds:,.0f}/s)",
        "server CPU a message": f"{play.each_us(report.messages):,.0f} µs",
        "server CPU a delivery": f"{play.each_us(report.deliveries):,.1f} µs",
        "server memory, largest RSS": _mib(report.peak_rss),
        "replay memory, largest RSS": _mib(report.own_peak_rss),
        "database": _mib(report.database),
    }
    parts = (("set up", report.setup), ("play", play), ("verify", report.verification))
    return [
        "## Figures",
        table(
            ("part", "seconds", "CPU of the server, s", "CPU of the replay, s"),
            [
                (name, f"{c.seconds:,.1f}", f"{c.server_cpu_s:,.1f}", f"{c.own_cpu_s:,.1f}")
                for name, c in parts
            ],
            "lrrr",
        ),
        _paragraph(
            "Everything that the server did in the play is charged once to the messages and once to the deliveries:"
            " commits, deliveries, acknowledgements, read marks, visits, reconnects, restarts."
        ),
        table(("play", ""), [*figures.items()], "lr"),
        _paragraph(
            "From when a message may go to its acknowledgement, with what waits in flight before it and over the"
            " faults, in milliseconds:"
        ),
        table(
            ("way", "messages", "p50", "p99", "max"),
            [
                (
                    _WAYS[name],
                    f"{way.messages:,}",
                    f"{way.p50_ms:,.0f}",
                    f"{way.p99_ms:,.0f}",
                    f"{way.max_ms:,.0f}",
                )
                for name, way in sorted(report.ways.items())
            ],
            "lrrrr",
        ),
    ]


def _faults(report: Report) -> list[str]:
    tally = report.tally
    parts = ["## Faults"]
    if report.blows:
        parts.append(
            table(
                (
                    "what",
                    "at message",
                    "connected",
                    "healed, s",
                    "next taken, s",
                    "nothing taken, s",
                    "all back, s",
                ),
                [
                    (
                        blow.what,
                        f"{blow.acked:,}",
                        f"{blow.connected:,}",
                        f"{blow.back_s:.2f}",
                        f"{blow.taken_s:.2f}",
                        f"{blow.silence_s:.2f}",
                        f"{blow.reconnected_s:.2f}" if blow.reconnected_s else "-",
                    )
                    for blow in report.blows
                ],
                "lrrrrrr",
            )
        )
        parts.append(
            _paragraph(
                "*Nothing taken* is the longest time in which no message of anybody was acknowledged, *all back* when"
                " as many devices were connected as before. The others are seconds from the beginning."
            )
        )
        named = [FAULTS[blow.what] for blow in report.blows if blow.what in FAULTS]
        if named:
            parts.append("\n".join(_item(f"`{fault.name}`: {fault.what}.") for fault in named))
    else:
        parts.append("None were asked for.")
    parts.append(
        _paragraph(
            f"Lean devices tried to connect {tally.connects:,} times and lost {tally.lost_sessions:,} sessions;"
            f" {tally.resent:,} messages were sent again over their streams, and {tally.unary_retries:,} unary calls"
            f" were tried again. {tally.gaps_announced:,} gaps were announced to those who came late,"
            f" {tally.gaps_fetched:,} of them fetched from history (visitors do not). The longest that a connected"
            f" device was without a session was {tally.longest_away_s:.2f} s, with the SDK"
            f" {tally.sdk_longest_away_s:.2f} s."
        )
    )
    if report.complaints:
        parts.append("The server's log has errors:")
        parts.append("\n".join(f"    {line[:400]}" for line in report.complaints[:10]))
    return parts


def _verdict(report: Report) -> list[str]:
    v, tally = report.verified, report.tally
    history = (
        f"History: {v.conversations:,} conversations, {v.history_entries:,} entries, ascending and descending:"
        " positions 1 to N; each message once, and where it was acknowledged; texts byte for byte; senders; reply"
        " links; each sender's order; answers after what they answer; ordinals; times."
    )
    devices = (
        f"Devices: {v.devices:,} to the end and {v.visitors:,} of visitors, {v.device_logs:,} logs,"
        f" {v.device_entries:,} entries applied: each log ascends by one, nothing comes twice, the bytes (in the SDK:"
        " the typed events) are those of the history, and all who stayed reached every head"
        f" {v.level_after_s:.1f} s after the last acknowledgement."
    )
    lists = (
        f"Inboxes: {v.inboxes:,}, in each every conversation joined once. Members of rooms: {v.members:,} listed."
        f" Conversation lists: those of {v.listed_users:,} users."
    )
    counts = (
        f"Unread counts and read marks: {v.unread_counts:,}, after {tally.read_marks:,} marks during the play. Digests"
        f" of beacons: {tally.beacons_compared:,}."
    )
    facts = (history, devices, lists, counts)
    parts = ["## Verification", "\n".join(_item(fact) for fact in facts)]
    if report.right:
        return [*parts, "**Nothing was lost, doubled, reordered or altered.**"]
    parts.append(f"**{sum(report.wrong.values()):,} things are wrong.**")
    for kind, count in sorted(report.wrong.items(), key=lambda item: -item[1]):
        examples = "\n".join(_item(example) for example in report.examples[kind])
        parts.append(f"{kind} ({KINDS[kind]}): {count:,}\n\n{examples}")
    return parts


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _paragraph(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _item(text: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent="- ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def table(head: tuple[str, ...], rows: list[tuple[str, ...]], align: str) -> str:
    """A table; `align` has a letter for each column, l or r."""
    line = {"l": "---", "r": "---:"}
    return "\n".join(
        (
            f"| {' | '.join(head)} |",
            f"| {' | '.join(line[a] for a in align)} |",
            *(f"| {' | '.join(row)} |" for row in rows),
        )
    )
