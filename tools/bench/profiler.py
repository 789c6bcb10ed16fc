"""Profiles of a target while it is measured, by py-spy or perf where they are installed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

_STOP_S = 60.0


class Profiler:
    """Attaches to a process from `start` to `stop` and leaves a file beginning with `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, pid: int) -> None:
        """Begins."""
        path = str(self._path)
        spy = shutil.which("py-spy") or shutil.which(
            "py-spy", path=str(Path(sys.executable).parent)
        )
        if spy is not None:
            command = [spy, "record", "--native", "--rate", "250", "--format", "raw"]
            command += ["--output", path + ".folded", "--pid", str(pid)]
        elif (perf := shutil.which("perf")) is not None:
            command = [
                perf,
                "record",
                "-q",
                "-g",
                "-F",
                "999",
                "-o",
                path + ".perf",
                "-p",
                str(pid),
            ]
        else:
            raise SystemExit(
                "a profile needs py-spy (pip install py-spy) or perf (Debian: linux-perf)"
            )
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        """Ends and waits until the file is written."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_STOP_S)
            self._process = None
