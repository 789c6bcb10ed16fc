"""A TCP proxy for faults: connections through it are cut, refused, half-open, slow or unanswered, as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

_CHUNK: Final = 1 << 16
_RESET: Final = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _Connection:
    """One connection through a proxy.

    A spoilt one has lost bytes: it must not go on as if it had not. What is held of one whose client is gone may still
    be sent.
    """

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    held: list[bytes] = field(default_factory=list)
    spoilt: bool = False
    gone: bool = False


class Link:
    """Some connections that share a fate.

    `answering` lets answers pass; otherwise they are thrown away. `passing` lets requests pass; otherwise they are
    held, until `release` sends them, also for a client that is gone by then. `accepting` takes new connections;
    otherwise they are reset. `slow_s` is how long each piece of at most 64 KiB waits, in either direction.
    """

    def __init__(self) -> None:
        self.answering = True
        self.passing = True
        self.accepting = True
        self.slow_s = 0.0
        self.lost = 0
        """Bytes of answers that were thrown away."""
        self.connections: dict[_Connection, None] = {}

    @property
    def holding(self) -> bool:
        """Whether requests are held."""
        return any(connection.held for connection in self.connections)

    def cut(self) -> None:
        """Resets all connections of clients. What is held of them stays."""
        for connection in self.connections:
            _reset(connection.client)

    def refuse(self) -> None:
        """Cuts, and resets whoever connects, until `heal`."""
        self.accepting = False
        self.cut()

    def half_open(self) -> None:
        """Connections stay and are accepted, and nothing passes in either direction, until `heal`."""
        self.passing = self.answering = False

    def drop_answers(self) -> None:
        """Requests pass, and nobody hears what came of them, until `heal`."""
        self.answering = False

    def heal(self) -> None:
        """Everything passes again. Connections that have lost something, in either direction, are reset."""
        self.answering = self.passing = self.accepting = True
        self.slow_s = 0.0
        for connection in self.connections:
            if connection.held or connection.spoilt:
                connection.held.clear()
                _reset(connection.client)
                connection.server.close()

    async def release(self) -> None:
        """Sends what is held."""
        for connection in list(self.connections):
            with contextlib.suppress(ConnectionError):
                await _write(connection.server, b"".join(connection.held))
            connection.held.clear()
            if connection.gone:
                connection.server.close()


class Proxy(Link):
    """A link to a server, with the address that clients connect to.

    `choose`, given the port that a client connects from, names the link that its connection belongs to; without, all
    belong to the proxy itself.
    """

    def __init__(
        self,
        port: int,
        *,
        to_host: str = "127.0.0.1",
        host: str = "127.0.0.1",
        listen_port: int = 0,
        choose: Callable[[int], Link] | None = None,
    ) -> None:
        super().__init__()
        self.host = host
        self.port = listen_port
        self.to_port = port
        self._to_host = to_host
        self._choose = choose
        self._server: asyncio.Server | None = None
        self._tasks: dict[asyncio.Task[None], None] = {}

    async def start(self) -> None:
        """Takes connections."""
        self._server = await asyncio.start_server(self._accept, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Takes no new connections, and cuts those there are."""
        assert self._server is not None
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = None
        try:
            await self._carry(reader, writer)
        except asyncio.CancelledError:
            # `stop` ends it: the server's own callback would log it as a failure.
            pass
        finally:
            del self._tasks[task]

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link: Link = self
        if self._choose is not None:
            link = self._choose(writer.get_extra_info("peername")[1])
        if not link.accepting:
            _reset(writer)
            return
        try:
            answers, to_server = await asyncio.open_connection(self._to_host, self.to_port)
        except OSError:
            _reset(writer)
            return
        connection = _Connection(writer, to_server)
        link.connections[connection] = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_requests(link, connection, reader))
                group.create_task(_answers(link, connection, answers))
        finally:
            del link.connections[connection]
            for end in (writer, to_server):
                _reset(end)
                with contextlib.suppress(OSError):
                    await end.wait_closed()


async def _requests(link: Link, connection: _Connection, reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            if link.slow_s:
                await asyncio.sleep(link.slow_s)
            if link.passing and not connection.held:
                await _write(connection.server, data)
            else:
                connection.held.append(data)
    connection.gone = True
    if not connection.held:
        connection.server.close()


async def _answers(link: Link, connection: _Connection, answers: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await answers.read(_CHUNK):
            if link.slow_s:
                await asyncio.sleep(link.slow_s)
            if link.answering and not connection.spoilt:
                await _write(connection.client, data)
            else:
                connection.spoilt = True
                link.lost += len(data)
    connection.client.close()


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Sends it all. Raises ConnectionError."""
    if writer.is_closing():
        raise ConnectionResetError("the other side is gone")
    writer.write(data)
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection by a reset rather than in good order."""
    if not writer.is_closing():
        with contextlib.suppress(OSError):
            end = writer.get_extra_info("socket")
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
