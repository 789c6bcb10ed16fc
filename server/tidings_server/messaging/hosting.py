"""Hosting: changes that other nodes forward to this one, the home of their logs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from ..codec.forwarding import ForwardedChange, outcome_element, read_changes
from ..core.commands import ChangeId
from ..core.ids import id_bytes, uuid7_time
from ..errors import DomainError, Reason
from ..telemetry.counters import Counters
from ..telemetry.tracing import Tracer
from .proposals import Committed, Proposal
from .proposed import proposed

log = structlog.get_logger(__name__)


class Host:
    """Decides here on what other nodes ask, whoever the home of a log is by now: nothing is forwarded twice."""

    def __init__(
        self,
        decide_here: Callable[[Proposal], None],
        max_members: int,
        counters: Counters,
        tracer: Tracer,
    ) -> None:
        self.decide_here = decide_here
        self.max_members = max_members
        self.counters = counters
        self.tracer = tracer

    def open(self, send: Callable[[bytes], None]) -> Guest:
        """A node has connected. `send` takes frames for it, never blocks and never raises."""
        return Guest(self, send)


class Guest:
    """Another node that asks for changes over one connection."""

    def __init__(self, host: Host, send: Callable[[bytes], None]) -> None:
        self._host = host
        self._send = send
        self._gathered: list[bytes] = []
        self._closed = False
        send(b"")

    def receive(self, frame: bytes) -> None:
        """Takes a frame. Raises ValueError when it is none: the connection is to be ended."""
        if not frame:
            self._send(b"")
            return
        for change in read_changes(frame):
            self._take(change)

    def close(self) -> None:
        """The node is gone. What it asked for and is begun goes on, and nobody hears of it."""
        self._closed = True

    def _take(self, change: ForwardedChange) -> None:
        host, number = self._host, change.number
        host.counters.hosted += 1
        span = None
        if change.traceparent:
            span = host.tracer.command("append", parent=change.traceparent)

        def done(outcome: Committed | DomainError) -> None:
            if span is not None:
                host.tracer.end(
                    span, outcome.reason.name if isinstance(outcome, DomainError) else ""
                )
            if isinstance(outcome, DomainError):
                self._answer(outcome_element(number, 0, 0, outcome))
            else:
                self._answer(outcome_element(number, outcome.seq, outcome.time_ms, None))

        try:
            after = _change_id(change.after) if change.after else None
            proposal = proposed(change.entry, after, host.max_members, done)
        except ValueError as problem:
            log.warning("change_not_known", cause=str(problem))
            done(DomainError(Reason.UNKNOWN_FIELD, "This node does not know this kind of change."))
            return
        proposal.span = span
        host.decide_here(proposal)

    def _answer(self, element: bytes) -> None:
        if self._closed:
            return
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._flush)
        self._gathered.append(element)

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        if not self._closed:
            self._send(b"".join(gathered))


def _change_id(text: str) -> ChangeId:
    raw = id_bytes(text)
    return ChangeId(text, raw, uuid7_time(raw))
