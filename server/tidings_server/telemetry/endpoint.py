"""The operator's port: /metrics for Prometheus, /healthz and /readyz for whoever restarts servers.

It runs in threads of its own, so that it answers even when the event loop is late.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


class Endpoint:
    """Listens from construction until `stop`.

    `healthy` says whether the process works at all, `not_ready` why clients should not come here, in a line, or nothing
    when they should. Both are called from other threads and must not block.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        *,
        healthy: Callable[[], bool],
        not_ready: Callable[[], str],
    ) -> None:
        """Raises OSError when the address can't be had."""
        metrics = make_wsgi_app(registry)

        def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
            path = environ.get("PATH_INFO", "")
            if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
                return _answer(start, "405 Method Not Allowed")
            if path == "/metrics":
                return cast("Iterable[bytes]", metrics(environ, start))
            if path == "/healthz":
                return _answer(start, "200 OK" if healthy() else "503 Service Unavailable")
            if path == "/readyz":
                why = not_ready()
                return _answer(start, "503 Service Unavailable" if why else "200 OK", why)
            return _answer(start, "404 Not Found")

        kind = _Server6 if ":" in host else _Server
        try:
            self._server = kind((host, port), _Handler)
        except OSError as problem:
            text = f"metrics can't listen on {host}:{port}: {problem.strerror}"
            raise OSError(problem.errno, text) from None
        self._server.set_app(app)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that was had."""
        return int(self._server.server_port)

    def stop(self) -> None:
        """Closes the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _answer(start: StartResponse, status: str, text: str = "") -> Iterable[bytes]:
    body = (text or status[4:].lower()).encode() + b"\n"
    start(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    # A scrape under way must not hold up the end of the process.
    block_on_close = False

    def server_bind(self) -> None:
        # Without the look-up of the host's name that the base class does.
        socket_address = self.server_address
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(socket_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in mid-answer is no event."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, *args: object) -> None:
        pass
