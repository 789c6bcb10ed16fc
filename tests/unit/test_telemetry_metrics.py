"""Metrics: what is counted comes out of a real scrape and a real OTLP export, and promtool agrees."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.otlp_sink import otlp_sink
from tests.unit.tokens import FixedClock
from tidings_server.telemetry.counters import Counters, Histogram
from tidings_server.telemetry.endpoint import Endpoint
from tidings_server.telemetry.metrics import Metrics
from tidings_server.telemetry.reading import Reading


class State:
    healthy = True
    not_ready = "starting: there is much to do"


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def endpoint(counters: Counters, state: State) -> Iterator[str]:
    readings = [
        Reading("tidings.store.transactions", "Transactions of the store.", lambda: 7),
        Reading("tidings.store.file", "Size of the file.", lambda: 2.5, total=False, unit="By"),
    ]
    metrics = Metrics(counters, FixedClock(), readings=readings)
    served = Endpoint(
        "127.0.0.1",
        0,
        metrics.registry,
        healthy=lambda: state.healthy,
        not_ready=lambda: state.not_ready,
    )
    yield f"http://127.0.0.1:{served.port}"
    served.stop()
    metrics.stop()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as problem:
        with problem:
            return problem.code, problem.read().decode()


def scrape(url: str) -> dict[str, float]:
    status, text = get(f"{url}/metrics")
    assert status == 200
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def test_everything_counted_is_published(counters: Counters, endpoint: str) -> None:
    counters.sessions = 3
    counters.sessions_opened = 5
    counters.sessions_ended["DRAINING"] += 2
    counters.auth_failures["TOKEN_EXPIRED"] += 4
    counters.commands["send_message", "OK"] += 11
    counters.commands["send_message", "NOT_FOUND"] += 1
    counters.commits = 12
    counters.conflicts = 13
    counters.unknown_outcomes = 14
    counters.forwarded = 24
    counters.forward_fallbacks = 25
    counters.hosted = 26
    counters.intents = 27
    counters.heads_taken_over = 28
    counters.store_errors = 15
    counters.delivered_entries = 16
    counters.catch_up_pages = 17
    counters.catch_up_entries = 18
    counters.outbox_bytes = 19
    counters.outbox_overflows = 20
    counters.lagging_logs = 27
    counters.frames_in, counters.frames_out = 21, 22
    counters.frame_bytes_in, counters.frame_bytes_out = 23, 24
    got = scrape(endpoint)
    assert {
        "tidings_sessions": 3,
        "tidings_sessions_opened_total": 5,
        'tidings_sessions_ended_total{reason="DRAINING"}': 2,
        'tidings_auth_failures_total{reason="TOKEN_EXPIRED"}': 4,
        'tidings_commands_total{code="OK",command="send_message"}': 11,
        'tidings_commands_total{code="NOT_FOUND",command="send_message"}': 1,
        "tidings_commits_total": 12,
        "tidings_conflicts_total": 13,
        "tidings_unknown_outcomes_total": 14,
        "tidings_forwarded_total": 24,
        "tidings_forward_fallbacks_total": 25,
        "tidings_hosted_total": 26,
        "tidings_intents_total": 27,
        "tidings_heads_taken_over_total": 28,
        "tidings_store_errors_total": 15,
        "tidings_delivered_entries_total": 16,
        "tidings_catch_up_pages_total": 17,
        "tidings_catch_up_entries_total": 18,
        "tidings_outbox_bytes": 19,
        "tidings_outbox_overflows_total": 20,
        "tidings_lagging_logs": 27,
        'tidings_frames_total{direction="in"}': 21,
        'tidings_frames_total{direction="out"}': 22,
        'tidings_frame_bytes_total{direction="in"}': 23,
        'tidings_frame_bytes_total{direction="out"}': 24,
        "tidings_store_transactions_total": 7,
        "tidings_store_file_bytes": 2.5,
    }.items() <= got.items()
    assert got["process_open_fds"] > 0


def test_no_counter_is_forgotten(counters: Counters, endpoint: str) -> None:
    before = scrape(endpoint)
    for name in Counters.__slots__:
        value = getattr(counters, name)
        if isinstance(value, Histogram):
            value.observe(0.5)
        elif isinstance(value, dict):
            value["A", "B" if name == "commands" else ""] += 1
        else:
            setattr(counters, name, value + 1)
        after = scrape(endpoint)
        assert {k: v for k, v in after.items() if k.startswith("tidings_")} != before, name
        before = {k: v for k, v in after.items() if k.startswith("tidings_")}


def test_histograms_are_cumulative_and_keep_their_bounds(counters: Counters, endpoint: str) -> None:
    for value in (1, 2, 3, 100, 101):
        counters.commit_entries.observe(value)
    counters.delivery_duration_seconds.observe(0.001, 40)
    got = scrape(endpoint)
    bounds = {"1.0": 1, "2.0": 2, "5.0": 3, "10.0": 3, "50.0": 3, "100.0": 4, "+Inf": 5}
    for bound, count in bounds.items():
        assert got[f'tidings_commit_entries_bucket{{le="{bound}"}}'] == count
    assert got["tidings_commit_entries_count"] == 5
    assert got["tidings_commit_entries_sum"] == 207
    assert got['tidings_delivery_duration_seconds_bucket{le="0.001"}'] == 40
    assert got['tidings_delivery_duration_seconds_bucket{le="0.0005"}'] == 0
    assert got["tidings_delivery_duration_seconds_sum"] == pytest.approx(0.04)
    assert got["tidings_commit_duration_seconds_count"] == 0


def _promtool() -> str:
    """Where tools/setup.sh put it, or the system's."""
    here = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    found = shutil.which("promtool", path=here)
    assert found is not None, "promtool is missing: run tools/setup.sh"
    return found


