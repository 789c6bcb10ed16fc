"""A real OTLP collector over gRPC, in process, for tests of what the server exports."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import (
    metrics_service_pb2,
    metrics_service_pb2_grpc,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class OtlpSink(
    trace_service_pb2_grpc.TraceServiceServicer,
    metrics_service_pb2_grpc.MetricsServiceServicer,
):
    """Keeps what it is sent. `changed` is notified with each export."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.changed = threading.Condition()
        self.spans: list[Any] = []
        self.metrics: dict[str, Any] = {}
        self.resources: list[dict[str, str]] = []

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Both services' one method."""
        with self.changed:
            if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
                for part in request.resource_spans:
                    self._note(part.resource)
                    self.spans += [s for scope in part.scope_spans for s in scope.spans]
                answer: Any = trace_service_pb2.ExportTraceServiceResponse()
            else:
                for part in request.resource_metrics:
                    self._note(part.resource)
                    for scope in part.scope_metrics:
                        self.metrics.update({m.name: m for m in scope.metrics})
                answer = metrics_service_pb2.ExportMetricsServiceResponse()
            self.changed.notify_all()
        return answer

    def _note(self, resource: Any) -> None:
        self.resources.append({a.key: a.value.string_value for a in resource.attributes})


@contextmanager
def otlp_sink() -> Iterator[OtlpSink]:
    """A sink that listens on this machine."""
    sink = OtlpSink()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(sink, server)  # type: ignore[no-untyped-call]
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(sink, server)  # type: ignore[no-untyped-call]
    sink.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield sink
    finally:
        server.stop(None).wait()
