"""`make stack`: Redis, Cassandra and two servers on this machine, until Ctrl-C.

What is stored stays in the folder: started again, everybody has everything.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click

from tools.stack.cassandra import CassandraNodes, NodeOptions
from tools.stack.redis import RedisServer

_PORT, _HTTP_PORT, _METRICS_PORT = 50051, 8080, 9464


@click.command(context_settings={"show_default": True})
@click.option(
    "--cassandra-nodes", type=click.IntRange(1, 3), default=1, help="How many nodes the ring has."
)
@click.option("--servers", type=click.IntRange(1, 8), default=2, help="How many servers.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/stack"),
    help="Where everything is kept.",
)
@click.option("--fresh", is_flag=True, help="Forget what earlier stacks stored.")
def main(cassandra_nodes: int, servers: int, folder: Path, *, fresh: bool) -> None:
    """Run Redis, Cassandra and servers of Tidings that share them."""
    stop = threading.Event()
    for wish in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wish, lambda *_: stop.set())
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context((folder / "lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise click.ClickException(f"another stack runs in {folder}") from None
        redis = RedisServer(folder / "redis")
        stack.callback(redis.stop)
        redis.start()
        click.echo(f"stack: Redis answers on 127.0.0.1:{redis.port}")
        ring = CassandraNodes(folder / "cassandra", cassandra_nodes, options=NodeOptions(tied=True))
        stack.callback(ring.stop)
        ring.start(fresh=fresh or not (folder / "cassandra").exists())
        click.echo(f"stack: Cassandra answers on {', '.join(ring.hosts)}, port {ring.port}")
        settings = {
            "STORE__KIND": "scylla",
            "SCYLLA__HOSTS": ",".join(ring.hosts),
            "SCYLLA__PORT": str(ring.port),
            "SCYLLA__REPLICATION": str(cassandra_nodes),
            "BUS__KIND": "redis",
            "REDIS__HOSTS": f"127.0.0.1:{redis.port}",
            "NODES__KEY": secrets.token_urlsafe(32),
        }
        # The first one makes the tables and the people; the others find them.
        processes = [
            stack.enter_context(_server(settings, number, folder)) for number in range(servers)
        ]
        while not stop.wait(0.5):
            for number, process in enumerate(processes):
                if process.poll() is not None:
                    raise click.ClickException(f"server {number} ended with {process.returncode}")
        click.echo("stack: stopping")


@contextlib.contextmanager
def _server(
    settings: dict[str, str], number: int, folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    port, http_port, metrics_port = (first + number for first in (_PORT, _HTTP_PORT, _METRICS_PORT))
    given = {
        **settings,
        "GRPC__LISTEN": f"127.0.0.1:{port}",
        "BRIDGE__LISTEN": f"127.0.0.1:{http_port}",
        "METRICS__LISTEN": f"127.0.0.1:{metrics_port}",
        "DRAIN__DELAY_SPREAD_S": "1",
    }
    environment = {**os.environ, **{f"TIDINGS_{name}": value for name, value in given.items()}}
    path = folder / f"server-{number}.log"
    with path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tidings_server", "serve", "--demo"],
            env=environment,
            stdout=None if number == 0 else log,
            stderr=log,
        )
    try:
        _wait_until_it_listens(process, port, path)
        click.echo(f"stack: a server listens on 127.0.0.1:{port}, and logs to {path}")
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, path: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            end = path.read_text("utf-8", "replace")[-2000:]
            raise click.ClickException(f"the server on port {port} does not come up:\n{end}")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