def test_promtool_accepts_the_metrics(counters: Counters, endpoint: str) -> None:
    counters.commands["send_message", "OK"] += 1
    counters.sessions_ended["CLIENT_LEFT"] += 1
    counters.auth_failures["TOKEN_INVALID"] += 1
    counters.commit_duration_seconds.observe(0.01)
    _, text = get(f"{endpoint}/metrics")
    checked = subprocess.run(
        [_promtool(), "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (checked.returncode, checked.stderr, checked.stdout) == (0, "", "")


def test_promtool_can_refuse() -> None:
    checked = subprocess.run(
        [_promtool(), "check", "metrics"],
        input="# TYPE tidings_things counter\ntidings_things 1\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode != 0


def test_health_and_readiness_are_told(endpoint: str, state: State) -> None:
    assert get(f"{endpoint}/healthz") == (200, "ok\n")
    assert get(f"{endpoint}/readyz") == (503, "starting: there is much to do\n")
    state.not_ready = ""
    assert get(f"{endpoint}/readyz") == (200, "ok\n")
    state.healthy = False
    assert get(f"{endpoint}/healthz")[0] == 503
    assert get(f"{endpoint}/")[0] == 404
    request = urllib.request.Request(f"{endpoint}/metrics", method="POST", data=b"x")
    with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(request):
        pass
    caught.value.close()
    assert caught.value.code == 405


def test_a_taken_port_is_an_error(endpoint: str) -> None:
    port = int(endpoint.rpartition(":")[2])
    metrics = Metrics(Counters(), FixedClock())
    with pytest.raises(OSError, match="in use"):
        Endpoint("127.0.0.1", port, metrics.registry, healthy=bool, not_ready=str)
    metrics.stop()


def test_the_endpoint_listens_on_ipv6() -> None:
    metrics = Metrics(Counters(), FixedClock())
    served = Endpoint("::1", 0, metrics.registry, healthy=lambda: True, not_ready=str)
    assert get(f"http://[::1]:{served.port}/healthz")[0] == 200
    served.stop()
    metrics.stop()


def test_clients_that_go_away_hurt_nobody(endpoint: str, capfd: pytest.CaptureFixture[str]) -> None:
    port = int(endpoint.rpartition(":")[2])
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" if _ % 2 else b"\x00\xff")
    assert get(f"{endpoint}/healthz")[0] == 200
    assert capfd.readouterr().err == ""


def test_everything_goes_out_by_otlp(counters: Counters) -> None:
    with otlp_sink() as sink:
        metrics = Metrics(
            counters,
            FixedClock(),
            service_name="a server",
            otlp_endpoint=sink.endpoint,
            otlp_interval_s=3600,
        )
        counters.commits = 12
        counters.sessions = 3
        counters.commit_entries.observe(3)
        counters.commands["send_message", "OK"] += 11
        metrics.stop()
        got = sink.metrics
    assert got["tidings.commits"].sum.data_points[0].as_int == 12
    assert got["tidings.commits"].sum.is_monotonic
    assert got["tidings.sessions"].gauge.data_points[0].as_int == 3
    assert got["tidings.commands"].sum.data_points[0].as_int == 11
    point = got["tidings.commit.entries"].histogram.data_points[0]
    assert (point.count, point.sum) == (1, 3)
    assert list(point.bucket_counts) == [0, 0, 1, 0, 0, 0, 0, 0]
    assert not point.HasField("min")
    assert sink.resources[0]["service.name"] == "a server"
