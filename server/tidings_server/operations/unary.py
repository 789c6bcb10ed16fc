"""Unary calls: each method of the services executes the command that its request is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

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
from .access import authorise, bearer
from .calls import Calls

CHAT: ServiceDescriptor = chat_service_pb2.DESCRIPTOR.services_by_name["ChatService"]
UNARY: tuple[ServiceDescriptor, ...] = (
    conversation_service_pb2.DESCRIPTOR.services_by_name["ConversationService"],
    message_service_pb2.DESCRIPTOR.services_by_name["MessageService"],
    receipt_service_pb2.DESCRIPTOR.services_by_name["ReceiptService"],
    presence_service_pb2.DESCRIPTOR.services_by_name["PresenceService"],
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
)

WhenTaken = Callable[[Callable[[object], None]], None]
"""Calls what it is given when the answer was taken, or nobody waits for it any more."""


class Operation:
    """One method of a service."""

    def __init__(self, method: MethodDescriptor) -> None:
        self.method = method
        self.path = path_of(method)
        # As the commands of a stream are named: an operation has one name, whichever way it comes.
        self.name = re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower()
        self.reads = method.name.startswith(("Get", "List", "Explain"))
        self._type = GetMessageClass(method.input_type)

    def parse(self, raw: bytes) -> Message:
        """The request. Raises DomainError (MALFORMED_FRAME)."""
        try:
            return self._type.FromString(raw)
        except DecodeError:
            name = self.method.input_type.full_name
            raise DomainError(Reason.MALFORMED_FRAME, f"The request is no {name}.") from None


class Operations:
    """All unary operations of a node. One instance serves all transports, since a user's calls are counted together."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._calls = Calls(node.limits.max_commands_in_flight)
        self.by_path = {
            operation.path: operation
            for service in UNARY
            for operation in map(Operation, service.methods)
        }

    async def call(
        self,
        operation: Operation,
        raw: bytes,
        *,
        authorization: str,
        traceparent: str,
        when_taken: WhenTaken,
    ) -> Message:
        """The response to a request. `authorization` is "Bearer <token>", `traceparent` a W3C trace context or empty.

        Raises DomainError. A caller who hangs up cancels this; what was begun is finished.
        """
        node = self._node
        code = "CANCELLED"
        span = node.tracer.command(operation.name, parent=traceparent)
        try:
            principal = await node.verify(bearer(authorization))
            authorise(operation.path, principal)
            command = node.reader.read(operation.parse(raw))
            user, reads = principal.user_id, operation.reads
            await self._calls.enter(user, reads=reads)
            # A caller who hangs up must not leave a command half done, nor begin any number of them.
            work = asyncio.ensure_future(node.handlers.execute(principal, command, span))
            ended: list[object] = []

            def leave(end: object) -> None:
                ended.append(end)
                if len(ended) == 2:
                    self._calls.leave(user, reads=reads)

            work.add_done_callback(leave)
            when_taken(leave)
            response = to_response(await asyncio.shield(work))
            code = "OK"
            return response
        except DomainError as problem:
            code = problem.code.name
            if code == "UNAUTHENTICATED":
                node.counters.auth_failures[problem.reason.name] += 1
            raise
        finally:
            node.counters.commands[operation.name, code] += 1
            if span is not None:
                node.tracer.end(span, "" if code == "OK" else code)


def path_of(method: MethodDescriptor) -> str:
    """The path of a method, in gRPC as in HTTP."""
    return f"/{method.containing_service.full_name}/{method.name}"
