"""Changes and their outcomes as nodes send them to each other: the elements of `AppendRequest` and
`AppendResponse`. Joined elements are a frame.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from tidings.v1 import node_service_pb2

from ..core.entries import Body, Entry
from ..core.records import record
from ..errors import DomainError, Reason
from .entries import decode_entry, proposed_entry
from .events import to_error
from .fields import to_ms, to_timestamp
from .wire import element, text, varint

# The two sides of a stream parse nothing but these.
_Request = node_service_pb2.AppendRequest
_Response = node_service_pb2.AppendResponse


@record(frozen=True, slots=True)
class ForwardedChange:
    """A change on its way to the home of its log. `entry` has no position, ordinal and time."""

    number: int
    entry: Entry
    after: str
    traceparent: str


@record(frozen=True, slots=True)
class ForwardedOutcome:
    """What came of a change: committed at `seq` at `time_ms`, or refused for `problem`."""

    number: int
    seq: int
    time_ms: int
    problem: DomainError | None


def change_element(
    number: int, log: str, change_id: str, user_id: str, body: Body, after: str, traceparent: str
) -> bytes:
    """One element of `AppendRequest.changes`. `number` is positive."""
    change = b"".join(
        (
            b"\x08" + varint(number),
            element(0x12, proposed_entry(log, change_id, user_id, body)),
            text(0x1A, after),
            text(0x22, traceparent),
        )
    )
    return element(0x0A, change)


def read_changes(frame: bytes) -> list[ForwardedChange]:
    """The changes of a frame. Raises ValueError when it is none."""
    try:
        request = _Request.FromString(frame)
    except DecodeError as problem:
        raise ValueError("no tidings.v1.AppendRequest") from problem
    return [
        ForwardedChange(c.number, decode_entry(c.entry), c.after_message_id, c.traceparent)
        for c in request.changes
    ]


def outcome_element(number: int, seq: int, time_ms: int, problem: DomainError | None) -> bytes:
    """One element of `AppendResponse.outcomes`."""
    outcome = node_service_pb2.AppendOutcome(
        number=number,
        seq=seq,
        create_time=to_timestamp(time_ms),
        error=None if problem is None else to_error(problem),
    )
    return element(0x0A, outcome.SerializeToString())


def read_outcomes(frame: bytes) -> list[ForwardedOutcome]:
    """The outcomes of a frame. Raises ValueError when it is none."""
    try:
        response = _Response.FromString(frame)
    except DecodeError as problem:
        raise ValueError("no tidings.v1.AppendResponse") from problem
    return [_outcome(o) for o in response.outcomes]


def _outcome(outcome: node_service_pb2.AppendOutcome) -> ForwardedOutcome:
    return ForwardedOutcome(
        outcome.number,
        outcome.seq,
        to_ms(outcome.create_time),
        _problem(outcome) if outcome.HasField("error") else None,
    )


def _problem(outcome: node_service_pb2.AppendOutcome) -> DomainError:
    error = outcome.error
    try:
        reason = Reason(error.reason)
    except ValueError:
        # Of a newer version: what this one can't name, it can't explain to a client either.
        reason = Reason.INTERNAL
    return DomainError(
        reason,
        error.message,
        field=error.field,
        retry_after_ms=error.retry_delay.ToMilliseconds()
        if error.HasField("retry_delay")
        else None,
        metadata=dict(error.metadata),
    )
