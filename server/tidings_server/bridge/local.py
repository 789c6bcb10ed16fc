"""The bridge in the server: devices get sessions of this process."""

from __future__ import annotations

import asyncio

from ..codec.status import to_status
from ..delivery.outbox import Sink
from ..delivery.session import Session
from ..errors import DomainError
from ..node import Node
from ..operations.unary import Operations, WhenTaken
from .closing import LEFT, Close, close_of
from .upstream import Caller, CallRefused


class _LocalLine:
    """A session of this process."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.ended: asyncio.Future[Close] = asyncio.get_running_loop().create_future()
        session.ended.add_done_callback(self._over)

    def receive(self, frame: bytes) -> bool:
        """See `Line`."""
        self._session.receive(frame)
        return not self._session.outbox.congested

    async def ready(self) -> None:
        """See `Line`."""
        await self._session.ready()

    def close(self) -> None:
        """See `Line`."""
        self._session.close()

    def _over(self, ended: asyncio.Future[DomainError | None]) -> None:
        problem = ended.result()
        self.ended.set_result(LEFT if problem is None else close_of(problem))


class LocalUpstream:
    """The sessions and operations of a node."""

    def __init__(self, node: Node, operations: Operations) -> None:
        self._node = node
        self._operations = operations

    async def open(self, caller: Caller, sink: Sink) -> _LocalLine:
        """See `Upstream`."""
        try:
            principal = await self._node.verify(caller.token)
        except DomainError as problem:
            self._node.counters.auth_failures[problem.reason.name] += 1
            raise
        session = self._node.open_session(principal, sink)
        session.trace_link = caller.traceparent
        return _LocalLine(session)

    async def call(self, path: str, caller: Caller, request: bytes, when_taken: WhenTaken) -> bytes:
        """See `Upstream`."""
        operations = self._operations
        try:
            response = await operations.call(
                operations.by_path[path],
                request,
                authorization=f"Bearer {caller.token}",
                traceparent=caller.traceparent,
                when_taken=when_taken,
            )
        except DomainError as problem:
            raise CallRefused(to_status(problem)) from None
        return response.SerializeToString()
