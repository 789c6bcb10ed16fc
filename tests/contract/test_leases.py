"""All leases keep the contract."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from tests.contract.leases_contract import LeaseNet, LeasesContract, ManyNodesLeasesContract
from tidings_server.presence.base import Leases, NodeInfo
from tidings_server.presence.local import LocalLeases
from tidings_server.presence.redis import RedisLeases
from tidings_server.redis_options import RedisOptions
from tools.stack.redis import HOST, RedisCluster, RedisServer

LEASE_S = 1.0
_namespaces = itertools.count()


def info(name: str) -> NodeInfo:
    return NodeInfo(name, f"{name}.example:50051", "1")


class LocalLeaseNet(LeaseNet):
    async def node(self, name: str) -> Leases:
        leases = LocalLeases(info(name))
        await leases.start()
        return leases

    async def vanish(self, leases: Leases) -> None:
        """Takes all that it knows with it."""

    async def close(self) -> None:
        """Nothing is held."""


class RedisLeaseNet(LeaseNet):
    def __init__(self, *ports: int, cluster: bool = False) -> None:
        self._options = RedisOptions(
            hosts=tuple((HOST, port) for port in ports),
            cluster=cluster,
            namespace=f"leases{next(_namespaces)}",
        )
        self._started: list[RedisLeases] = []

    async def node(self, name: str) -> Leases:
        rng = random.Random(f"{name}{self._options.namespace}")
        leases = RedisLeases(self._options, info(name), rng, lease_s=LEASE_S)
        await leases.start()
        self._started.append(leases)
        return leases

    async def vanish(self, leases: Leases) -> None:
        assert isinstance(leases, RedisLeases)
        self._started.remove(leases)
        assert leases._task is not None
        # The client may take a cancellation for an answer that did not come.
        leases._stopping.set()
        tasks = [task for task in (leases._task, leases._seeing_off) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await leases._client.aclose()

    async def close(self) -> None:
        for leases in self._started:
            await leases.stop()


class TestLocalLeases(LeasesContract):
    @pytest.fixture
    def net(self) -> LeaseNet:
        return LocalLeaseNet()


class TestRedisLeases(ManyNodesLeasesContract):
    @pytest.fixture
    def net(self, redis_server: RedisServer) -> LeaseNet:
        return RedisLeaseNet(redis_server.port)


class TestRedisClusterLeases(ManyNodesLeasesContract):
    @pytest.fixture
    def net(self, redis_cluster: RedisCluster) -> LeaseNet:
        return RedisLeaseNet(redis_cluster.servers[1].port, cluster=True)
