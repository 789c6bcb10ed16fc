"""What is answered over HTTP: where each path leads, and to pages of which sites."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from importlib.resources import files

from .asgi import Message, Receive, Scope, Send, answer, header
from .calls import UnaryCalls
from .gate import Origins
from .handshake import PATH
from .upstream import Upstream

_ALLOWED = (
    b"authorization, content-type, connect-protocol-version, connect-timeout-ms, grpc-timeout, traceparent, x-grpc-web,"
    b" x-user-agent"
)
_PREFLIGHT = (
    (b"access-control-allow-methods", b"POST"),
    (b"access-control-allow-headers", _ALLOWED),
    (b"access-control-max-age", b"7200"),
)
_PAGES = frozenset({"/healthz", "/readyz", "/openapi.json", PATH})
_EXPOSED = b"grpc-status, grpc-message, grpc-status-details-bin"


class Pages:
    """An ASGI application. `not_ready` says why clients should not come here, or nothing when they should."""

    def __init__(
        self, upstream: Upstream, origins: Origins, not_ready: Callable[[], str], *, proxied: bool
    ) -> None:
        self._calls = UnaryCalls(upstream, proxied=proxied)
        self._origins = origins
        self._not_ready = not_ready
        self._openapi = (files("tidings_server.bridge") / "openapi.json").read_text("utf-8")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        assert scope["type"] == "http"
        if not all(value.isascii() for _, value in scope["headers"]):
            await answer(send, HTTPStatus.BAD_REQUEST, "Headers are ASCII.")
            return
        origin = header(scope, b"origin")
        if not self._origins.allows(origin, header(scope, b"host")):
            await answer(send, HTTPStatus.FORBIDDEN, "Pages of this Origin are not allowed here.")
            return
        if origin is not None:
            send = _for_origin(send, origin.encode("latin-1"))
        if scope["path"] in self._calls.paths:
            await self._call(scope, receive, send)
        else:
            await self._page(scope, send)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = header(scope, b"content-type") or ""
        if scope["method"] == "OPTIONS":
            await answer(send, HTTPStatus.NO_CONTENT, "", *_PREFLIGHT)
        elif scope["method"] != "POST":
            await answer(send, HTTPStatus.METHOD_NOT_ALLOWED, "", (b"allow", b"POST"))
        elif kind.startswith("application/grpc") and not kind.startswith("application/grpc-web"):
            await answer(
                send, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "gRPC itself has a port of its own."
            )
        else:
            await self._calls(scope, receive, send)

    async def _page(self, scope: Scope, send: Send) -> None:
        path = scope["path"]
        if path not in _PAGES:
            await answer(send, HTTPStatus.NOT_FOUND)
        elif scope["method"] not in {"GET", "HEAD"}:
            await answer(send, HTTPStatus.METHOD_NOT_ALLOWED, "", (b"allow", b"GET, HEAD"))
        elif path == "/healthz":
            await answer(send, HTTPStatus.OK)
        elif path == "/readyz":
            why = self._not_ready()
            await answer(send, HTTPStatus.SERVICE_UNAVAILABLE if why else HTTPStatus.OK, why)
        elif path == "/openapi.json":
            await answer(send, HTTPStatus.OK, self._openapi, kind=b"application/json")
        else:
            upgrade = (b"upgrade", b"websocket")
            await answer(send, HTTPStatus.UPGRADE_REQUIRED, "This is for WebSockets.", upgrade)


def _for_origin(send: Send, origin: bytes) -> Send:
    """Lets pages of a site read the answer."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message["headers"],
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", _EXPOSED),
                (b"vary", b"Origin"),
            ]
        await send(message)

    return sent
