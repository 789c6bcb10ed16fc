"""Counters: what the hot paths count, as plain attributes. `metrics` publishes them when somebody
asks.

A call of the OpenTelemetry API costs 2-50 µs; an addition to an attribute costs 0.03. So messaging,
delivery and rpc add here, on the event loop, and the exporters read from their own threads. A read
may see one of two related numbers a moment earlier than the other, never a torn or lost one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict

DURATION_BOUNDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds of durations in seconds."""

SIZE_BOUNDS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""Upper bounds of the number of entries in a commit (at most 100)."""


class Histogram:
    """Counts values by upper bound. `counts[i]` are those `<= bounds[i]` and above the bound
    before; the last is the rest.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Counts a value, or the same value several times. Costs 0.2 µs."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


class Counters:
    """Everything that is counted. The name of the published metric stands beside each attribute
    that is not named alike.

    Numbers only grow, except the gauges, which say how much there is now. Commands, codes and
    reasons used as keys are names from the server's own code, never a client's text, so that the
    number of series is bounded.
    """

    __slots__ = (
        "auth_failures",
        "catch_up_entries",
        "catch_up_pages",
        "commands",
        "commit_duration_seconds",
        "commit_entries",
        "commits",
        "conflicts",
        "delivered_entries",
        "delivery_duration_seconds",
        "forward_fallbacks",
        "forwarded",
        "frame_bytes_in",
        "frame_bytes_out",
        "frames_in",
        "frames_out",
        "heads_taken_over",
        "hosted",
        "intents",
        "lag_duration_seconds",
        "lagging_logs",
        "outbox_bytes",
        "outbox_overflows",
        "publication_duration_seconds",
        "sessions",
        "sessions_ended",
        "sessions_opened",
        "store_errors",
        "unknown_outcomes",
    )

    def __init__(self) -> None:
        # Sessions
        self.sessions: int = 0
        """Gauge: sessions open now."""
        self.sessions_opened: int = 0
        """Sessions that said hello."""
        self.sessions_ended: defaultdict[str, int] = defaultdict(int)
        """Sessions that ended, by reason: the name of an `errors.Reason`, or "CLIENT_LEFT"."""
        self.auth_failures: defaultdict[str, int] = defaultdict(int)
        """Tokens refused, by reason: "TOKEN_INVALID" or "TOKEN_EXPIRED"."""

        # The way in
        self.commands: defaultdict[tuple[str, str], int] = defaultdict(int)
        """Commands and unary calls answered, by (command, code): ("send_message", "OK")."""
        self.commits: int = 0
        """Pages committed."""
        self.commit_entries = Histogram(SIZE_BOUNDS)
        """Entries of each page committed."""
        self.commit_duration_seconds = Histogram(DURATION_BOUNDS)
        """From handing a page to the store to its definite answer."""
        self.conflicts: int = 0
        """Appends refused since somebody else had appended."""
        self.unknown_outcomes: int = 0
        """Appends answered "may or may not be applied"."""
        self.store_errors: int = 0
        """Calls of the store that raised StoreUnavailable."""

        # Between nodes
        self.forwarded: int = 0
        """Changes sent to other nodes, the homes of their logs."""
        self.forward_fallbacks: int = 0
        """Changes of those that were then decided here, since the home was gone, silent or could not."""
        self.hosted: int = 0
        """Changes that other nodes sent here."""
        self.intents: int = 0
        """Logs that were noted before this node appended to them, each once a minute."""
        self.heads_taken_over: int = 0
        """Heads published for nodes that had no lease."""

        # The way out
        self.delivered_entries: int = 0
        """Entries written to sessions, pushed or caught up."""
        self.delivery_duration_seconds = Histogram(DURATION_BOUNDS)
        """From the definite answer of the store to the write of the frame, for entries that were
        pushed.
        """
        self.publication_duration_seconds = Histogram(DURATION_BOUNDS)
        """From the stamp of a page to its arrival at sessions that follow its log, by the clocks of
        the nodes that committed it and that has the sessions. Never less than 0.
        """
        self.lagging_logs: int = 0
        """Gauge: logs that sessions have fallen behind in, each counted for each session."""
        self.lag_duration_seconds = Histogram(DURATION_BOUNDS)
        """From when a session fell behind in a log, also by connecting, to when it was level."""
        self.catch_up_pages: int = 0
        """Pages sent by catching up."""
        self.catch_up_entries: int = 0
        """Entries sent by catching up."""
        self.outbox_bytes: int = 0
        """Gauge: bytes waiting in the outboxes of all sessions."""
        self.outbox_overflows: int = 0
        """Outboxes dropped for being full."""
        self.frames_in: int = 0
        """tidings_frames_total{direction="in"}"""
        self.frames_out: int = 0
        """tidings_frames_total{direction="out"}"""
        self.frame_bytes_in: int = 0
        """tidings_frame_bytes_total{direction="in"}"""
        self.frame_bytes_out: int = 0
        """tidings_frame_bytes_total{direction="out"}"""
