"""Unary calls: each method of the services executes the command that its request is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from tidings.v1 import (
    admin_service_pb2,
    chat_service_pb2,
    conversation_service_pb2,
    message_service_pb2,
    presence_service_pb2,
    receipt_service_pb2,
)

from ..codec.events import to_response
from ..errors import DomainError, Reason
from ..node import Node
from .access import authenticate, authorise
from .calls import Calls
from .status import status_code, trailers

CHAT: ServiceDescriptor = chat_service_pb2.DESCRIPTOR.services_by_name["ChatService"]
UNARY: tuple[ServiceDescriptor, ...] = (
    conversation_service_pb2.DESCRIPTOR.services_by_name["ConversationService"],
    message_service_pb2.DESCRIPTOR.services_by_name["MessageService"],
    receipt_service_pb2.DESCRIPTOR.services_by_name["ReceiptService"],
    presence_service_pb2.DESCRIPTOR.services_by_name["PresenceService"],
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
)

Call = Callable[[Message, grpc.aio.ServicerContext[Any, Any]], Awaitable[Message]]


def unary_services(node: Node) -> list[grpc.GenericRpcHandler]:
    """The handlers of all services with unary methods."""
    calls = Calls(node.limits.max_commands_in_flight)
    return [
        grpc.method_handlers_generic_handler(
            service.full_name,
            {method.name: _handler(node, method, calls) for method in service.methods},
        )
        for service in UNARY
    ]


def _handler(node: Node, method: MethodDescriptor, calls: Calls) -> grpc.RpcMethodHandler[Any, Any]:
    request_type = GetMessageClass(method.input_type)
    reads = method.name.startswith(("Get", "List", "Explain"))
    path = f"/{method.containing_service.full_name}/{method.name}"
    # As the commands of a stream are named: an operation has one name, whichever way it comes.
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower()

    def parse(raw: bytes) -> Message:
        try:
            return request_type.FromString(raw)
        except DecodeError:
            raise DomainError(
                Reason.MALFORMED_FRAME, f"The request is no {method.input_type.full_name}."
            ) from None

    # Parsed here, not by grpc, which would answer INTERNAL and not say why.
    async def call(raw: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Message:
        code = "CANCELLED"
        span = node.tracer.command(name, parent=traceparent(context))
        try:
            principal = await authenticate(context, node.verify)
            authorise(path, principal)
            command = node.reader.read(parse(raw))
            user = principal.user_id
            await calls.enter(user, reads=reads)
            # A caller who hangs up must not leave a command half done, nor begin any number of them.
            work = asyncio.ensure_future(node.handlers.execute(principal, command, span))
            ended: list[object] = []

            def leave(end: object) -> None:
                ended.append(end)
                if len(ended) == 2:
                    calls.leave(user, reads=reads)

            work.add_done_callback(leave)
            # The types know this as a callback of a call of the client's.
            context.add_done_callback(leave)  # type: ignore[arg-type]
            response = to_response(await asyncio.shield(work))
            code = "OK"
            return response
        except DomainError as problem:
            code = problem.code.name
            if code == "UNAUTHENTICATED":
                node.counters.auth_failures[problem.reason.name] += 1
            await context.abort(status_code(problem), problem.message, trailers(problem))
        finally:
            node.counters.commands[name, code] += 1
            if span is not None:
                node.tracer.end(span, "" if code == "OK" else code)

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
