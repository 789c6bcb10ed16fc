"""The doctor: each thing that can be wrong with a machine is found, and told with a remedy."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.unit.tokens import NOW_MS, SECRET, FixedClock, jwk, jwks
from tidings_server import doctor
from tidings_server.config import Settings
from tidings_server.doctor import Inspection, examine
from tidings_server.findings import Finding, Level

SOUND = Inspection(what="sound")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("TIDINGS_"):
            monkeypatch.delenv(name)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "tidings.db"
    path.write_bytes(b"")
    path.chmod(0o600)
    os.utime(path, (NOW_MS / 1000 - 60, NOW_MS / 1000 - 60))
    return path


def look(
    store: Path, now_ms: int = NOW_MS, inspection: Inspection = SOUND, **groups: Any
) -> dict[str, list[Finding]]:
    """The findings by subject, on free ports and with a secret unless told otherwise."""
    made: dict[str, Any] = {
        "store": {"path": store},
        "grpc": {"listen": "127.0.0.1:0"},
        "bridge": {"listen": "127.0.0.1:0"},
        "metrics": {"listen": "127.0.0.1:0"},
        "auth": {"hs256_secret": SECRET.decode()},
        **groups,
    }
    found: dict[str, list[Finding]] = {}
    for finding in examine(
        Settings(**made),
        FixedClock(now_ms),
        lambda _: inspection,
        lambda: pytest.fail("no cluster"),
    ):
        assert bool(finding.remedy) == (finding.level is not Level.OK)
        assert SECRET.decode() not in repr(finding)
        found.setdefault(finding.subject, []).append(finding)
    return found


def worst(findings: list[Finding]) -> Level:
    return max((f.level for f in findings), key=list(Level).index)


def test_a_sound_machine_has_nothing_that_fails(store: Path) -> None:
    found = look(store)
    assert set(found) == {"auth", "port", "disk", "fsync", "store", "clock", "limits"}
    for subject in ("auth", "port", "store"):
        assert worst(found[subject]) is Level.OK, found[subject]


def test_the_folder_is_left_as_it_was(store: Path) -> None:
    look(store)
    assert [p.name for p in store.parent.iterdir()] == ["tidings.db"]
    look(store.parent / "new" / "deep" / "tidings.db")
    assert [p.name for p in store.parent.iterdir()] == ["tidings.db"]


def test_a_taken_port(store: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        found = look(store, grpc={"listen": address})["port"]
    assert found[0].level is Level.WARN
    assert address in found[0].what


def test_an_address_that_is_not_here_or_is_open(store: Path) -> None:
    assert worst(look(store, grpc={"listen": "192.0.2.1:50051"})["port"]) is Level.WARN
    open_to_all = look(store, grpc={"listen": "0.0.0.0:0"})
    assert any("without TLS" in f.what for f in open_to_all["port"])
    assert worst(open_to_all["auth"]) is Level.WARN


def test_keys(store: Path, tmp_path: Path) -> None:
    assert worst(look(store, auth={})["auth"]) is Level.WARN
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(jwk("ES256")))
    assert worst(look(store, auth={"jwks_file": path})["auth"]) is Level.OK
    path.write_bytes(b"{}")
    assert worst(look(store, auth={"jwks_file": path})["auth"]) is Level.FAIL
    closed = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{closed.getsockname()[1]}/jwks.json"
    closed.close()
    assert worst(look(store, auth={"jwks_url": url})["auth"]) is Level.FAIL


def test_a_secret_of_the_demo_that_others_can_read(store: Path) -> None:
    secret = store.parent / "dev-secret"
    secret.write_text("x" * 40, "ascii")
    secret.chmod(0o644)
    assert worst(look(store, auth={})["auth"]) is Level.FAIL


def test_the_store(store: Path) -> None:
    broken = look(store, inspection=Inspection(corrupt="page 3 is broken"))["store"]
    assert (broken[0].level, "page 3 is broken" in broken[0].what) == (Level.FAIL, True)
    used = look(store, inspection=Inspection(unavailable="in use by 77"))["store"]
    assert (used[0].level, "77" in used[0].what) == (Level.WARN, True)
    store.chmod(0o644)
    assert worst(look(store)["store"]) is Level.WARN
    store.unlink()
    assert worst(look(store)["store"]) is Level.OK


def test_a_folder_that_is_none(store: Path) -> None:
    assert worst(look(store / "below" / "tidings.db")["disk"]) is Level.FAIL


@pytest.mark.parametrize(
    ("kind", "level"), [("tmpfs", Level.FAIL), ("nfs4", Level.FAIL), ("ext4", Level.OK)]
)
def test_file_systems(
    store: Path, monkeypatch: pytest.MonkeyPatch, kind: str, level: Level
) -> None:
    monkeypatch.setattr(doctor, "_filesystem", lambda _: kind)
    monkeypatch.setattr(doctor, "_LOW_FREE", 0)
    monkeypatch.setattr(doctor, "_MIN_FREE", 0)
    assert worst(look(store)["disk"]) is level


def test_the_file_system_of_memory_is_recognised() -> None:
    assert doctor._filesystem(Path("/dev/shm")) == "tmpfs"
    assert doctor._filesystem(Path("/proc/self")) == "proc"


def test_a_full_disk(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_filesystem", lambda _: "ext4")
    monkeypatch.setattr(doctor, "_LOW_FREE", 1 << 60)
    assert worst(look(store)["disk"]) is Level.WARN
    monkeypatch.setattr(doctor, "_MIN_FREE", 1 << 60)
    assert worst(look(store)["disk"]) is Level.FAIL


@pytest.mark.parametrize(
    ("took", "level"), [(0.000_001, Level.WARN), (0.001, Level.OK), (0.2, Level.WARN)]
)
def test_fsync(store: Path, monkeypatch: pytest.MonkeyPatch, took: float, level: Level) -> None:
    monkeypatch.setattr(doctor, "_sync_time", lambda _: took)
    assert worst(look(store)["fsync"]) is level


@pytest.fixture
def synchronised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_unsynchronised", lambda: False)


@pytest.mark.usefixtures("synchronised")
def test_the_clock(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert worst(look(store)["clock"]) is Level.OK
    assert worst(look(store, NOW_MS - 3_600_000)["clock"]) is Level.FAIL
    os.utime(store, (0, 0))
    assert worst(look(store, 1_000_000_000_000)["clock"]) is Level.FAIL
    monkeypatch.setattr(doctor, "_unsynchronised", lambda: True)
    assert worst(look(store)["clock"]) is Level.WARN


def test_the_kernel_is_asked_about_the_clock() -> None:
    assert doctor._unsynchronised() in {True, False}


@pytest.mark.parametrize(
    ("hard", "level"),
    [
        (100, Level.FAIL),
        (4096, Level.WARN),
        (1 << 16, Level.OK),
        (resource.RLIM_INFINITY, Level.OK),
    ],
)
def test_open_files(store: Path, monkeypatch: pytest.MonkeyPatch, hard: int, level: Level) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, hard))
    assert worst(look(store)["limits"]) is level


def test_the_collector(store: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert worst(look(store, otel={"otlp_endpoint": url})["otel"]) is Level.OK
    assert worst(look(store, otel={"otlp_endpoint": url})["otel"]) is Level.WARN
