"""What the client needs of a network: the port and its contract."""

from __future__ import annotations

from typing import Protocol

from .errors import Code, TidingsError, Unavailable, error_for


class ConnectionLost(Unavailable):
    """The connection broke, or could not be made."""


class EndOfStream(Exception):
    """The server ended the stream.

    Attributes:
        error: Why, with the code OK when no reason was given. Its reason is empty unless a Tidings server gave one.
    """

    def __init__(self, error: TidingsError | None = None) -> None:
        self.error = error or error_for(Code.OK, "the server ended the stream")
        super().__init__(str(self.error))


class Connection(Protocol):
    """One Chat stream. Frames are serialised ChatRequest and ChatResponse messages."""

    async def send(self, frame: bytes) -> None:
        """Hand a frame to the network, waiting while it takes no more. One call at a time.

        Frames arrive in order. A return says nothing of their arrival. Raises ConnectionLost when the stream is over;
        then `receive` raises as well, once it has returned what had arrived.
        """
        ...

    async def receive(self) -> bytes:
        """The next frame. One call at a time; cancelling a call may end the stream.

        Raises EndOfStream when the server ended the stream, and ConnectionLost when the network did.
        """
        ...

    async def close(self, *, graceful: bool) -> None:
        """End the stream, once. Gracefully, what was handed over before is carried over first, for a second at most."""
        ...


class Transport(Protocol):
    """Where the server is and how to get there."""

    async def connect(self, token: str) -> Connection:
        """Open a Chat stream for the bearer of a token.

        Raises ConnectionLost, or TidingsError when the server refused; a refusal may as well come from `receive`.
        """
        ...

    async def call(self, method: str, request: bytes, token: str, timeout: float) -> bytes:
        """Carry out a unary operation, such as "tidings.v1.MessageService/GetMessage", within `timeout` seconds.

        Takes and returns serialised messages. Raises TidingsError.
        """
        ...

    def renew(self) -> None:
        """The server goes away: whatever begins from now on goes by a new connection, to another address if there are
        several. What is under way is not disturbed.
        """
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...
