"""The machine: what a reader needs to know to judge the figures."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import apsw

_FSYNCS = 40


def describe(folder: Path) -> dict[str, str]:
    """What it is, in words. `folder` is where databases go."""
    kind = file_system(folder)
    return {
        "cpu": f"{os.cpu_count()} x {_cpu_model()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
        "protobuf": version("protobuf"),
        "uvloop": version("uvloop"),
        "sqlite": f"{apsw.sqlite_lib_version()} (apsw {version('apsw')})",
        "disk": f"{kind}, write and fsync of 4 KiB: {fsync_ms(folder):.2f} ms (median)",
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def file_system(folder: Path) -> str:
    """The kind of file system that holds a folder."""
    best, kind = "", "unknown"
    place = str(folder.resolve())
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, found, *_ = line.split()
        inside = place == mount or place.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, found
    return kind


def fsync_ms(folder: Path) -> float:
    """Milliseconds to write 4 KiB and make them durable, the median of some."""
    took = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(_FSYNCS):
            began = time.perf_counter()
            os.write(file.fileno(), b"x" * 4096)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return sorted(took)[_FSYNCS // 2] * 1000


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
