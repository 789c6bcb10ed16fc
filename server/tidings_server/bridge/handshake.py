"""The handshake of a WebSocket: what a request must have, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

from websockets.datastructures import MultipleValuesError
from websockets.exceptions import InvalidHandshake
from websockets.headers import parse_subprotocol
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol as Name

from .gate import Origins, Rates, forwarded
from .messages import SUBPROTOCOLS, TOKEN_PREFIX, Subprotocol

PATH = "/ws"


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a client asks for: how frames are written, a token or nothing, and a trace context or nothing."""

    subprotocol: Subprotocol
    token: str
    traceparent: str


class Refused(Exception):
    """A handshake that is answered by an HTTP status."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status

    def response(self, connection: ServerProtocol) -> Response:
        """The answer."""
        response = connection.reject(self.status, f"{self}\n")
        if self.status is HTTPStatus.TOO_MANY_REQUESTS:
            response.headers["Retry-After"] = "1"
        return response


def read(request: Request, origins: Origins) -> Handshake:
    """What a request asks for. Raises Refused."""
    if request.path.partition("?")[0] != PATH:
        raise Refused(HTTPStatus.NOT_FOUND, f"WebSockets are at {PATH}.")
    try:
        origin, host = request.headers.get("Origin"), request.headers.get("Host")
        offered = [
            name
            for value in request.headers.get_all("Sec-WebSocket-Protocol")
            for name in parse_subprotocol(value)
        ]
    except (InvalidHandshake, MultipleValuesError):
        raise Refused(HTTPStatus.BAD_REQUEST, "A header is malformed.") from None
    if not origins.allows(origin, host):
        raise Refused(HTTPStatus.FORBIDDEN, "Pages of this Origin are not allowed here.")
    chosen = next((SUBPROTOCOLS[name] for name in offered if name in SUBPROTOCOLS), None)
    if chosen is None:
        known = " or ".join(SUBPROTOCOLS)
        raise Refused(HTTPStatus.BAD_REQUEST, f"Offer the subprotocol {known}.")
    tokens = [name.removeprefix(TOKEN_PREFIX) for name in offered if name.startswith(TOKEN_PREFIX)]
    traceparent = request.headers.get_all("traceparent")
    return Handshake(chosen, tokens[0] if tokens else "", traceparent[0] if traceparent else "")


def client_address(request: Request, address: str, rates: Rates | None) -> str:
    """Where a client is: `address`, or what a proxy says of it when `rates` is given, which then counts it.

    Raises Refused.
    """
    if rates is None:
        return address
    told = forwarded(",".join(request.headers.get_all("X-Forwarded-For")), address)
    if not rates.take(told):
        raise Refused(HTTPStatus.TOO_MANY_REQUESTS, "Too many connects from this address.")
    return told


def accept(connection: ServerProtocol, request: Request, wanted: Handshake) -> Response:
    """The answer to a handshake that is not refused, though its headers may still be wrong."""
    connection.available_subprotocols = [cast("Name", wanted.subprotocol.name)]
    return connection.accept(request)
