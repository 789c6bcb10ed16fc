"""The store for many nodes: ScyllaDB, or Apache Cassandra, with appends as lightweight transactions."""

from tidings_server.storage.scylla.options import ScyllaOptions
from tidings_server.storage.scylla.store import ScyllaStore

__all__ = ["ScyllaOptions", "ScyllaStore"]
