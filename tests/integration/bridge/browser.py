"""Devices as browsers have them: WebSockets of a client library, in either subprotocol."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from google.protobuf import json_format
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.integration.wire import ChatRequest, Command, Taken, token
from tidings.v1 import bridge_pb2, chat_service_pb2

PROTO, JSON = "tidings.v1+proto", "tidings.v1+json"


class WebDevice(Taken):
    """A device on a WebSocket. It keeps all events."""

    def __init__(self, socket: ClientConnection, user: str) -> None:
        super().__init__(user)
        self.socket = socket
        self.json = socket.subprotocol == JSON
        self.closed: tuple[int, str] | None = None
        self._reader: asyncio.Task[None] | None = None

    def read_on(self) -> None:
        if self._reader is None:
            self._reader = asyncio.get_running_loop().create_task(self._read())

    async def show(self, bearer: str, **fields: str) -> None:
        """Sends the first message."""
        opening = bridge_pb2.Opening(token=bearer, **fields)
        await self.socket.send(
            json_format.MessageToJson(opening) if self.json else opening.SerializeToString()
        )

    async def open(self, cursors: dict[str, int] | None = None, **hello: Any) -> WebDevice:
        """Says hello, and waits until it is level."""
        self.read_on()
        request = chat_service_pb2.Hello(**hello)
        for log, seq in (cursors or {}).items():
            request.cursors.add(conversation_id=log, seq=seq)
        await self.send(Command(command_id=self.number(), hello=request))
        await self.until(lambda: self.of("sync_complete"))
        return self

    async def write(self, frame: bytes) -> None:
        await self.socket.send(frame)

    async def send_request(self, request: chat_service_pb2.ChatRequest) -> None:
        if self.json:
            await self.socket.send(json_format.MessageToJson(request))
        else:
            await self.socket.send(request.SerializeToString())

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in self.socket:
                assert isinstance(message, str) is self.json
                if isinstance(message, str):
                    frame = json_format.Parse(message, chat_service_pb2.ChatResponse())
                else:
                    frame = chat_service_pb2.ChatResponse.FromString(message)
                self.events += frame.events
        await self.socket.wait_closed()
        self.closed = (self.socket.close_code or 0, self.socket.close_reason or "")

    async def over(self) -> tuple[int, str]:
        """Waits until the socket is closed; the code and the reason."""
        self.read_on()
        return await self.until(lambda: self.closed) or (0, "")

    async def close(self) -> None:
        await self.socket.close()
        if self._reader is not None:
            await asyncio.wait([self._reader])


async def dial(
    port: int,
    user: str = "",
    *,
    subprotocol: str = PROTO,
    device: str = "browser",
    bearer: str | None = None,
    in_subprotocol: bool = False,
    path: str = "/ws",
    **options: Any,
) -> WebDevice:
    """A device that has shown a token, if it is of a user, and has not said hello."""
    offered = [Subprotocol(subprotocol)]
    shown = token(user, device) if bearer is None and user else bearer or ""
    if in_subprotocol:
        offered.append(Subprotocol(f"tidings.token.{shown}"))
    options.setdefault("max_size", 8 << 20)
    socket = await connect(
        f"ws://127.0.0.1:{port}{path}",
        subprotocols=offered,
        compression=None,
        ping_interval=None,
        **options,
    )
    made = WebDevice(socket, user)
    if shown and not in_subprotocol:
        await made.show(shown)
    return made


__all__ = ["JSON", "PROTO", "ChatRequest", "WebDevice", "dial"]
