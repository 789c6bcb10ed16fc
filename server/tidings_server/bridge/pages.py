"""What is answered over plain HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from .handshake import PATH

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Pages:
    """An ASGI application. `not_ready` says why clients should not come here, or nothing when they should."""

    def __init__(self, not_ready: Callable[[], str]) -> None:
        self._not_ready = not_ready

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answers one request."""
        assert scope["type"] == "http"
        if scope["method"] not in {"GET", "HEAD"}:
            await answer(send, HTTPStatus.METHOD_NOT_ALLOWED)
        elif scope["path"] == "/healthz":
            await answer(send, HTTPStatus.OK)
        elif scope["path"] == "/readyz":
            why = self._not_ready()
            await answer(send, HTTPStatus.SERVICE_UNAVAILABLE if why else HTTPStatus.OK, why)
        elif scope["path"] == PATH:
            await answer(
                send,
                HTTPStatus.UPGRADE_REQUIRED,
                "This is for WebSockets.",
                (b"upgrade", b"websocket"),
            )
        else:
            await answer(send, HTTPStatus.NOT_FOUND)


async def answer(
    send: Send, status: HTTPStatus, text: str = "", *headers: tuple[bytes, bytes]
) -> None:
    """A status, with a line of text."""
    body = (text or status.phrase.lower()).encode() + b"\n"
    head = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status.value, "headers": head})
    await send({"type": "http.response.body", "body": body})
