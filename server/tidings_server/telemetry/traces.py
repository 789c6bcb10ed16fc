"""Traces by OpenTelemetry: the implementation of the tracing port."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import cast

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tidings_server.core.clock import Clock
from tidings_server.telemetry.metrics import SCOPE, resource
from tidings_server.telemetry.tracing import Span

MAX_PARENTS_A_SECOND = 100
"""How many commands a second are traced because callers wish it, whatever the sample ratio."""

_EXPORT_TIMEOUT_S = 3
_propagator = TraceContextTextMapPropagator()


class OtelSpan:
    """A span of OpenTelemetry."""

    __slots__ = ("span",)

    def __init__(self, span: trace.Span) -> None:
        self.span = span

    @property
    def traceparent(self) -> str:
        """The W3C header."""
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, trace.set_span_in_context(self.span))
        return carrier["traceparent"]


class OtelTracer:
    """Samples commands and hands their spans to a processor, or by OTLP to a collector.

    `ratio` is the part of commands that is sampled, decided with `rng`.
    """

    def __init__(
        self,
        processor: SpanProcessor,
        *,
        ratio: float,
        rng: random.Random,
        clock: Clock,
        service_name: str = "tidings-server",
    ) -> None:
        self._ratio = ratio
        self._rng = rng
        self._clock = clock
        self._second = 0
        self._parents = 0
        # What reaches the SDK was sampled here.
        self._provider = TracerProvider(ALWAYS_ON, resource(service_name), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(SCOPE)

    def command(self, name: str, *, parent: str = "", link: str = "") -> OtelSpan | None:
        """See `tracing.Tracer`."""
        if parent:
            context = _parse(parent)
            if context is not None:
                caller = trace.get_current_span(context).get_span_context()
                if not caller.trace_flags.sampled or not self._take_parent():
                    return None
                return OtelSpan(self._tracer.start_span(name, context, kind=SpanKind.SERVER))
        if self._rng.random() >= self._ratio:
            return None
        links = []
        opening = _parse(link) if link else None
        if opening is not None:
            links.append(Link(trace.get_current_span(opening).get_span_context()))
        return OtelSpan(self._tracer.start_span(name, Context(), kind=SpanKind.SERVER, links=links))

    def child(self, span: Span, name: str, *, links: Iterable[Span] = ()) -> OtelSpan:
        """See `tracing.Tracer`."""
        context = trace.set_span_in_context(cast("OtelSpan", span).span, Context())
        others = [Link(cast("OtelSpan", s).span.get_span_context()) for s in links]
        return OtelSpan(self._tracer.start_span(name, context, links=others))

    def set(self, span: Span, key: str, value: str | int) -> None:
        """See `tracing.Tracer`."""
        cast("OtelSpan", span).span.set_attribute(f"tidings.{key}", value)

    def end(self, span: Span, error: str = "") -> None:
        """See `tracing.Tracer`."""
        inner = cast("OtelSpan", span).span
        if not inner.is_recording():
            return
        if error:
            inner.set_status(Status(StatusCode.ERROR, error))
        inner.end()

    def stop(self) -> None:
        """Exports what is left. Blocks for some seconds at most."""
        self._provider.shutdown()

    def _take_parent(self) -> bool:
        second = self._clock.now_ms() // 1000
        if second != self._second:
            self._second, self._parents = second, 0
        self._parents += 1
        return self._parents <= MAX_PARENTS_A_SECOND


def otlp_processor(endpoint: str) -> SpanProcessor:
    """Sends spans in batches to a collector. What it can't take in time is dropped."""
    return BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_TIMEOUT_S))


def _parse(traceparent: str) -> Context | None:
    context = _propagator.extract({"traceparent": traceparent}, Context())
    valid = trace.get_current_span(context).get_span_context().is_valid
    return context if valid else None
