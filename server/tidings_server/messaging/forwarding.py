"""Forwarding: changes that other nodes are the home of, on their way there and back.

A change is sent once, to one node, which decides on it. What that node does not decide, because it
is gone, silent or can't, is decided here: its id lets it be appended once only, whoever else still
tries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from ..codec.forwarding import ForwardedOutcome, change_element, read_outcomes
from ..errors import DomainError, Reason, outcome_unknown
from ..presence.base import NodeInfo
from ..telemetry.counters import Counters
from ..telemetry.tracing import Span, Tracer
from .proposals import Committed, Proposal

log = structlog.get_logger(__name__)

SILENCE_S = 2.0
"""A home that says nothing for so long while something is asked of it, not even an empty frame, is given up."""
_PINGS = 4
_ANSWER_WITHIN_S = 10.0
"""Longer than a sequencer waits for a store to become definite."""
_AVOID_FIRST_S = 0.5
_AVOID_MOST_S = 30.0
_FRAME_BYTES = 1 << 20
_DECLINED = frozenset({Reason.STORE_UNAVAILABLE, Reason.DRAINING, Reason.UNKNOWN_FIELD})
"""The home has changed nothing and can't: another node may be able to."""


class Link(Protocol):
    """A connection to another node. Frames arrive in order, or the link breaks."""

    def send(self, frame: bytes) -> None:
        """Hands over a frame. Never blocks, never raises."""
        ...

    def close(self) -> None:
        """Lets go of it. Nothing is heard of it any more."""
        ...


class Listener(Protocol):
    """Whoever has a link. Called on the event loop."""

    def heard(self, frame: bytes) -> None:
        """A frame has come. The first one is empty and says that the other node is there."""
        ...

    def broken(self, cause: str) -> None:
        """The link is no more, or could not be made. Called at most once, never from within `send`."""
        ...


Dial = Callable[[NodeInfo, Listener], Link]
"""Begins to connect to a node. Never blocks, never raises."""


class _Sent:
    """A change that is on its way, and until when its outcome is waited for."""

    __slots__ = ("proposal", "span", "until")

    def __init__(self, proposal: Proposal, until: float, span: Span | None) -> None:
        self.proposal = proposal
        self.until = until
        self.span = span


class Peer:
    """Another node, as the home of logs. `decide_here` takes what it does not decide."""

    def __init__(
        self,
        node: NodeInfo,
        dial: Dial,
        decide_here: Callable[[Proposal], None],
        counters: Counters,
        tracer: Tracer,
    ) -> None:
        self.node = node
        self._dial = dial
        self._decide_here = decide_here
        self._counters = counters
        self._tracer = tracer
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._there = False
        self._last_heard = 0.0
        self._avoid_s = _AVOID_FIRST_S
        self._avoid_until = 0.0
        self._numbers = 0
        # In the order in which they were sent, which is the order in which they end up here if they do.
        self._sent: dict[int, _Sent] = {}
        self._gathered: list[bytes] = []
        self._watch: asyncio.TimerHandle | None = None
        self._retired = False
        self._closed = False

    @property
    def pending(self) -> int:
        """Changes that have no outcome yet."""
        return len(self._sent)

    def forward(self, proposal: Proposal) -> bool:
        """Sends a change; tells whether it could be begun. If so, the proposal's `done` is called once."""
        if not self._there:
            self.connect()
            return False
        self._numbers = number = self._numbers + 1
        span = None
        if proposal.span is not None:
            span = self._tracer.child(proposal.span, "forward")
        self._sent[number] = _Sent(proposal, self._loop.time() + _ANSWER_WITHIN_S, span)
        self._counters.forwarded += 1
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append(
            change_element(
                number,
                proposal.log,
                proposal.id.text,
                proposal.user_id,
                proposal.asked(),
                proposal.after.text if proposal.after is not None else "",
                span.traceparent if span is not None else "",
            )
        )
        if self._watch is None:
            # It had nothing to say before.
            self._last_heard = self._loop.time()
            self._watch = self._loop.call_later(SILENCE_S / _PINGS, self._look)
        return True

    def connect(self) -> None:
        """Begins to connect, unless that is done or was tried in vain just now."""
        if self._link is None and not self._closed and self._loop.time() >= self._avoid_until:
            self._link = self._dial(self.node, self)

    def retire(self) -> None:
        """Lets go of the node as soon as it has decided on all that it was asked."""
        self._retired = True
        if not self._sent:
            self.close()

    def close(self) -> None:
        """Lets go of the node. What it has not decided is decided here."""
        self._closed = True
        self._let_go()

    def heard(self, frame: bytes) -> None:
        """See `Listener`."""
        self._last_heard = self._loop.time()
        if not self._there:
            self._there = True
            self._avoid_s = _AVOID_FIRST_S
            log.info("home_reached", node=self.node.node_id)
            return
        try:
            outcomes = read_outcomes(frame)
        except ValueError as problem:
            self.broken(str(problem))
            return
        for outcome in outcomes:
            sent = self._sent.pop(outcome.number, None)
            if sent is not None:
                self._tell(sent, outcome)
        if self._retired and not self._sent:
            self.close()

    def broken(self, cause: str) -> None:
        """See `Listener`."""
        if self._closed:
            return
        log.warning("home_lost", node=self.node.node_id, cause=cause, pending=len(self._sent))
        self._avoid_until = self._loop.time() + self._avoid_s
        self._avoid_s = min(self._avoid_s * 2, _AVOID_MOST_S)
        self._closed = self._retired
        self._let_go()

    def _tell(self, sent: _Sent, outcome: ForwardedOutcome) -> None:
        problem = outcome.problem
        if sent.span is not None:
            self._tracer.end(sent.span, problem.reason.name if problem is not None else "")
        if problem is None:
            sent.proposal.tell(Committed(outcome.seq, outcome.time_ms))
        elif problem.reason in _DECLINED:
            self._counters.forward_fallbacks += 1
            self._decide_here(sent.proposal)
        else:
            sent.proposal.tell(problem)

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        if self._link is None:
            # It broke meanwhile, and nothing was gathered since.
            return
        frame: list[bytes] = []
        size = 0
        for element in gathered:
            if frame and size + len(element) > _FRAME_BYTES:
                self._link.send(b"".join(frame))
                frame, size = [], 0
            frame.append(element)
            size += len(element)
        if frame:
            self._link.send(b"".join(frame))

    def _look(self) -> None:
        self._watch = None
        if self._link is None or not self._sent:
            return
        now = self._loop.time()
        if now - self._last_heard > SILENCE_S:
            self.broken("silent")
            return
        if next(iter(self._sent.values())).until < now:
            self.broken("an answer is overdue")
            return
        self._link.send(b"")
        self._watch = self._loop.call_later(SILENCE_S / _PINGS, self._look)

    def _let_go(self) -> None:
        link, self._link = self._link, None
        self._there = False
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if link is not None:
            link.close()
        self._gathered.clear()
        undecided, self._sent = self._sent, {}
        for sent in undecided.values():
            if sent.span is not None:
                self._tracer.end(sent.span, Reason.OUTCOME_UNKNOWN.name)
            self._counters.forward_fallbacks += 1
            proposal = sent.proposal
            proposal.done = _doubtful(proposal.done)
            self._decide_here(proposal)


def _doubtful(done: Callable[[Committed | DomainError], None]) -> Callable[..., None]:
    """The home may still decide otherwise: what is refused here may be committed there."""

    def tell(outcome: Committed | DomainError) -> None:
        done(outcome_unknown() if isinstance(outcome, DomainError) else outcome)

    return tell
