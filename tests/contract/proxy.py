"""A TCP proxy that loses answers, holds requests back, and cuts connections, as it is told."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field


@dataclass(eq=False)
class _Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    held: list[bytes] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class Proxy:
    """Between clients and a server on this machine.

    `answering` lets answers pass; otherwise they are thrown away. `passing` lets requests pass; otherwise they are
    held, until `release` sends them, also for a client that is gone by then.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._links: dict[_Link, None] = {}
        self._server: asyncio.Server | None = None
        self.port = 0
        self.answering = True
        self.passing = True
        self.lost = 0
        """Bytes of answers that were thrown away."""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Takes no new connections, and cuts those there are."""
        assert self._server is not None
        self._server.close()
        self.cut()
        for link in list(self._links):
            link.server.close()
        tasks = [task for link in self._links for task in link.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._links.clear()

    @property
    def holding(self) -> bool:
        """Whether requests are held."""
        return any(link.held for link in self._links)

    def cut(self) -> None:
        """Ends all connections of clients. What is held of them stays."""
        for link in self._links:
            link.client.transport.abort()

    async def release(self) -> None:
        """Sends what is held."""
        for link in list(self._links):
            for data in link.held:
                link.server.write(data)
            link.held.clear()
            with contextlib.suppress(ConnectionError):
                await link.server.drain()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, to_server = await asyncio.open_connection("127.0.0.1", self._to)
        link = _Link(writer, to_server)
        self._links[link] = None
        link.tasks = [
            asyncio.create_task(self._requests(link, reader)),
            asyncio.create_task(self._answers(link, answers)),
        ]

    async def _requests(self, link: _Link, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if self.passing and not link.held:
                    link.server.write(data)
                else:
                    link.held.append(data)
        if not link.held:
            link.server.close()

    async def _answers(self, link: _Link, answers: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await answers.read(1 << 16):
                if self.answering:
                    link.client.write(data)
                else:
                    self.lost += len(data)
        link.client.close()
