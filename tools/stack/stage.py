"""What faults are dealt to: servers that clients reach through proxies."""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from pathlib import Path

from .proxy import Link, Proxy
from .server import Server


class Stage(ABC):
    """Servers with their files in a folder.

    Attributes:
        lease_s: Seconds that a silent server counts as alive; alone, a measure of what is long.
        client_links: By server, what clients reach it by; empty without such proxies.
    """

    def __init__(self, folder: Path, *, secret: str = "", lease_s: float = 4) -> None:
        self.folder = folder
        self.lease_s = lease_s
        self.secret = secret or secrets.token_hex(32)
        self.servers: list[Server] = []
        self.client_links: list[Proxy] = []

    @abstractmethod
    async def start(self) -> float:
        """Starts everything; returns how long that took, in seconds. Raises CannotStart and ServerFailed."""

    async def stop(self) -> None:
        """Ends everything."""
        for server in self.servers:
            server.thaw()
        await asyncio.gather(*(server.stop() for server in self.servers))
        for front in self.client_links:
            await front.stop()

    async def _put_proxy_before(self, server: Server) -> None:
        front = Proxy(server.port)
        await front.start()
        self.client_links.append(front)

    @property
    def addresses(self) -> list[str]:
        """Where clients reach the servers."""
        fronts = self.client_links or self.servers
        return [f"127.0.0.1:{front.port}" for front in fronts]

    def links(self, number: int) -> list[Link]:
        """All links of a server: what clients reach it by, and what it reaches its engines by."""
        return [*self.client_links[number : number + 1]]

    def heal(self) -> None:
        """All links are whole again."""
        for link in self.client_links:
            link.heal()

    # What is measured

    @property
    @abstractmethod
    def told(self) -> str:
        """What it is, for reports."""

    def versions(self) -> dict[str, str]:
        """The engines."""
        return {}

    def cpu_s(self) -> float:
        """Seconds of CPU of all servers, over all starts."""
        return sum(server.cpu_s() for server in self.servers)

    @property
    def peak_rss(self) -> int:
        """The largest memory of a server, in bytes."""
        return max(server.peak_rss for server in self.servers)

    def database_bytes(self) -> int:
        """The size of what is stored."""
        return sum(server.database_bytes() for server in self.servers)

    def complaints(self) -> list[str]:
        """The errors in the logs of all servers, over all starts."""
        return [line for server in self.servers for line in server.complaints()]

    @property
    def ended_by_itself(self) -> bool:
        """Whether a server has ended without having been told to."""
        return any(server.ended_by_itself for server in self.servers)

    def said(self) -> str:
        """The ends of the servers' logs."""
        return "\n".join(server.said() for server in self.servers)


class Alone(Stage):
    """One server on SQLite."""

    async def start(self) -> float:
        """See Stage."""
        self.folder.mkdir(parents=True, exist_ok=True)
        server = Server(self.folder / "server", self.secret)
        self.servers.append(server)
        took = await server.start()
        await self._put_proxy_before(server)
        return took

    @property
    def told(self) -> str:
        """See Stage."""
        return "one server on SQLite, which clients reach through a proxy"
