"""Servers that tests share: started once a session when the first test asks, and ended with it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.stack.cassandra import CassandraNodes, NodeOptions
from tools.stack.redis import RedisCluster, RedisServer

_MEMORY_DISK = Path("/dev/shm")


@pytest.fixture(scope="session")
def cassandra() -> Iterator[CassandraNodes]:
    """One Cassandra node, on a port that the system chose. What it needs and is missing, is installed."""
    # Its files are many and small, and nothing is cut off from power here.
    where = _MEMORY_DISK if _MEMORY_DISK.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="tidings-cassandra-", dir=where))
    # Machines that run tests may stand still for seconds.
    nodes = CassandraNodes(folder, options=NodeOptions(tied=True, patience_ms=20_000))
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server of Redis that tests leave running; what they write, they part by namespaces."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """A cluster of three servers of Redis."""
    cluster = RedisCluster(tmp_path_factory.mktemp("redis-cluster"))
    try:
        yield cluster.start()
    finally:
        cluster.stop()
