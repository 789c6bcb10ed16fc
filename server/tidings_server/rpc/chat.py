"""The Chat stream: carries a session's frames as raw bytes, without a task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc

from ..errors import DomainError
from ..node import Node
from ..operations.unary import CHAT
from .access import authenticate
from .status import status_code, trailers
from .unary import traceparent

Context = grpc.aio.ServicerContext[bytes, bytes]


class _StreamSink:
    """Writes frames to a stream."""

    __slots__ = ("_context",)

    def __init__(self, context: Context) -> None:
        self._context = context

    async def write(self, frame: bytes) -> None:
        """See `Sink`."""
        try:
            await self._context.write(frame)
        except asyncio.CancelledError:
            raise
        except Exception as problem:  # grpc's own errors have no common base
            raise ConnectionError("the stream has ended") from problem


def chat_service(node: Node) -> grpc.GenericRpcHandler:
    """The handler of ChatService."""

    async def chat(frames: AsyncIterator[bytes], context: Context) -> None:
        try:
            principal = await authenticate(context, node.verify)
        except DomainError as problem:
            node.counters.auth_failures[problem.reason.name] += 1
            await context.abort(status_code(problem), problem.message, trailers(problem))
        session = node.open_session(principal, _StreamSink(context))
        session.trace_link = traceparent(context)
        task = asyncio.current_task()
        assert task is not None

        # The session's end interrupts the wait for the next frame.
        def interrupt(_: object) -> None:
            task.cancel()

        session.ended.add_done_callback(interrupt)
        try:
            async for frame in frames:
                session.receive(frame)
                if session.outbox.congested:
                    await session.ready()
            await session.finish()
        except asyncio.CancelledError:
            if not session.ended.done():
                raise
            task.uncancel()
        finally:
            session.ended.remove_done_callback(interrupt)
            session.close()
        ended = session.ended.result()
        if ended is not None:
            # Returning with a status, where abort would wait for a client that may not read.
            context.set_code(status_code(ended))
            context.set_details(ended.message)
            context.set_trailing_metadata(trailers(ended))

    return grpc.method_handlers_generic_handler(
        CHAT.full_name, {"Chat": grpc.stream_stream_rpc_method_handler(chat)}
    )
