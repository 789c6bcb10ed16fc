"""Unary calls over HTTP: each method as JSON, Connect and gRPC-Web, by connectrpc.

The bridge reads JSON and nothing else of a message: what is protobuf passes through as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import structlog
from connectrpc.code import Code
from connectrpc.codec import Codec
from connectrpc.compression.gzip import GzipCompression
from connectrpc.errors import ConnectError, ErrorDetail
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.request import RequestContext
from connectrpc.server import ConnectASGIApplication, Endpoint
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2
from protobuf.wkt import Any as AnyMessage

from ..codec.status import to_status
from ..errors import DomainError, Reason
from ..operations.access import bearer
from ..operations.unary import UNARY, path_of
from .asgi import Receive, Scope, Send
from .gate import forwarded
from .http import DRAINED
from .messages import JSON_MAX_BYTES, parse_json
from .upstream import Caller, CallRefused, Upstream

log = structlog.get_logger(__name__)

MAX_REQUEST_BYTES = 262_144
"""Of no method are the largest fields larger."""
_LARGE_BYTES = 16_384
# Connect's codes in the order of gRPC's, which begin with CANCELED.
_CODES = dict(
    enumerate(
        (
            Code.CANCELED,
            Code.UNKNOWN,
            Code.INVALID_ARGUMENT,
            Code.DEADLINE_EXCEEDED,
            Code.NOT_FOUND,
            Code.ALREADY_EXISTS,
            Code.PERMISSION_DENIED,
            Code.RESOURCE_EXHAUSTED,
            Code.FAILED_PRECONDITION,
            Code.ABORTED,
            Code.OUT_OF_RANGE,
            Code.UNIMPLEMENTED,
            Code.INTERNAL,
            Code.UNAVAILABLE,
            Code.DATA_LOSS,
            Code.UNAUTHENTICATED,
        ),
        start=1,
    )
)
# What is to be told once the answer to the request at hand was taken.
_when_taken: ContextVar[Callable[[Callable[[object], None]], None]] = ContextVar("when_taken")


@dataclass(frozen=True, slots=True)
class _Carried:
    """A serialised message."""

    raw: bytes
    kind: type[Message]
    json: bytes | None = None

    def to_json(self) -> bytes:
        """The message in JSON."""
        parsed = self.kind.FromString(self.raw)
        return json_format.MessageToJson(parsed, indent=None, ensure_ascii=False).encode()


class _Proto(Codec[_Carried, Any]):
    """Protobuf, which nobody looks into here."""

    def name(self) -> str:
        return "proto"

    def encode(self, message: _Carried) -> bytes:
        return message.raw

    def decode(self, data: bytes | bytearray, message_class: type[Any]) -> Any:
        return _Carried(bytes(data), message_class)


class _Json(Codec[_Carried, Any]):
    """Protobuf's JSON mapping."""

    def name(self) -> str:
        return "json"

    def encode(self, message: _Carried) -> bytes:
        return message.json if message.json is not None else message.to_json()

    def decode(self, data: bytes | bytearray, message_class: type[Any]) -> Any:
        try:
            if len(data) > JSON_MAX_BYTES:
                text = f"A request in JSON is at most {JSON_MAX_BYTES:,} bytes."
                raise DomainError(Reason.TOO_LARGE, text)
            parsed = parse_json(bytes(data), message_class())
        except DomainError as problem:
            raise _error(to_status(problem)) from None
        return _Carried(parsed.SerializeToString(), message_class)


class _Explained:
    """Gives the errors that connectrpc finds by itself the details that those of the server have."""

    async def on_start(self, ctx: RequestContext[Any, Any]) -> None:
        """Before the request is read: whoever shows no token need not send it."""
        try:
            bearer(ctx.request_headers.get("authorization", ""))
        except DomainError as problem:
            raise _error(to_status(problem)) from None

    async def on_end(
        self, token: None, ctx: RequestContext[Any, Any], error: Exception | None
    ) -> None:
        """After the answer."""
        del token, ctx
        if error is None:
            return
        if not isinstance(error, ConnectError):
            log.error("call_failed", exc_info=error)
            raise _error(
                to_status(DomainError(Reason.INTERNAL, "The server met a fault of its own."))
            )
        if error.details:
            return
        reasons = {
            Code.RESOURCE_EXHAUSTED: Reason.TOO_LARGE,
            Code.INVALID_ARGUMENT: Reason.MALFORMED_FRAME,
        }
        if error.code in reasons:
            raise _error(to_status(DomainError(reasons[error.code], error.message)))


class UnaryCalls(ConnectASGIApplication[Upstream]):
    """An ASGI application with all unary methods."""

    path = "/"

    def __init__(self, upstream: Upstream, *, proxied: bool) -> None:
        """`proxied`: addresses are those that a proxy tells."""
        self.paths = frozenset(path_of(m) for service in UNARY for m in service.methods)
        super().__init__(
            service=upstream,
            endpoints=lambda upstream: _endpoints(upstream, proxied=proxied),
            interceptors=(_Explained(),),
            read_max_bytes=MAX_REQUEST_BYTES,
            # Some clients send it without asking; what it becomes is bounded by the same number of bytes.
            compressions=(GzipCompression(level=1),),
            codecs=(_Proto(), _Json()),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        taken: list[Callable[[object], None]] = []
        before = _when_taken.set(taken.append)
        try:
            await super().__call__(scope, receive, send)
            await scope["extensions"][DRAINED]["wait"]()
        finally:
            _when_taken.reset(before)
            for tell in taken:
                tell(None)


def _endpoints(upstream: Upstream, *, proxied: bool) -> dict[str, Any]:
    return {
        path_of(method): Endpoint.unary(_info(method), _function(upstream, method, proxied=proxied))
        for service in UNARY
        for method in service.methods
    }


def _info(method: MethodDescriptor) -> MethodInfo[Any, Any]:
    return MethodInfo(
        name=method.name,
        service_name=method.containing_service.full_name,
        input=GetMessageClass(method.input_type),
        output=GetMessageClass(method.output_type),
        # Nothing by GET: requests in URLs end up in logs.
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=StreamType.UNARY,
    )


def _function(upstream: Upstream, method: MethodDescriptor, *, proxied: bool) -> Callable[..., Any]:
    path, response = path_of(method), GetMessageClass(method.output_type)

    async def call(request: _Carried, ctx: RequestContext[Any, Any]) -> _Carried:
        headers = ctx.request_headers
        address = (ctx.client_address or "").rpartition(":")[0]
        if proxied:
            address = forwarded(headers.get("x-forwarded-for", ""), address)
        caller = Caller(
            bearer(headers.get("authorization", "")), headers.get("traceparent", ""), address
        )
        try:
            raw = await upstream.call(path, caller, request.raw, _when_taken.get())
        except CallRefused as refused:
            raise _error(refused.status) from None
        answered = _Carried(raw, response)
        if len(raw) > _LARGE_BYTES and "json" in headers.get("content-type", ""):
            # Nobody else would be served meanwhile.
            return replace(answered, json=await asyncio.to_thread(answered.to_json))
        return answered

    return call


def _error(status: status_pb2.Status) -> ConnectError:
    details = [
        ErrorDetail(AnyMessage(type_url=detail.type_url, value=detail.value))
        for detail in status.details
    ]
    return ConnectError(_CODES.get(status.code, Code.UNKNOWN), status.message, details)
