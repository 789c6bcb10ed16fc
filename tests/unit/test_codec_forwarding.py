"""Changes and outcomes between nodes come back as they went."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.made import bodies, texts, times, user_ids, uuids
from tidings.v1 import error_pb2, node_service_pb2
from tidings_server.codec.forwarding import (
    change_element,
    outcome_element,
    read_changes,
    read_outcomes,
)
from tidings_server.core.entries import Body, UnknownBody
from tidings_server.errors import DomainError, Reason

logs = st.one_of(uuids, user_ids.map("inbox:".__add__))
numbers = st.integers(1, 2**62)


@given(st.lists(st.tuples(numbers, logs, uuids, user_ids, bodies, uuids | st.just(""), texts)))
def test_changes(changes: list[tuple[int, str, str, str, Body, str, str]]) -> None:
    frame = b"".join(change_element(*change) for change in changes)
    parsed = node_service_pb2.AppendRequest.FromString(frame)
    assert parsed.SerializeToString(deterministic=True) == frame
    assert [
        (c.number, c.entry.log, c.entry.id, c.entry.user_id, c.entry.body, c.after, c.traceparent)
        for c in read_changes(frame)
    ] == changes
    assert all(
        (c.entry.seq, c.entry.ordinal, c.entry.time_ms) == (0, 0, 0) for c in read_changes(frame)
    )


@given(numbers, st.integers(0, 2**62), times)
def test_what_was_committed(number: int, seq: int, time_ms: int) -> None:
    (outcome,) = read_outcomes(outcome_element(number, seq, time_ms, None))
    assert (outcome.number, outcome.seq, outcome.time_ms, outcome.problem) == (
        number,
        seq,
        time_ms,
        None,
    )


@given(
    st.sampled_from(Reason),
    texts,
    texts,
    st.integers(0, 2**40) | st.none(),
    st.dictionaries(texts, texts, max_size=2),
)
def test_what_was_refused(
    reason: Reason, message: str, field: str, retry: int | None, metadata: dict[str, str]
) -> None:
    problem = DomainError(reason, message, field=field, retry_after_ms=retry, metadata=metadata)
    (outcome,) = read_outcomes(outcome_element(7, 0, 0, problem))
    got = outcome.problem
    assert got is not None
    assert (got.reason, got.message, got.field, got.retry_after_ms, got.metadata) == (
        reason,
        message,
        field,
        retry,
        metadata,
    )


def test_a_reason_of_a_newer_version_is_a_fault_of_the_server() -> None:
    outcome = node_service_pb2.AppendOutcome(number=1)
    outcome.error.MergeFrom(error_pb2.Error(reason=9999, message="new"))  # type: ignore[arg-type]
    (read,) = read_outcomes(node_service_pb2.AppendResponse(outcomes=[outcome]).SerializeToString())
    assert read.problem is not None
    assert read.problem.reason is Reason.INTERNAL


def test_a_change_of_a_newer_version() -> None:
    change = node_service_pb2.ForwardedChange(number=1)
    change.entry.id = "x"
    (read,) = read_changes(node_service_pb2.AppendRequest(changes=[change]).SerializeToString())
    assert read.entry.body == UnknownBody()


@pytest.mark.parametrize("read", [read_changes, read_outcomes])
def test_garbage(read: object) -> None:
    assert callable(read)
    with pytest.raises(ValueError, match=r"no tidings\.v1"):
        read(b"\x0a\xff")
