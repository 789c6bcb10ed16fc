"""The subprotocols: the messages of a WebSocket as frames of a session, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from tidings.v1 import bridge_pb2, chat_service_pb2

from ..errors import DomainError, Reason

TOKEN_PREFIX = "tidings.token."  # noqa: S105 - what comes before one
JSON_MAX_BYTES = 131_072
"""JSON takes a hundred times as long to read as protobuf does, and nobody else is served meanwhile."""
_EVENTS_A_MESSAGE = 20

M = TypeVar("M", bound=Message)


class Subprotocol(Protocol):
    """How frames are written in messages."""

    name: str
    text: bool
    """Whether messages are text, not binary."""
    most_bytes: int | None
    """The largest message of a client, if there is a limit besides that of frames."""

    def opening(self, message: bytes) -> tuple[str, str]:
        """The token and the trace context of an `Opening`. Raises DomainError (MALFORMED_FRAME)."""
        ...

    def read(self, message: bytes) -> bytes:
        """The frame of a message. Raises DomainError (MALFORMED_FRAME)."""
        ...

    def write(self, frame: bytes) -> Iterator[bytes]:
        """The messages of a frame. Each is made when it is asked for."""
        ...


class Proto:
    """Messages are frames."""

    name = "tidings.v1+proto"
    text = False
    most_bytes: int | None = None

    def opening(self, message: bytes) -> tuple[str, str]:
        """See `Subprotocol`."""
        try:
            opening = bridge_pb2.Opening.FromString(message)
        except DecodeError:
            raise _malformed("The first message is no tidings.v1.Opening.") from None
        return opening.token, opening.traceparent

    def read(self, message: bytes) -> bytes:
        """See `Subprotocol`."""
        return message

    def write(self, frame: bytes) -> Iterator[bytes]:
        """See `Subprotocol`."""
        yield frame


class Json:
    """Messages are frames in protobuf's JSON mapping."""

    name = "tidings.v1+json"
    text = True
    most_bytes: int | None = JSON_MAX_BYTES

    def opening(self, message: bytes) -> tuple[str, str]:
        """See `Subprotocol`."""
        opening = parse_json(message, bridge_pb2.Opening())
        return opening.token, opening.traceparent

    def read(self, message: bytes) -> bytes:
        """See `Subprotocol`."""
        return parse_json(message, chat_service_pb2.ChatRequest()).SerializeToString()

    def write(self, frame: bytes) -> Iterator[bytes]:
        """See `Subprotocol`."""
        events = chat_service_pb2.ChatResponse.FromString(frame).events
        for start in range(0, len(events), _EVENTS_A_MESSAGE):
            part = chat_service_pb2.ChatResponse(events=events[start : start + _EVENTS_A_MESSAGE])
            yield json_format.MessageToJson(part, indent=None, ensure_ascii=False).encode()


SUBPROTOCOLS: dict[str, Subprotocol] = {Proto.name: Proto(), Json.name: Json()}


def parse_json(message: bytes, kind: M) -> M:
    """`kind`, filled with what JSON says. Raises DomainError (MALFORMED_FRAME)."""
    try:
        return json_format.Parse(message, kind)
    except (json_format.ParseError, ValueError, TypeError, RecursionError) as problem:
        # The parser names the field; it may quote the value, which is the client's own.
        why = str(problem)[:200] if isinstance(problem, json_format.ParseError) else "no JSON"
        raise _malformed(f"The message is no {kind.DESCRIPTOR.full_name}: {why}") from None


def _malformed(text: str) -> DomainError:
    return DomainError(Reason.MALFORMED_FRAME, text)
