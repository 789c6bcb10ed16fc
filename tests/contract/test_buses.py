"""Every bus keeps the contract."""

from __future__ import annotations

import itertools
import random

import pytest

from tests.contract.bus_contract import BusContract, BusNet, Listener, ManyNodesContract
from tidings_server.bus.local import LocalBus
from tidings_server.bus.redis import RedisBus
from tidings_server.bus.redis.frames import LARGE_BYTES
from tidings_server.redis_options import RedisOptions
from tools.stack.redis import HOST, RedisCluster, RedisServer

_namespaces = itertools.count()


class LocalNet(BusNet):
    async def node(self) -> Listener:
        listener = Listener(LocalBus())
        await listener.bus.start()
        return listener

    async def close(self) -> None:
        """Nothing is held."""


class RedisNet(BusNet):
    largest = LARGE_BYTES

    def __init__(self, *ports: int, cluster: bool = False) -> None:
        self._options = RedisOptions(
            hosts=tuple((HOST, port) for port in ports),
            cluster=cluster,
            namespace=f"bus{next(_namespaces)}",
        )
        self._started: list[Listener] = []

    async def node(self) -> Listener:
        listener = Listener(RedisBus(self._options, random.Random(len(self._started))))
        await listener.bus.start()
        self._started.append(listener)
        return listener

    async def close(self) -> None:
        for listener in self._started:
            await listener.bus.stop()


class TestLocalBus(BusContract):
    @pytest.fixture
    def net(self) -> BusNet:
        return LocalNet()


class TestRedisBus(ManyNodesContract):
    @pytest.fixture
    def net(self, redis_server: RedisServer) -> BusNet:
        return RedisNet(redis_server.port)


class TestRedisClusterBus(ManyNodesContract):
    """With sharded pub/sub, over three servers of which one is named."""

    @pytest.fixture
    def net(self, redis_cluster: RedisCluster) -> BusNet:
        return RedisNet(redis_cluster.servers[0].port, cluster=True)
