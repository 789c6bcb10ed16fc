"""The doctor for a cluster: whether it keeps what the server promises, and what to do when it doesn't."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from tidings_server.config import ScyllaSettings
from tidings_server.findings import Finding, fail, ok, warn
from tidings_server.storage.base import StoreCorrupt, StoreUnavailable

_REACH = "check scylla.hosts, scylla.port, the login and TLS, and that the nodes run"


class NodeFacts(Protocol):
    """One node of a cluster."""

    @property
    def address(self) -> str:
        """Its address."""

    @property
    def datacenter(self) -> str:
        """Its data centre."""

    @property
    def up(self) -> bool:
        """Whether it answers."""

    @property
    def commitlog_sync(self) -> str:
        """When its commit log reaches the disk: `periodic`, `batch`, `group`, or "" where that isn't told."""

    @property
    def write_timeout_ms(self) -> int | None:
        """How long it waits for others, where that is told."""


class ClusterFacts(Protocol):
    """What was seen of a cluster."""

    @property
    def engine(self) -> str:
        """What it is, with its version where that means something."""

    @property
    def datacenter(self) -> str:
        """The data centre that requests go to."""

    @property
    def nodes(self) -> Sequence[NodeFacts]:
        """All nodes."""

    @property
    def replication(self) -> Mapping[str, int]:
        """Copies by data centre; empty when there is no keyspace."""

    @property
    def forks(self) -> str:
        """Why logs could fork, or ""."""

    @property
    def syncs_transactions(self) -> bool:
        """Whether appends are on disk before they are answered, whatever `commitlog_sync` says."""

    @property
    def schema_version(self) -> int:
        """The newest migration that the keyspace has."""

    @property
    def known_version(self) -> int:
        """The newest migration that this program has."""


def examine_cluster(
    settings: ScyllaSettings, inspect: Callable[[], ClusterFacts]
) -> Iterator[Finding]:
    """Everything that can be seen of the cluster."""
    try:
        seen = inspect()
    except StoreUnavailable as problem:
        yield fail("store", str(problem), _REACH)
        return
    except StoreCorrupt as problem:
        yield fail("store", str(problem), "no node of this version can use it")
        return
    yield from _nodes(seen)
    yield from _keyspace(settings, seen)
    yield from _copies(settings, seen)
    yield from _commit_log(seen)
    yield from _timeouts(settings, seen)


def _nodes(seen: ClusterFacts) -> Iterator[Finding]:
    up = [node for node in seen.nodes if node.up]
    what = f"{seen.engine}, {len(up)} of {len(seen.nodes)} nodes up, data centre {seen.datacenter}"
    down = ", ".join(node.address for node in seen.nodes if not node.up)
    if down:
        yield warn("store", f"{what}; down: {down}", "each node that is down is one copy less")
    else:
        yield ok("store", what)


def _keyspace(settings: ScyllaSettings, seen: ClusterFacts) -> Iterator[Finding]:
    name = settings.keyspace
    if not seen.replication:
        yield ok("schema", f"keyspace {name} is not there yet; `migrate` or the server makes it")
    elif seen.schema_version > seen.known_version:
        yield fail(
            "schema",
            f"keyspace {name} has schema version {seen.schema_version}, this program knows {seen.known_version}",
            "use the newer program",
        )
    elif seen.schema_version < seen.known_version:
        yield warn(
            "schema",
            f"keyspace {name} has schema version {seen.schema_version} of {seen.known_version}",
            "`tidings-server migrate` brings it up to date, or the next server that starts",
        )
    else:
        yield ok("schema", f"keyspace {name} has schema version {seen.schema_version}")
    if seen.forks:
        yield fail(
            "store", seen.forks, "set scylla.home_datacenter, or scylla.consistency = everywhere"
        )


def _copies(settings: ScyllaSettings, seen: ClusterFacts) -> Iterator[Finding]:
    wanted = {name or seen.datacenter: copies for name, copies in settings.copies().items()}
    there = dict(seen.replication) or wanted
    if there != wanted:
        yield warn(
            "copies",
            f"the keyspace has {_tell(there)} copies, scylla.replication says {_tell(wanted)}",
            "it is used only when the keyspace is made; ALTER KEYSPACE and repair change it later",
        )
    for centre, copies in sorted(there.items()):
        up = sum(node.up for node in seen.nodes if node.datacenter == centre)
        quorum = copies // 2 + 1
        what = f"{copies} in {centre or 'any data centre'}, {quorum} of them must answer"
        if up < quorum:
            yield fail("copies", f"{what}, {up} nodes are up", "start nodes, or keep fewer copies")
        elif copies < 3:
            yield warn(
                "copies",
                f"{what}: one node that is down stops its share of the conversations",
                "with 3 copies, one may be down or lost",
            )
        else:
            yield ok("copies", what)


def _commit_log(seen: ClusterFacts) -> Iterator[Finding]:
    asked = [node for node in seen.nodes if node.up and node.datacenter == seen.datacenter]
    silent = [node.address for node in asked if not node.commitlog_sync]
    late = [node.address for node in asked if node.commitlog_sync == "periodic"]
    if silent:
        yield warn(
            "fsync",
            f"{', '.join(silent)} did not tell when the commit log is synced",
            "look at commitlog_sync in the nodes' configuration",
        )
    if late and seen.syncs_transactions:
        yield warn(
            "fsync",
            f"{', '.join(late)}: appends are synced before they are answered; cursors, receipts and memberships are"
            " not (commitlog_sync: periodic), and a power cut of a quorum may take them back",
            "they are written again as devices come back; commitlog_sync: batch would sync them, too",
        )
    elif late:
        one = max(seen.replication.values(), default=1) < 2
        what = f"{', '.join(late)}: writes are answered before the commit log is synced (commitlog_sync: periodic)"
        remedy = "set commitlog_sync: batch (or group) on every node"
        if one:
            yield fail(
                "fsync", f"{what}; with one copy, a power cut loses acknowledged messages", remedy
            )
        else:
            yield warn(
                "fsync",
                f"{what}; a power cut of a quorum of copies at once loses acknowledged messages",
                remedy,
            )
    if asked and not late and not silent:
        yield ok("fsync", "every node syncs its commit log before it answers")


def _timeouts(settings: ScyllaSettings, seen: ClusterFacts) -> Iterator[Finding]:
    longest = max((node.write_timeout_ms or 0 for node in seen.nodes), default=0)
    given = int(settings.request_timeout_s * 1_000)
    if longest >= given:
        yield warn(
            "limits",
            f"the nodes give a write {longest} ms, scylla.request_timeout_s gives them {given} ms",
            "give them longer, or outcomes that they would still tell become unknown",
        )


def _tell(copies: Mapping[str, int]) -> str:
    return ", ".join(f"{name}:{number}" for name, number in sorted(copies.items()))
