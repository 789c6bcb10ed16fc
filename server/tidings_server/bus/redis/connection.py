"""One connection to Redis, as a protocol of asyncio over hiredis: the bus writes and reads without a task or a stream
between. Commands go out in pipelines, replies come back in their order, messages of channels come as pushes (RESP3).
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, cast

import hiredis

from ...redis_options import RedisAddress, RedisOptions

_MORE = object()


class Refused(Exception):
    """Redis does not take this client: wrong password, protocol, or still loading."""


class Receiver(Protocol):
    """What a connection tells. Called on the event loop."""

    def replied(self, reply: Any) -> None:
        """The reply to the oldest command that has none. Errors are `hiredis.ReplyError`."""
        ...

    def pushed(self, push: list[Any]) -> None:
        """Something that is no reply: the kind, and what belongs to it."""
        ...

    def writable(self) -> None:
        """The connection takes more again."""
        ...


class Connection(asyncio.Protocol):
    """A connection. `heard` counts the times that something came; `gone` is done once it is closed."""

    def __init__(self, receiver: Receiver) -> None:
        loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.heard = 0
        self.congested = False
        self._receiver = receiver
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._transport: asyncio.Transport | None = None
        self._greeting: asyncio.Future[Any] | None = loop.create_future()

    async def greet(self, options: RedisOptions) -> None:
        """Says hello. Raises Refused and ConnectionError."""
        hello: list[str] = ["HELLO", "3"]
        if options.password is not None:
            hello += ["AUTH", options.username or "default", options.password]
        hello += ["SETNAME", f"{options.namespace}-bus"]
        assert self._greeting is not None
        self.write(pack(*hello))
        reply = await self._greeting
        self._greeting = None
        if isinstance(reply, Exception):
            raise Refused(str(reply))

    def write(self, data: bytes) -> None:
        """Sends packed commands."""
        # uvloop's transports raise once they are closing, which is told a moment later.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def abort(self) -> None:
        """Ends it at once."""
        if self._transport is not None:
            self._transport.abort()

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # Those of uvloop are none by their class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self.heard += 1
        reader, receiver = self._reader, self._receiver
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _MORE:
                if isinstance(reply, hiredis.PushNotification):
                    receiver.pushed(reply)
                elif self._greeting is None:
                    receiver.replied(reply)
                elif not self._greeting.done():
                    self._greeting.set_result(reply)
        except hiredis.ProtocolError:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """See `asyncio.Protocol`."""
        self._transport = None
        if not self.gone.done():
            self.gone.set_result(None)
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_exception(ConnectionError("the connection was closed"))

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self.congested = True

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self.congested = False
        self._receiver.writable()


async def connect(options: RedisOptions, address: RedisAddress, receiver: Receiver) -> Connection:
    """A connection that has been greeted. Raises OSError (which includes a time-out) and Refused."""
    loop = asyncio.get_running_loop()
    connection: Connection | None = None
    try:
        async with asyncio.timeout(options.connect_s):
            _, connection = await loop.create_connection(
                lambda: Connection(receiver), *address, ssl=options.tls_context()
            )
            await connection.greet(options)
    except BaseException:
        if connection is not None:
            connection.abort()
        raise
    return connection


def pack(*command: str | bytes) -> bytes:
    """A command as it goes over the wire."""
    # Its stub speaks of a tuple of one.
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]
    return packed
