"""The leases of a node that is alone: nobody else has users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .base import Leases, NodeInfo


class LocalLeases(Leases):
    """See `Leases`."""

    def __init__(self, node: NodeInfo | None = None) -> None:
        self._node = node or NodeInfo("local")
        self._users: set[str] = set()

    @property
    def node(self) -> NodeInfo:
        """See `Leases`."""
        return self._node

    @property
    def informed(self) -> bool:
        """See `Leases`."""
        return True

    def announce(self, node: NodeInfo) -> None:
        """See `Leases`."""
        self._node = node

    async def start(self) -> None:
        """See `Leases`."""

    async def stop(self) -> None:
        """See `Leases`."""
        self._users.clear()

    def came(self, user_id: str) -> None:
        """See `Leases`."""
        self._users.add(user_id)

    def left(self, user_id: str) -> None:
        """See `Leases`."""
        self._users.discard(user_id)

    async def online(self, user_ids: Iterable[str]) -> set[str]:
        """See `Leases`."""
        return self._users.intersection(user_ids)

    def nodes(self) -> Mapping[str, NodeInfo]:
        """See `Leases`."""
        return {self._node.node_id: self._node}
