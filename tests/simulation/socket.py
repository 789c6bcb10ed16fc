"""Connections of bytes from a process to a service of the simulation, as transports of asyncio."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from .loop import Process, SimLoop

_WRITTEN_BYTES = 64 * 1024
"""What may be under way before the process is asked to wait."""


class Peer(Protocol):
    """The other end."""

    def received(self, data: bytes) -> None:
        """Bytes have come, in their order."""

    def closed(self) -> None:
        """The connection is over."""


class SimSocket(asyncio.Transport):
    """A connection of a process. What is under way belongs to the network: it arrives, whether or not the process
    lives on.

    `delay` gives the seconds that a packet is under way; nothing overtakes. `among` are the connections that are open.
    """

    peer: Peer

    def __init__(
        self,
        loop: SimLoop,
        process: Process,
        protocol: Any,
        delay: Callable[[], float],
        among: dict[SimSocket, None],
    ) -> None:
        super().__init__()
        self.process = process
        self._loop = loop
        self._protocol = protocol
        self._delay = delay
        self._among = among
        self._cut = self._closing = self._paused = self._full = False
        self._there: deque[bytes] = deque()
        self._back: deque[bytes] = deque()
        self._arrived: deque[bytes] = deque()
        self._last = [0.0, 0.0]
        self._written = 0
        among[self] = None

    # The process' side

    def write(self, data: Any) -> None:
        """See `asyncio.Transport`."""
        if self._closing or not data:
            return
        self._written += len(data)
        if self._written > _WRITTEN_BYTES and not self._full:
            self._full = True
            self._protocol.pause_writing()
        if not self._cut:
            self._there.append(bytes(data))
            self._travel(0, self._arrive_there)

    def is_closing(self) -> bool:
        """See `asyncio.Transport`."""
        return self._closing

    def close(self) -> None:
        """See `asyncio.Transport`."""
        self._end(None)

    def abort(self) -> None:
        """See `asyncio.Transport`."""
        self._end(None)

    def pause_reading(self) -> None:
        """See `asyncio.Transport`."""
        self._paused = True

    def resume_reading(self) -> None:
        """See `asyncio.Transport`."""
        self._paused = False
        self._hand_on()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See `asyncio.Transport`."""
        return ("192.0.2.1", 6379) if name == "peername" else default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """See `asyncio.Transport`."""
        self._protocol = protocol

    def get_protocol(self) -> Any:
        """See `asyncio.Transport`."""
        return self._protocol

    # The other side

    def send_back(self, data: bytes) -> None:
        """The peer sends bytes."""
        if not self._cut:
            self._back.append(data)
            self._travel(1, self._arrive_back)

    # The simulation's side

    def stall(self, until: float) -> None:
        """Nothing that is sent from now on arrives before a moment."""
        self._last = [max(last, until) for last in self._last]

    def cut(self, noticed_after: float | None) -> None:
        """The wire is cut, with what is under way; the process notices after some seconds, or only by the silence."""
        if self._cut:
            return
        self._cut = True
        self._among.pop(self, None)
        self._there.clear()
        self._back.clear()
        self.peer.closed()
        if noticed_after is not None:
            self._loop.later(noticed_after, self._end, ConnectionResetError("reset"))

    def _end(self, problem: Exception | None) -> None:
        """The process' end closes. What it wrote before still arrives, then the peer learns of it."""
        if self._closing:
            return
        self._closing = True
        if not self._cut:
            self._travel(0, self._gone)
        self._loop.soon(self.process, self._protocol.connection_lost, problem)

    def _gone(self) -> None:
        self.cut(None)

    def _travel(self, way: int, arrive: Callable[[], None]) -> None:
        now = self._loop.time()
        self._last[way] = at = max(now + self._delay(), self._last[way])
        self._loop.later(at - now, arrive)

    def _arrive_there(self) -> None:
        # Whichever timer fires, what was sent first arrives first.
        if self._there:
            data = self._there.popleft()
            self._written -= len(data)
            if self._full and self._written <= _WRITTEN_BYTES // 2:
                self._full = False
                self._loop.soon(self.process, self._writable)
            self.peer.received(data)

    def _writable(self) -> None:
        if not self._closing:
            self._protocol.resume_writing()

    def _arrive_back(self) -> None:
        if self._back:
            self._arrived.append(self._back.popleft())
            self._loop.soon(self.process, self._hand_on)

    def _hand_on(self) -> None:
        while self._arrived and not self._paused and not self._closing:
            self._protocol.data_received(self._arrived.popleft())
