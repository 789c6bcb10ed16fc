"""The HTTP port: WebSockets and everything else that browsers ask for, on the event loop of the process."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvicorn

from .certificate import ServerCertificate
from .gate import Origins, Rates
from .http import Bounds, HttpConnection
from .pages import Pages
from .socket import WebSocket
from .sockets import Sockets
from .upstream import Upstream

_BACKLOG = 2048
_FAREWELL_S = 2.0
# A frame over the session's own limit gets an error of its own; only what is far over it closes the socket.
_MESSAGE_SLACK = 2


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """What holds for clients; docs/configuration.md has them as `bridge.*`."""

    max_frame_bytes: int
    allowed_origins: tuple[str, ...] = ()
    ping_interval_s: float = 20
    max_connections: int = 20_000
    connects_a_second: float = 50
    connects_at_once: float = 200
    behind_proxy: bool = False


class BridgeServer:
    """Listens from construction; serves between `start` and `stop`."""

    def __init__(
        self,
        host: str,
        port: int,
        upstream: Upstream,
        options: BridgeOptions,
        *,
        not_ready: Callable[[], str],
        certificate: ServerCertificate | None = None,
    ) -> None:
        """`not_ready` says why clients should not come here, in a line, or nothing when they should.

        Raises OSError when the address can't be had.
        """
        now = asyncio.get_running_loop().time
        rates = Rates(options.connects_a_second, options.connects_at_once, now)
        proxied = options.behind_proxy
        origins = Origins(options.allowed_origins)
        self._sockets = Sockets(
            upstream,
            origins,
            rates if proxied else None,
            options.ping_interval_s,
            options.max_frame_bytes * _MESSAGE_SLACK,
        )
        bounds = Bounds(options.max_connections, None if proxied else rates)
        self._listener = _listen(host, port)
        self.port = int(self._listener.getsockname()[1])
        config = uvicorn.Config(
            Pages(upstream, origins, not_ready, proxied=proxied),
            # These are called as the classes are that uvicorn's types ask for.
            http=_maker(bounds, self._sockets),  # type: ignore[arg-type]
            ws=lambda **_: WebSocket(self._sockets),  # type: ignore[arg-type]
            interface="asgi3",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=math.ceil(_FAREWELL_S),
        )
        config.load()
        if certificate is not None:
            config.ssl = certificate.context()
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to serve."""
        await self._server.startup([self._listener])
        self._serving = asyncio.create_task(self._server.main_loop())

    async def stop(self, spread_s: float = 0) -> None:
        """Takes no new connections, and sends away whoever is left, one by one over `spread_s`."""
        if self._serving is None:
            self._listener.close()
            return
        for listening in self._server.servers:
            listening.close()
        await self._sockets.close(spread_s, _FAREWELL_S)
        self._server.should_exit = True
        await self._serving
        await self._server.shutdown([self._listener])


class _Server(uvicorn.Server):
    """Run step by step, not by `serve`, which would take the signals of the process for itself."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.lifespan = config.lifespan_class(config)


def _maker(bounds: Bounds, sockets: Sockets) -> Callable[..., HttpConnection]:
    def connection(**given: Any) -> HttpConnection:
        return HttpConnection(bounds, sockets.open, **given)

    return connection


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as problem:
        listener.close()
        raise OSError(problem.errno, f"can't listen on {host}:{port}: {problem.strerror}") from None
    listener.setblocking(False)
    return listener
