"""What the embedded store counts, as plain attributes: its threads add, anybody may read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class SqliteCounters:
    """Numbers since the store was opened. Each is written by one thread, so none is lost or torn."""

    transactions: int = 0
    """Write transactions that were committed."""
    commit_seconds: float = 0.0
    """Time spent in them, nearly all of it the write-ahead log's fsync."""
    slowest_commit_seconds: float = 0.0
    appends: int = 0
    """Pages that were appended. Divided by `transactions`: the batch size."""
    largest_batch: int = 0
    """Most operations taken together so far."""
    conflicts: int = 0
    puts: int = 0
    """Rows that `put_*` handed over, whether or not they changed anything."""
    unknown: int = 0
    """Appends that were answered UNKNOWN."""
    unavailable: int = 0
    """Writes that were answered with StoreUnavailable while the store was open."""
    failures: int = 0
    """Times that the database failed."""
    recoveries: int = 0
    """Times that it could be written again after a failure."""
    checkpoints: int = 0
    checkpoint_seconds: float = 0.0
    reads: int = 0
    read_failures: int = 0
    healthy: bool = False
    """Gauge: whether the last write succeeded, as far as is known."""
