"""The embedded store: one SQLite database file, through apsw."""

from tidings_server.storage.sqlite.counters import SqliteCounters
from tidings_server.storage.sqlite.options import SqliteOptions
from tidings_server.storage.sqlite.store import SqliteStore

__all__ = ["SqliteCounters", "SqliteOptions", "SqliteStore"]
