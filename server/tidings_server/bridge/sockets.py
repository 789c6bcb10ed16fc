"""What the WebSockets of a bridge share, and which are open."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Protocol

from .closing import GOING_AWAY, Close
from .gate import Origins, Rates
from .upstream import Upstream


class Closable(Hashable, Protocol):
    """A socket, as the registry sees it."""

    def close(self, how: Close = GOING_AWAY) -> None:
        """Tells the client why, and ends."""
        ...


@dataclass(slots=True)
class Sockets:
    """One instance serves all sockets. `proxied_rates` is given when addresses are those that a proxy tells."""

    upstream: Upstream
    origins: Origins
    proxied_rates: Rates | None
    ping_interval_s: float
    max_message_bytes: int
    open: dict[Closable, None] = field(default_factory=dict)

    def add(self, socket: Closable) -> None:
        """A socket has come."""
        self.open[socket] = None

    def discard(self, socket: Closable) -> None:
        """A socket is gone."""
        self.open.pop(socket, None)

    async def close(self, spread_s: float, within_s: float) -> None:
        """Sends all clients away, over `spread_s`; returns when they are gone, or `within_s` after the last."""
        loop = asyncio.get_running_loop()
        sockets = list(self.open)
        began = loop.time()
        for number, socket in enumerate(sockets):
            await asyncio.sleep(began + spread_s * number / len(sockets) - loop.time())
            socket.close()
        deadline = loop.time() + within_s
        # Only at the end of a process: not worth an event that sockets would have to set.
        while self.open and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
