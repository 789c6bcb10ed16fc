"""Metrics: the counters as OpenTelemetry instruments, for Prometheus and, if wanted, by OTLP.

Counters and gauges are observable instruments: a callback reads the attribute when somebody asks.
OpenTelemetry has no observable histogram, and recording each value would cost what `Counters`
saves; so the accumulated buckets are added, as ready data points, to what the SDK collected, on its
way to each reader. Both ways give the same numbers, cumulative since the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any, cast

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

from tidings_server.core.clock import Clock
from tidings_server.telemetry.counters import Counters, Histogram
from tidings_server.telemetry.reading import Reading

SCOPE = "tidings"
_STOP_TIMEOUT_MS = 3_000


def resource(service_name: str) -> Resource:
    """Who is measured."""
    return Resource.create(
        {"service.name": service_name, "service.version": version("tidings-server")}
    )


class Metrics:
    """Publishes counters. `registry` is what the Prometheus endpoint shows."""

    def __init__(
        self,
        counters: Counters,
        clock: Clock,
        *,
        service_name: str = "tidings-server",
        readings: Sequence[Reading] = (),
        otlp_endpoint: str | None = None,
        otlp_interval_s: float = 60,
    ) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        collected = partial(_with_histograms, counters, clock, clock.now_ms())
        readers: list[MetricReader] = [_PrometheusReader(self.registry, collected)]
        if otlp_endpoint is not None:
            exporter = _Exporter(OTLPMetricExporter(endpoint=otlp_endpoint), collected)
            readers.append(PeriodicExportingMetricReader(exporter, otlp_interval_s * 1000))
        self._provider = MeterProvider(
            readers, resource=resource(service_name), shutdown_on_exit=False
        )
        meter = self._provider.get_meter(SCOPE)
        _observe_counters(meter, counters)
        for reading in readings:
            _observe(
                meter, reading.total, reading.name, reading.unit, reading.description, reading.read
            )

    def stop(self) -> None:
        """Exports what is left, if it is exported at all. Blocks for some seconds at most."""
        self._provider.shutdown(_STOP_TIMEOUT_MS)


_TOTALS = (
    ("tidings.sessions.opened", "", "Sessions that said hello.", "sessions_opened"),
    ("tidings.commits", "", "Pages committed.", "commits"),
    ("tidings.conflicts", "", "Appends refused since somebody else had appended.", "conflicts"),
    ("tidings.unknown_outcomes", "", "Appends whose outcome was unknown.", "unknown_outcomes"),
    ("tidings.forwarded", "", "Changes sent to other nodes, the homes of their logs.", "forwarded"),
    (
        "tidings.forward_fallbacks",
        "",
        "Changes decided here since their home was gone, silent or could not.",
        "forward_fallbacks",
    ),
    ("tidings.hosted", "", "Changes that other nodes sent here.", "hosted"),
    ("tidings.intents", "", "Logs noted before they were appended to.", "intents"),
    (
        "tidings.heads_taken_over",
        "",
        "Heads published for nodes that had no lease.",
        "heads_taken_over",
    ),
    ("tidings.store.errors", "", "Store calls that failed.", "store_errors"),
    ("tidings.delivered_entries", "", "Entries written to sessions.", "delivered_entries"),
    ("tidings.catch_up.pages", "", "Pages sent by catching up.", "catch_up_pages"),
    ("tidings.catch_up.entries", "", "Entries sent by catching up.", "catch_up_entries"),
    ("tidings.outbox.overflows", "", "Outboxes dropped for being full.", "outbox_overflows"),
)
_GAUGES = (
    ("tidings.sessions", "", "Sessions open now.", "sessions"),
    (
        "tidings.lagging_logs",
        "",
        "Logs that sessions have fallen behind in, each counted for each session.",
        "lagging_logs",
    ),
    ("tidings.outbox", "By", "Bytes waiting in the outboxes of all sessions.", "outbox_bytes"),
)
_HISTOGRAMS = (
    ("tidings.commit.entries", "", "Entries of a committed page.", "commit_entries"),
    (
        "tidings.commit.duration",
        "s",
        "From handing a page to the store to its definite answer.",
        "commit_duration_seconds",
    ),
    (
        "tidings.delivery.duration",
        "s",
        "From the commit of a pushed entry to the write of its frame.",
        "delivery_duration_seconds",
    ),
    (
        "tidings.publication.duration",
        "s",
        "From the stamp of a page to its arrival at sessions, by the clocks of their nodes.",
        "publication_duration_seconds",
    ),
    (
        "tidings.lag.duration",
        "s",
        "From when a session fell behind in a log to when it was level.",
        "lag_duration_seconds",
    ),
)


def _observe_counters(meter: Meter, counters: Counters) -> None:
    for name, unit, description, attribute in _TOTALS:
        _observe(meter, True, name, unit, description, partial(getattr, counters, attribute))
    for name, unit, description, attribute in _GAUGES:
        _observe(meter, False, name, unit, description, partial(getattr, counters, attribute))

    # The copies are taken in one step of the interpreter, while the event loop may add keys.
    def commands(_options: CallbackOptions) -> Iterable[Observation]:
        for (command, code), count in counters.commands.copy().items():
            yield Observation(count, {"command": command, "code": code})

    def by_reason(attribute: str, _options: CallbackOptions) -> Iterable[Observation]:
        for reason, count in getattr(counters, attribute).copy().items():
            yield Observation(count, {"reason": reason})

    def by_direction(attribute: str, _options: CallbackOptions) -> Iterable[Observation]:
        for direction in ("in", "out"):
            count = getattr(counters, f"{attribute}_{direction}")
            yield Observation(count, {"direction": direction})

    for name, unit, description, callback in (
        ("tidings.commands", "", "Commands and unary calls answered.", commands),
        (
            "tidings.sessions.ended",
            "",
            "Sessions that ended.",
            partial(by_reason, "sessions_ended"),
        ),
        ("tidings.auth_failures", "", "Tokens refused.", partial(by_reason, "auth_failures")),
        ("tidings.frames", "", "Frames of sessions.", partial(by_direction, "frames")),
        (
            "tidings.frame",
            "By",
            "Bytes in frames of sessions.",
            partial(by_direction, "frame_bytes"),
        ),
    ):
        meter.create_observable_counter(name, [callback], unit, description)


def _observe(
    meter: Meter,
    total: bool,
    name: str,
    unit: str,
    description: str,
    read: Callable[[], float],
) -> None:
    def callback(_options: CallbackOptions) -> Iterable[Observation]:
        yield Observation(read())

    create = meter.create_observable_counter if total else meter.create_observable_gauge
    create(name, [callback], unit, description)


def _with_histograms(
    counters: Counters, clock: Clock, start_ms: int, data: MetricsData
) -> MetricsData:
    """What the SDK collected, and the histograms."""
    metrics = [
        _histogram(name, unit, description, getattr(counters, attribute), clock, start_ms)
        for name, unit, description, attribute in _HISTOGRAMS
    ]
    return MetricsData(
        [
            # Beside our own instruments: exporters take two parts of one scope for the same.
            replace(
                part,
                scope_metrics=[
                    replace(s, metrics=[*s.metrics, *metrics]) if s.scope.name == SCOPE else s
                    for s in part.scope_metrics
                ],
            )
            for part in data.resource_metrics
        ]
    )


def _histogram(
    name: str, unit: str, description: str, values: Histogram, clock: Clock, start_ms: int
) -> Metric:
    total, counts = values.sum, values.counts.copy()
    unknown = cast("float", None)  # smallest and largest value: optional in OTLP
    point = HistogramDataPoint(
        attributes={},
        start_time_unix_nano=start_ms * 1_000_000,
        time_unix_nano=clock.now_ms() * 1_000_000,
        count=sum(counts),
        sum=total,
        bucket_counts=counts,
        explicit_bounds=values.bounds,
        min=unknown,
        max=unknown,
    )
    data = HistogramData([point], AggregationTemporality.CUMULATIVE)
    return Metric(name, description, unit, data)


class _PrometheusReader(PrometheusMetricReader):
    def __init__(
        self, registry: CollectorRegistry, collected: Callable[[MetricsData], MetricsData]
    ) -> None:
        super().__init__(scope_info_enabled=False, registry=registry)
        self._collected = collected

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        super()._receive_metrics(self._collected(metrics_data), timeout_millis, **kwargs)


class _Exporter(MetricExporter):
    """Adds the histograms to what another exporter sends."""

    def __init__(
        self, exporter: MetricExporter, collected: Callable[[MetricsData], MetricsData]
    ) -> None:
        # None: cumulative, as the histograms are.
        super().__init__()
        self._exporter = exporter
        self._collected = collected

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        data = self._collected(metrics_data)
        return self._exporter.export(data, timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self._exporter.shutdown(timeout_millis, **kwargs)
