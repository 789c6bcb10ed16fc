"""The package: what it exports, and that importing it is cheap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tidings
from tidings import errors, events, models


def loaded_by(statement: str) -> set[str]:
    """The modules that are loaded after a statement, in a process of its own."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_everything_exported_is_there() -> None:
    assert sorted(tidings.__all__) == list(tidings.__all__)
    assert dir(tidings) == tidings.__all__
    for name in tidings.__all__:
        assert getattr(tidings, name) is not None
    with pytest.raises(AttributeError):
        _ = tidings.nothing


def test_events_models_and_errors_are_exported() -> None:
    missing = (set(events.__all__) | set(models.__all__) | set(errors.__all__)) - {"error_for"}
    assert missing <= set(tidings.__all__)


def test_importing_the_package_loads_neither_grpc_nor_protobuf() -> None:
    loaded = loaded_by("import tidings")
    assert not {"grpc", "google.protobuf", "asyncio", "sqlite3"} & loaded


def test_importing_the_client_does_not_load_grpc() -> None:
    loaded = loaded_by("from tidings import Client, MemoryStateStore")
    assert "google.protobuf" in loaded
    assert not {"grpc", "sqlite3"} & loaded


def test_only_one_module_imports_grpc() -> None:
    package = Path(tidings.__file__).parent
    importers = {
        path.name
        for path in package.glob("*.py")
        if any(
            line.startswith(("import grpc", "from grpc")) for line in path.read_text().splitlines()
        )
    }
    assert importers == {"_grpc.py"}


def test_only_the_defaults_touch_the_clock_and_randomness() -> None:
    package = Path(tidings.__file__).parent
    for path in package.glob("*.py"):
        text = path.read_text()
        for call in ("time.time(", "datetime.now(", "uuid4(", "urandom(", "random.random("):
            assert call not in text, f"{path.name} calls {call}"
        if path.name != "_client.py":
            assert "import time" not in text
            assert "SystemRandom" not in text
        if path.name != "_sqlite.py":
            assert "import threading" not in text
