"""Topology: which server of Redis a channel belongs to."""

from __future__ import annotations

from abc import ABC, abstractmethod

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisError

from ...redis_options import RedisAddress, RedisOptions


class Topology(ABC):
    """Where channels live."""

    @abstractmethod
    async def refresh(self) -> bool:
        """Looks again. Returns whether that was possible."""

    @abstractmethod
    def address_of(self, channel: bytes) -> RedisAddress:
        """The server that a channel is to be subscribed at and published to, as far as is known."""

    @abstractmethod
    async def close(self) -> None:
        """Lets go of everything."""


class OneServer(Topology):
    """All channels are at one server."""

    def __init__(self, options: RedisOptions) -> None:
        self._address = options.hosts[0]

    async def refresh(self) -> bool:
        """See `Topology`."""
        return True

    def address_of(self, channel: bytes) -> RedisAddress:  # noqa: ARG002
        """See `Topology`."""
        return self._address

    async def close(self) -> None:
        """See `Topology`."""


class Cluster(Topology):
    """A channel is at the primary of its slot. Before the first look, at the first server that is named."""

    def __init__(self, options: RedisOptions) -> None:
        self._options = options
        self._cluster: RedisCluster | None = None
        self._known: dict[int, RedisAddress] = {}

    async def refresh(self) -> bool:
        """See `Topology`."""
        asked = self._options.client()
        assert isinstance(asked, RedisCluster)
        try:
            await asked.initialize()
        except (RedisError, OSError):
            await asked.aclose()
            return False
        before, self._cluster, self._known = self._cluster, asked, {}
        if before is not None:
            await before.aclose()
        return True

    def address_of(self, channel: bytes) -> RedisAddress:
        """See `Topology`."""
        if self._cluster is None:
            return self._options.hosts[0]
        slot = self._cluster.keyslot(channel)
        address = self._known.get(slot)
        if address is None:
            address = self._known[slot] = self._look_up(channel)
        return address

    async def close(self) -> None:
        """See `Topology`."""
        if self._cluster is not None:
            await self._cluster.aclose()

    def _look_up(self, channel: bytes) -> RedisAddress:
        assert self._cluster is not None
        try:
            node = self._cluster.get_node_from_key(channel.decode())
        except RedisError:
            # Nobody has the slot: any server says so, and it is looked up again.
            return self._options.hosts[0]
        assert node is not None
        return str(node.host), int(node.port)
