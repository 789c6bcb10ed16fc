"""The port of the bridge: where the frames of a device go to, be it a session here or a stream to a server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from google.rpc import status_pb2

from ..delivery.outbox import Sink
from ..operations.unary import WhenTaken
from .closing import Close


@dataclass(frozen=True, slots=True)
class Caller:
    """Who opens a session: a token that nobody has looked at yet, a W3C trace context or nothing, and an address."""

    token: str
    traceparent: str
    address: str


class Line(Protocol):
    """The session of one device, as its transport sees it."""

    ended: asyncio.Future[Close]
    """Done when the session is over; its result is how the transport is to be closed."""

    def receive(self, frame: bytes) -> bool:
        """Takes a frame from the device, and raises nothing. False: the next one only after `ready`."""
        ...

    async def ready(self) -> None:
        """Returns when the next frame may be given, or the session is over."""
        ...

    def close(self) -> None:
        """The device is gone. May be called twice."""
        ...


class CallRefused(Exception):
    """A unary call was answered by an error; `status` has what is told of it."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status


class Upstream(Protocol):
    """Opens sessions, and carries out calls."""

    async def open(self, caller: Caller, sink: Sink) -> Line:
        """The session of a device, whose frames go into `sink`. Raises DomainError when the caller is refused."""
        ...

    async def call(self, path: str, caller: Caller, request: bytes, when_taken: WhenTaken) -> bytes:
        """The response of the method at `path` to a request, both serialised. Raises CallRefused."""
        ...
