"""Beginning a new history in a keyspace whose tables were restored. Blocks."""

from __future__ import annotations

from collections.abc import Callable

from tidings_server.storage.base import StoreCorrupt
from tidings_server.storage.scylla.connection import begin, connect, translated
from tidings_server.storage.scylla.history import History
from tidings_server.storage.scylla.history import begin_history as end_and_begin
from tidings_server.storage.scylla.options import ScyllaOptions
from tidings_server.storage.scylla.schema import migrate


def begin_restored(options: ScyllaOptions, *, new_id: Callable[[], str]) -> History:
    """Ends the restored history and begins another. No node may use the keyspace.

    Raises StoreUnavailable, and StoreCorrupt when there is nothing that was restored.
    """
    cluster = connect(options)
    try:
        session = begin(cluster)
        if options.keyspace not in cluster.metadata.keyspaces:
            raise StoreCorrupt(f"there is no keyspace {options.keyspace}: restore it first")
        with translated(f"keyspace {options.keyspace}"):
            session.set_keyspace(options.keyspace)
        migrate(cluster, session, options, new_id())
        return end_and_begin(session, new_id)
    finally:
        cluster.shutdown()
