"""The processes that are measured: the server as it is shipped, and the pass-through servers beside it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tidings_server.auth import TokenPolicy, mint
from tidings_server.core.clock import SystemClock
from tidings_server.rpc.engine import EXPERIMENTS, WITHOUT_LISTENER

from . import procfs

START_S = 90.0
STOP_S = 15.0
_TTL_S = 24 * 3600.0
ROOT = Path(__file__).parents[2]


class ProcessFailed(Exception):
    """A process did not start, or ended by itself. The text holds the end of what it said."""


@dataclass(slots=True)
class Target:
    """A process that serves Chat, measured from outside. `kind` is one of `works.KINDS`, or "cluster": a server
    with `settings` of its own, which are variables without their prefix.
    """

    kind: str
    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    secret: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    port: int = 0
    metrics_port: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _log: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Starts it, on ports that the system chooses, and waits until it serves. Raises ProcessFailed."""
        database = self.folder / f"{self.kind}.db"
        if self.is_server:
            command = [str(Path(sys.executable).with_name("tidings-server")), "serve"]
            more = {
                "TIDINGS_GRPC__LISTEN": "127.0.0.1:0",
                "TIDINGS_BRIDGE__ENABLED": "false",
                "TIDINGS_METRICS__LISTEN": "127.0.0.1:0",
                "TIDINGS_STORE__PATH": str(database),
                "TIDINGS_AUTH__HS256_SECRET": self.secret,
                "TIDINGS_DRAIN__DELAY_SPREAD_S": "0",
                "TIDINGS_DRAIN__GRACE_S": "2",
                "TIDINGS_LOG__FORMAT": "json",
                **{f"TIDINGS_{name}": value for name, value in self.settings.items()},
            }
        else:
            command = [sys.executable, "-m", "tools.bench.floor"]
            command += ["--store", str(database)] if self.kind == "floor+store" else []
            more = {}
            if self.kind == "floor+engine":
                command.append("--engine")
                # As `choose_poller` does for the server, before grpc is imported.
                more[EXPERIMENTS] = WITHOUT_LISTENER
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TIDINGS_")}
        self._log.clear()
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        serving = threading.Event()
        threading.Thread(target=self._read, args=(self._process, serving), daemon=True).start()
        if not serving.wait(START_S) or not self.port:
            self.kill()
            raise ProcessFailed(f"{self.kind} does not serve:\n{self.said()}")

    @property
    def is_server(self) -> bool:
        """Whether it is the server itself, and no floor."""
        return not self.kind.startswith("floor")

    @property
    def address(self) -> str:
        """Where it serves."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def said(self) -> str:
        """The end of its log."""
        return "\n".join(self._log[-20:])

    def usage(self) -> procfs.Usage:
        """What it has used so far. Raises ProcessFailed when it has ended."""
        try:
            return procfs.usage(self.pid)
        except OSError as problem:
            raise ProcessFailed(f"{self.kind} has ended:\n{self.said()}") from problem

    def commits(self) -> int:
        """How many pages its store has committed, as its metrics tell; -1 when it has none."""
        return self.metric("tidings_commits_total")

    def metric(self, name: str) -> int:
        """A number among its metrics; -1 when it has none."""
        if not self.metrics_port:
            return -1
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=START_S) as answer:  # http, this machine
            for line in answer.read().decode().splitlines():
                if line.startswith(name):
                    return int(float(line.split()[-1]))
        return -1

    def token(self, user: str, device: str) -> str:
        """A token for a device."""
        policy = TokenPolicy(
            issuer="tidings",
            audience="tidings",
            leeway_s=5,
            hs256_secret=self.secret.encode(),
            jwks_file=None,
            jwks_url=None,
        )
        return mint(policy, SystemClock(), user, device, ttl_s=_TTL_S)

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Ends it as an operator would."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _read(self, process: subprocess.Popen[bytes], serving: threading.Event) -> None:
        assert process.stderr is not None
        for raw in process.stderr:
            line = raw.decode(errors="replace").rstrip()
            self._log.append(line)
            del self._log[:-200]
            if serving.is_set() or '"serving"' not in line:
                continue
            event = json.loads(line)
            self.port = event["grpc_port"]
            self.metrics_port = event.get("metrics_port") or 0
            serving.set()
        serving.set()
