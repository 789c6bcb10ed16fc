"""What the store in a cluster counts, as plain attributes of its event loop's thread."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class ScyllaCounters:
    """Numbers since the store was opened."""

    requests: int = 0
    """Requests that were sent."""
    failures: int = 0
    """Requests that failed, or whose answer didn't come."""
    in_flight: int = 0
    """Gauge: requests under way."""
    appends: int = 0
    """Pages that were appended."""
    conflicts: int = 0
    """Appends that were refused since the log's newest position was another one."""
    unknown: int = 0
    """Appends that were answered UNKNOWN."""
    sent_again: int = 0
    """Appends that were sent after an identical one was answered UNKNOWN."""
    buckets_opened: int = 0
    puts: int = 0
    """Rows that `put_*` handed over, whether or not they changed anything."""
    healthy: bool = False
    """Gauge: whether the last request was answered, as far as is known."""
