from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidings_server.cluster_doctor import examine_cluster
from tidings_server.config import ScyllaSettings
from tidings_server.findings import Finding, Level
from tidings_server.storage.base import StoreCorrupt, StoreUnavailable


@dataclass(frozen=True)
class Node:
    address: str
    datacenter: str = "east"
    up: bool = True
    commitlog_sync: str = "batch"
    write_timeout_ms: int | None = 2_000


@dataclass(frozen=True)
class Seen:
    engine: str = "Cassandra 5.0.6"
    datacenter: str = "east"
    nodes: tuple[Node, ...] = (Node("10.0.0.1"), Node("10.0.0.2"), Node("10.0.0.3"))
    replication: Mapping[str, int] = field(default_factory=lambda: {"east": 3})
    forks: str = ""
    syncs_transactions: bool = False
    schema_version: int = 1
    known_version: int = 1


def look(
    seen: Seen | Exception, settings: ScyllaSettings | None = None
) -> dict[str, list[Finding]]:
    def inspect() -> Seen:
        if isinstance(seen, Exception):
            raise seen
        return seen

    found: dict[str, list[Finding]] = {}
    for finding in examine_cluster(settings or ScyllaSettings(), inspect):
        assert bool(finding.remedy) == (finding.level is not Level.OK)
        found.setdefault(finding.subject, []).append(finding)
    return found


def levels(found: dict[str, list[Finding]], subject: str) -> list[Level]:
    return [finding.level for finding in found.get(subject, [])]


def test_a_cluster_that_keeps_the_promise_is_well() -> None:
    found = look(Seen())
    assert {f.level for each in found.values() for f in each} == {Level.OK}
    assert set(found) == {"store", "schema", "copies", "fsync"}


def test_a_cluster_that_cannot_be_used_fails() -> None:
    assert levels(look(StoreUnavailable("nobody answers")), "store") == [Level.FAIL]
    assert levels(look(StoreCorrupt("of a newer version")), "store") == [Level.FAIL]


def test_nodes_that_are_down_are_named() -> None:
    nodes = (Node("10.0.0.1"), Node("10.0.0.2"), Node("10.0.0.3", up=False))
    found = look(Seen(nodes=nodes))
    assert levels(found, "store") == [Level.WARN]
    assert "10.0.0.3" in found["store"][0].what
    assert levels(found, "copies") == [Level.OK]


def test_copies_that_cannot_make_a_quorum_fail() -> None:
    nodes = (Node("10.0.0.1"), Node("10.0.0.2", up=False), Node("10.0.0.3", up=False))
    assert levels(look(Seen(nodes=nodes)), "copies") == [Level.FAIL]
    # Before the keyspace is made, what the settings ask for is held against the nodes.
    alone = Seen(nodes=(Node("10.0.0.1"),), replication={}, schema_version=0)
    assert levels(look(alone), "copies") == [Level.FAIL]
    assert levels(look(alone, ScyllaSettings(replication="1")), "copies") == [Level.WARN]


def test_one_or_two_copies_are_few() -> None:
    for copies in (1, 2):
        settings = ScyllaSettings(replication=str(copies))
        assert levels(look(Seen(replication={"east": copies}), settings), "copies") == [Level.WARN]


def test_another_replication_than_the_settings_say_is_told() -> None:
    found = look(Seen(replication={"east": 3, "west": 3}))
    assert found["copies"][0].level is Level.WARN
    assert "east:3, west:3" in found["copies"][0].what


def test_a_commit_log_that_is_synced_later_is_reported() -> None:
    late = tuple(Node(f"10.0.0.{n}", commitlog_sync="periodic") for n in (1, 2, 3))
    found = look(Seen(nodes=late))
    assert levels(found, "fsync") == [Level.WARN]
    assert "acknowledged" in found["fsync"][0].what
    one = Seen(nodes=late[:1], replication={"east": 1})
    assert levels(look(one, ScyllaSettings(replication="1")), "fsync") == [Level.FAIL]
    # ScyllaDB syncs transactions all the same, but not the other writes.
    scylla = look(Seen(nodes=late, engine="ScyllaDB", syncs_transactions=True))
    assert levels(scylla, "fsync") == [Level.WARN]
    assert "cursors" in scylla["fsync"][0].what
    silent = look(Seen(nodes=(Node("10.0.0.1", commitlog_sync=""), *late[1:])))
    assert levels(silent, "fsync") == [Level.WARN, Level.WARN]


def test_a_timeout_below_the_nodes_own_is_reported() -> None:
    assert levels(look(Seen(), ScyllaSettings(request_timeout_s=2)), "limits") == [Level.WARN]
    assert levels(look(Seen(), ScyllaSettings(request_timeout_s=2.5)), "limits") == []


def test_logs_that_could_fork_fail() -> None:
    found = look(Seen(forks="copies in two data centres"))
    assert Level.FAIL in levels(found, "store")


def test_the_schema_is_told() -> None:
    assert levels(look(Seen(schema_version=2)), "schema") == [Level.FAIL]
    assert levels(look(Seen(schema_version=1, known_version=2)), "schema") == [Level.WARN]
