"""Unary calls over gRPC."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import Message

from ..errors import DomainError
from ..operations.unary import UNARY, Operation, Operations, path_of
from .access import authorization
from .status import status_code, trailers


def unary_services(operations: Operations) -> list[grpc.GenericRpcHandler]:
    """The handlers of all services with unary methods."""
    return [
        grpc.method_handlers_generic_handler(
            service.full_name,
            {
                method.name: _handler(operations, operations.by_path[path_of(method)])
                for method in service.methods
            },
        )
        for service in UNARY
    ]


def _handler(operations: Operations, operation: Operation) -> grpc.RpcMethodHandler[Any, Any]:
    # Parsed by the operation, not by grpc, which would answer INTERNAL and not say why.
    async def call(raw: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Message:
        try:
            return await operations.call(
                operation,
                raw,
                authorization=authorization(context),
                traceparent=traceparent(context),
                # The types know this as a callback of a call of the client's.
                when_taken=context.add_done_callback,  # type: ignore[arg-type]
            )
        except DomainError as problem:
            await context.abort(status_code(problem), problem.message, trailers(problem))

    return grpc.unary_unary_rpc_method_handler(
        call,
        response_serializer=_serialize,
    )


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def traceparent(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The caller's W3C trace context, or an empty string."""
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent" and isinstance(value, str):
            return value
    return ""
