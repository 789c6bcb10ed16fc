"""The settings of the embedded store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SqliteOptions:
    """Where the database is and how it is used.

    `path` is the database file; its directory is made when it is absent. Beside it lie `-wal`, `-shm` and `.lock`.
    """

    path: Path
    max_batch: int = 512
    """Most operations in one transaction."""
    head_cache: int = 50_000
    """Logs whose newest position the writer keeps in memory; between one and two times as many are held."""
    checkpoint_pages: int = 2_000
    """Pages of 4 KiB that the write-ahead log takes before it is copied into the database file."""
    cache_kib: int = 16_384
    """Page cache of each of the two connections, in KiB."""
    busy_ms: int = 2_000
    """How long another program's lock on the database is waited for."""
    retry_first_s: float = 0.05
    """How long after a failure that did not heal at once the next attempt comes; it doubles with each."""
    retry_most_s: float = 5.0
    """The longest wait between two attempts."""
    vfs: str | None = None
    """The SQLite VFS that carries out the input and output; None is the system's."""
