"""Counters are plain: no import of theirs costs anything, and histograms count what they are given."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from tidings_server.telemetry.counters import DURATION_BOUNDS, SIZE_BOUNDS, Histogram


@given(
    st.sampled_from([DURATION_BOUNDS, SIZE_BOUNDS]),
    st.lists(st.tuples(st.floats(0, 200), st.integers(1, 50))),
)
def test_every_value_is_counted_under_its_bound(
    bounds: tuple[float, ...], values: list[tuple[float, int]]
) -> None:
    histogram = Histogram(bounds)
    for value, times in values:
        histogram.observe(value, times)
    assert sum(histogram.counts) == sum(times for _, times in values)
    for index, bound in enumerate(bounds):
        expected = sum(times for value, times in values if value <= bound)
        assert sum(histogram.counts[: index + 1]) == expected


def test_hot_paths_import_no_opentelemetry() -> None:
    code = (
        "import sys, tidings_server.telemetry.counters, tidings_server.telemetry.tracing;"
        "sys.exit(any(m.startswith(('opentelemetry', 'prometheus')) for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
