"""Access to a gRPC server: methods that are not in the table are denied, and callers are who their token says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from ..core.principal import Principal
from ..errors import DomainError, Reason
from ..operations.access import RULES, Verify, bearer
from .status import status_code, trailers


class DenyUnlisted(grpc.aio.ServerInterceptor):
    """Refuses every method that the table does not name, whatever serves it."""

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Passes on calls that are in the table."""
        if handler_call_details.method in RULES:
            return await continuation(handler_call_details)
        # On the wire a unary call is a stream of one: whatever it is meant to be, it need not begin to be refused.
        return grpc.stream_stream_rpc_method_handler(_deny)


async def authenticate(context: grpc.aio.ServicerContext[Any, Any], verify: Verify) -> Principal:
    """The caller that the metadata `authorization: Bearer <token>` names. Raises DomainError."""
    return await verify(bearer(authorization(context)))


def authorization(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The metadata `authorization`, or an empty string."""
    for key, value in context.invocation_metadata() or ():
        if key == "authorization" and isinstance(value, str):
            return value
    return ""


async def _deny(frames: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> None:  # noqa: ARG001
    problem = DomainError(Reason.DENIED, "No rule allows this call.")
    await context.abort(status_code(problem), problem.message, trailers(problem))
