"""Logs, metrics and traces. Hot paths touch only `counters` and `tracing`, which know nothing of
OpenTelemetry.
"""
