"""Traces: from a command to its delivery, sampled cheaply, out of a real exporter."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tests.unit.otlp_sink import otlp_sink
from tests.unit.tokens import FixedClock
from tidings_server.telemetry.traces import MAX_PARENTS_A_SECOND, OtelTracer, otlp_processor
from tidings_server.telemetry.tracing import NO_TRACER, Tracer

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = f"00-{TRACE}-b7ad6b7169203331-01"
UNSAMPLED = f"00-{TRACE}-b7ad6b7169203331-00"


class Traced:
    """A tracer whose spans are kept in memory."""

    def __init__(self, ratio: float) -> None:
        self.clock = FixedClock()
        self.exporter = InMemorySpanExporter()
        self.tracer = OtelTracer(
            SimpleSpanProcessor(self.exporter),
            ratio=ratio,
            rng=random.Random(1),
            clock=self.clock,
        )

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def always() -> Iterator[Traced]:
    traced = Traced(1.0)
    yield traced
    traced.tracer.stop()


@pytest.fixture
def never() -> Iterator[Traced]:
    traced = Traced(0.0)
    yield traced
    traced.tracer.stop()


def test_the_steps_of_a_command_are_one_trace(always: Traced) -> None:
    tracer = always.tracer
    command = tracer.command("send_message")
    other = tracer.command("send_message of another")
    assert command is not None
    assert other is not None
    commit = tracer.child(command, "commit", links=[other])
    tracer.set(commit, "entries", 2)
    tracer.end(commit)
    publish = tracer.child(commit, "publish")
    delivery = tracer.child(publish, "delivery")
    for span in (delivery, publish, command, other):
        tracer.end(span)
    spans = always.spans()
    root = spans["send_message"]
    assert root.parent is None
    assert root.kind is SpanKind.SERVER
    chain = ["send_message", "commit", "publish", "delivery"]
    for above, below in pairwise(chain):
        parent = spans[below].parent
        assert parent is not None
        assert parent.span_id == spans[above].context.span_id
        assert spans[below].context.trace_id == root.context.trace_id
    assert [link.context for link in spans["commit"].links] == [
        spans["send_message of another"].context
    ]
    assert dict(spans["commit"].attributes or {}) == {"tidings.entries": 2}


def test_failures_are_marked_and_a_second_end_is_ignored(
    always: Traced, caplog: pytest.LogCaptureFixture
) -> None:
    span = always.tracer.command("send_message")
    assert span is not None
    always.tracer.end(span, "STORE_UNAVAILABLE")
    always.tracer.end(span)
    status = always.spans()["send_message"].status
    assert (status.status_code, status.description) == (StatusCode.ERROR, "STORE_UNAVAILABLE")
    assert not caplog.records


def test_a_sampled_parent_has_its_children_sampled(never: Traced) -> None:
    assert never.tracer.command("unsampled") is None
    span = never.tracer.command("send", parent=SAMPLED)
    assert span is not None
    assert span.traceparent.startswith(f"00-{TRACE}-")
    assert span.traceparent.endswith("-01")
    never.tracer.end(span)
    parent = never.spans()["send"].parent
    assert parent is not None
    assert parent.is_remote


def test_an_unsampled_parent_has_its_children_left(always: Traced) -> None:
    assert always.tracer.command("send", parent=UNSAMPLED) is None


def test_the_opening_of_a_stream_is_linked(always: Traced) -> None:
    span = always.tracer.command("send", link=SAMPLED)
    assert span is not None
    always.tracer.end(span)
    sent = always.spans()["send"]
    assert sent.parent is None
    assert f"{sent.links[0].context.trace_id:032x}" == TRACE
    assert f"{sent.context.trace_id:032x}" != TRACE


@pytest.mark.parametrize(
    "header",
    [
        "x",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        f"00-{TRACE}-0000000000000000-01",
        f"ff-{TRACE}-b7ad6b7169203331-01",
        f"00-{TRACE}-b7ad6b7169203331-01-more",
        "\x00" * 10_000,
        "00-" + "é" * 32,
    ],
    ids=lambda header: header[:40],
)
def test_malformed_headers_count_as_none(always: Traced, never: Traced, header: str) -> None:
    span = always.tracer.command("send", parent=header, link=header)
    assert span is not None
    always.tracer.end(span)
    assert always.spans()["send"].parent is None
    assert not always.spans()["send"].links
    assert never.tracer.command("send", parent=header) is None


def test_callers_cannot_have_everything_traced(never: Traced) -> None:
    def sampled() -> int:
        tries = [never.tracer.command("send", parent=SAMPLED) for _ in range(500)]
        return sum(span is not None for span in tries)

    assert sampled() == MAX_PARENTS_A_SECOND
    never.clock.ms += 1000
    assert sampled() == MAX_PARENTS_A_SECOND


def test_the_ratio_is_kept() -> None:
    traced = Traced(0.1)
    sampled = sum(traced.tracer.command("send") is not None for _ in range(5_000))
    traced.tracer.stop()
    assert 400 < sampled < 600


def test_without_a_tracer_nothing_is_sampled() -> None:
    tracer: Tracer = NO_TRACER
    assert tracer.command("send", parent=SAMPLED, link=SAMPLED) is None


def test_spans_arrive_at_a_collector() -> None:
    with otlp_sink() as sink:
        tracer = OtelTracer(
            otlp_processor(sink.endpoint),
            ratio=1.0,
            rng=random.Random(1),
            clock=FixedClock(),
            service_name="a server",
        )
        command = tracer.command("send_message", parent=SAMPLED)
        assert command is not None
        commit = tracer.child(command, "commit")
        tracer.end(commit)
        tracer.end(command)
        tracer.stop()
        spans = {span.name: span for span in sink.spans}
    assert spans["commit"].parent_span_id == spans["send_message"].span_id
    assert spans["send_message"].trace_id.hex() == TRACE
    assert spans["send_message"].parent_span_id.hex() == "b7ad6b7169203331"
    assert sink.resources[0]["service.name"] == "a server"
