"""Looking at a cluster for the doctor, without changing anything. Everything here blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cassandra.cluster import Session

from tidings_server.storage.base import StoreCorrupt, StoreUnavailable
from tidings_server.storage.scylla.connection import (
    PLAIN,
    begin,
    connect,
    local_datacenter,
    translated,
)
from tidings_server.storage.scylla.options import ScyllaOptions, refuse_forks
from tidings_server.storage.scylla.schema import (
    applied_version,
    is_scylla,
    known_migrations,
    replication_of,
)

_MILLISECONDS = re.compile(r"(\d+)(ms|s)?")


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node. `commitlog_sync` is when its commit log reaches the disk, "" where that isn't told; `write_timeout_ms`
    how long it waits for other nodes, None where that isn't told.
    """

    address: str
    datacenter: str
    up: bool
    commitlog_sync: str = ""
    write_timeout_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What was seen. `replication` is empty when there is no keyspace. `forks` says why logs could fork, or ""."""

    engine: str
    datacenter: str
    nodes: tuple[NodeFacts, ...]
    replication: Mapping[str, int]
    forks: str
    syncs_transactions: bool
    """Whether an append is on disk before it is answered, whatever `commitlog_sync` says."""
    schema_version: int
    known_version: int


def inspect(options: ScyllaOptions) -> ClusterFacts:
    """Looks at the cluster. Raises StoreUnavailable when it can't be reached."""
    cluster = connect(options)
    try:
        session = begin(cluster)
        scylla = is_scylla(session)
        here = local_datacenter(cluster)
        hosts = sorted(cluster.metadata.all_hosts(), key=lambda host: str(host.address))
        nodes = tuple(_node(session, host, here, scylla=scylla) for host in hosts)
        there = options.keyspace in cluster.metadata.keyspaces
        copies = replication_of(cluster, session, options.keyspace) if there else {}
        return ClusterFacts(
            engine="ScyllaDB" if scylla else f"Cassandra {hosts[0].release_version}",
            datacenter=here,
            nodes=nodes,
            replication=copies,
            forks=_forks(options, copies) if there else "",
            syncs_transactions=scylla,
            schema_version=applied_version(session, options.keyspace) if there else 0,
            known_version=len(known_migrations()),
        )
    finally:
        cluster.shutdown()


def _forks(options: ScyllaOptions, copies: Mapping[str, int]) -> str:
    try:
        refuse_forks(options, copies)
    except StoreCorrupt as problem:
        return str(problem)
    return ""


def _node(session: Session, host: Any, here: str, *, scylla: bool) -> NodeFacts:
    address, centre = str(host.address), str(host.datacenter)
    up = bool(host.is_up)
    if not up or centre != here:
        return NodeFacts(address, centre, up)
    table = "system.config" if scylla else "system_views.settings"
    told: dict[str, str] = {}
    try:
        with translated(address):
            rows = session.execute(
                f"SELECT name, value FROM {table}",  # noqa: S608  # one of two constants
                execution_profile=PLAIN,
                host=host,
            )
            told = {name: str(value or "").strip('"') for name, value in rows}
    except StoreUnavailable:
        return NodeFacts(address, centre, up)
    timeout = told.get("write_request_timeout") or told.get("write_request_timeout_in_ms") or ""
    match = _MILLISECONDS.fullmatch(timeout)
    return NodeFacts(
        address,
        centre,
        up,
        told.get("commitlog_sync", ""),
        None if match is None else int(match[1]) * (1_000 if match[2] == "s" else 1),
    )
