"""Chooses the store that the settings ask for. Importing a driver waits until its store is wanted."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from tidings_server.config import ScyllaSettings, Settings
from tidings_server.storage.base import Store, StoreUnavailable
from tidings_server.storage.sqlite import SqliteOptions, SqliteStore

if TYPE_CHECKING:
    from tidings_server.storage.scylla import ScyllaOptions


def make_store(settings: Settings, new_id: Callable[[], str]) -> Store:
    """The store, not yet open. Raises StoreUnavailable when what it needs is not installed or can't be read."""
    if settings.store.kind == "sqlite":
        return SqliteStore(SqliteOptions(path=settings.store.path), new_id=new_id)
    options = scylla_options(settings.scylla)
    from tidings_server.storage.scylla import ScyllaStore  # noqa: PLC0415

    return ScyllaStore(options, new_id=new_id)


def scylla_options(settings: ScyllaSettings) -> ScyllaOptions:
    """The options of the store in a cluster. Raises StoreUnavailable."""
    try:
        from tidings_server.storage.scylla import ScyllaOptions  # noqa: PLC0415
    except ImportError as problem:
        raise StoreUnavailable(
            f"store.kind = scylla needs tidings-server[cluster] to be installed: {problem}"
        ) from problem
    password = settings.password
    return ScyllaOptions(
        hosts=settings.host_list(),
        port=settings.port,
        keyspace=settings.keyspace,
        replication=settings.copies(),
        everywhere=settings.consistency == "everywhere",
        home_datacenter=settings.home_datacenter,
        username=settings.username,
        password=None if password is None else password.get_secret_value(),
        tls=_tls(settings),
        request_timeout_s=settings.request_timeout_s,
    )


def _tls(settings: ScyllaSettings) -> ssl.SSLContext | None:
    if not settings.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
        # Nodes are known by their addresses, which certificates seldom name; the authority is what counts.
        context.check_hostname = False
        if settings.tls_cert_file is not None:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    except OSError as problem:
        raise StoreUnavailable(
            f"the files for TLS to the cluster can't be used: {problem}"
        ) from problem
    return context
