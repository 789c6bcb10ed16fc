"""A server as a process of its own: started, killed, stopped in its tracks, and measured from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

_START_S: Final = 60.0
_STOP_S: Final = 30.0
_POLL_S: Final = 0.02
_TIED: Final = ("setpriv", "--pdeathsig", "SIGKILL", "--")
"""It is killed when the process that started it ends, however that ends."""
_GRPC_INFO: Final = re.compile(r"I\d{4} ")
"""What grpc's core says for information, such as that a connection ended."""


class ServerFailed(Exception):
    """The server did not start. The text holds the end of its log."""


@dataclass(slots=True)
class Server:
    """`tidings-server serve` with its files in a folder. Its first start chooses the port, the others keep it.

    `settings` are variables without their prefix, such as `STORE__KIND`; without any the store is an SQLite file in the
    folder. `program` comes before `serve`.
    """

    folder: Path
    secret: str = field(repr=False)
    settings: dict[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = (sys.executable, "-m", "tidings_server")
    port: int = 0
    starts: int = 0
    peak_rss: int = 0
    may_end: bool = False
    _process: asyncio.subprocess.Process | None = None
    _past_cpu_s: float = 0.0

    @property
    def target(self) -> str:
        """Where it serves."""
        return f"127.0.0.1:{self.port}"

    @property
    def addresses(self) -> list[str]:
        """The same, as of a cluster."""
        return [self.target]

    @property
    def database(self) -> Path:
        """The store's file."""
        return self.folder / "tidings.db"

    @property
    def log(self) -> Path:
        """What it says, over all starts."""
        return self.folder / "server.log"

    async def start(self) -> float:
        """Starts it and waits until it serves; returns how long that took. Raises ServerFailed."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TIDINGS_")}
        given = {
            "GRPC__LISTEN": f"127.0.0.1:{self.port}",
            "BRIDGE__ENABLED": "false",
            "METRICS__LISTEN": "127.0.0.1:0",
            "STORE__PATH": str(self.database),
            "AUTH__HS256_SECRET": self.secret,
            "DRAIN__DELAY_SPREAD_S": "0",
            "LOG__FORMAT": "json",
            **self.settings,
        }
        environment |= {f"TIDINGS_{name}": value for name, value in given.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        said = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *_TIED,
                *self.program,
                "serve",
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.starts += 1
        while not self._serves(said):
            if self._process.returncode is not None or loop.time() > began + _START_S:
                await self.kill()
                raise ServerFailed(f"the server does not serve:\n{self.said()}")
            await asyncio.sleep(_POLL_S)
        return loop.time() - began

    def _serves(self, since: int) -> bool:
        with self.log.open("rb") as log:
            log.seek(since)
            for line in log:
                if b'"serving"' in line and line.endswith(b"\n"):
                    self.port = json.loads(line)["grpc_port"]
                    return True
        return False

    def said(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def complaints(self) -> list[str]:
        """The errors in its log, over all starts."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            if _GRPC_INFO.match(line):
                continue
            try:
                level = json.loads(line)["level"]
            except (ValueError, KeyError, TypeError):
                level = "error"
            if level in {"error", "critical"}:
                found.append(line)
        return found

    @property
    def pid(self) -> int | None:
        """Its process, while there is one."""
        return None if self._process is None else self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended without having been told to."""
        return self._process is not None and self._process.returncode is not None

    @property
    def ended_by_itself(self) -> bool:
        """The same, where that is a fault of its own."""
        return self.ended and not self.may_end

    def cpu_s(self) -> float:
        """Seconds of CPU, user and system, over all starts."""
        return self._past_cpu_s + self._sample()

    def _sample(self) -> float:
        if self._process is None or self._process.returncode is not None:
            return 0.0
        try:
            process = psutil.Process(self._process.pid)
            times, memory = process.cpu_times(), process.memory_info()
        except psutil.Error:
            return 0.0
        self.peak_rss = max(self.peak_rss, memory.rss)
        return float(times.user + times.system)

    async def kill(self) -> None:
        """Ends it at once, by SIGKILL."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Ends it as an operator would; kills it when it does not end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP: it stands still and answers nothing."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    async def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        self._past_cpu_s += self._sample()
        self._process = None
        if process.returncode is None:
            process.send_signal(number)
            try:
                await process.wait()
            except asyncio.CancelledError:
                process.kill()
                raise

    def database_bytes(self) -> int:
        """The size of the store, with its write-ahead log."""
        return sum(
            path.stat().st_size
            for path in self.folder.glob(f"{self.database.name}*")
            if not path.name.endswith(".lock")
        )
