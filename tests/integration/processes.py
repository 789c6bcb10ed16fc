"""A server as a process: the program that users start, with its log and its signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

from tests.integration.wire import PATIENCE_S, SECRET, Caller, Device, new_id
from tidings_server.codec.entries import decode_entries
from tidings_server.core.entries import Entry
from tidings_server.storage.sqlite import SqliteOptions, SqliteStore


class ServerProcess:
    """`tidings-server serve` on a database in `folder`. It may be started again after it has ended.

    `prefix` goes before the command; `settings` are variables without their prefix, such as `DRAIN__GRACE_S`.
    """

    def __init__(self, folder: Path, *, prefix: tuple[str, ...] = (), **settings: str) -> None:
        self.folder = folder
        self.prefix = prefix
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.http_port = 0
        self.log: list[dict[str, Any]] = []
        self._reader: Thread | None = None
        self._clients: list[Caller | Device] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def start(self) -> ServerProcess:
        """Starts it and waits until it serves."""
        line = await self.launch("tidings_server", "serving", "serve")
        self.port, self.http_port = line["grpc_port"], line["http_port"] or 0
        return self

    async def launch(
        self, module: str, begun: str, *arguments: str, **settings: str
    ) -> dict[str, Any]:
        """Starts a module and waits for the line of its log that says that it has begun."""
        given = {
            "GRPC__LISTEN": "127.0.0.1:0",
            "BRIDGE__LISTEN": "127.0.0.1:0",
            "METRICS__ENABLED": "false",
            "STORE__PATH": str(self.folder / "tidings.db"),
            "AUTH__HS256_SECRET": SECRET,
            "DRAIN__DELAY_SPREAD_S": "0",
            "DRAIN__GRACE_S": "5",
            "LOG__FORMAT": "json",
            **settings,
            **self.settings,
        }
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TIDINGS_")}
        environment.update({f"TIDINGS_{name}": value for name, value in given.items()})
        self.log = []
        # Not by the event loop's own way, which forks: here grpc's threads run.
        self.process = subprocess.Popen(  # noqa: ASYNC220
            [*self.prefix, sys.executable, "-m", module, *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._reader = Thread(target=_read, args=(self.process, self.log), daemon=True)
        self._reader.start()
        return await self.logged(begun)

    async def logged(self, event: str, count: int = 1) -> dict[str, Any]:
        """Waits for a line of the log."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = [line for line in self.log if line.get("message") == event]
                if len(found) >= count:
                    return found[-1]
                assert self.process is not None
                if self.process.poll() is not None:
                    code = await self.ended()
                    raise AssertionError(f"it ended with {code}: {self.log}")
                await asyncio.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def ended(self) -> int:
        """Waits until it has ended and gives the exit code."""
        assert self.process is not None
        assert self._reader is not None
        code = await asyncio.to_thread(self.process.wait, PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    async def kill(self) -> None:
        """As if the power had gone, for the process."""
        self.signal(signal.SIGKILL)
        assert await self.ended() == -signal.SIGKILL

    async def stored(self, log: str) -> list[Entry]:
        """What its database holds of a log, once it has ended. There are no gaps."""
        store = SqliteStore(SqliteOptions(path=self.folder / "tidings.db"), new_id=new_id)
        await store.open()
        try:
            pages = await store.read(log, 0, max_bytes=1 << 40)
        finally:
            await store.close()
        entries = [entry for page in pages for entry in decode_entries(page.body)]
        assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
        return entries

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.signal(signal.SIGCONT)
            await self.ended()

    def caller(self, user: str) -> Caller:
        made = Caller(self.address, user)
        self._clients.append(made)
        return made

    def connect(self, user: str, device: str = "phone") -> Device:
        made = Device(self.address, user, device)
        self._clients.append(made)
        return made


def _read(process: subprocess.Popen[bytes], log: list[dict[str, Any]]) -> None:
    assert process.stderr is not None
    with process.stderr:
        for raw in process.stderr:
            try:
                line = json.loads(raw)
            except ValueError:
                line = {"message": raw.decode(errors="replace").rstrip()}
            log.append(line)
