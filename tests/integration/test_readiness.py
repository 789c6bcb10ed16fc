"""What /readyz says of a process: whether clients should come here, and why not."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.processes import ServerProcess
from tests.integration.wire import PATIENCE_S


def ask(port: int) -> tuple[int, str]:
    """The status and the line; 0 while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as problem:
        with problem:
            return problem.code, problem.read().decode().strip()
    except (urllib.error.URLError, ConnectionError):
        return 0, ""


async def says(port: int, status: int, line: str) -> None:
    """Waits for an answer."""
    got = (0, "")
    try:
        async with asyncio.timeout(PATIENCE_S):
            while got != (status, line):
                got = await asyncio.to_thread(ask, port)
    except TimeoutError:
        raise AssertionError(f"it says {got}") from None


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server with an operator's port, not started."""
    made = ServerProcess(tmp_path, METRICS__ENABLED="true", METRICS__LISTEN="127.0.0.1:0")
    yield made
    await made.close()


async def test_a_store_that_can_not_be_written(watched: ServerProcess) -> None:
    await watched.start()
    port = (await watched.logged("serving"))["metrics_port"]
    await says(port, 200, "ok")
    # Writes beyond this size fail, as on a disk with bad blocks.
    resource.prlimit(watched.pid, resource.RLIMIT_FSIZE, (512, resource.RLIM_INFINITY))
    await says(port, 503, "store: its disk fails")
    resource.prlimit(
        watched.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    )
    await says(port, 200, "ok")


async def test_a_drain(watched: ServerProcess) -> None:
    watched.settings["DRAIN__DELAY_SPREAD_S"] = "60"
    watched.settings["DRAIN__GRACE_S"] = "60"
    await watched.start()
    port = (await watched.logged("serving"))["metrics_port"]
    await says(port, 200, "ok")
    device = await watched.connect("alice").open()
    watched.signal(signal.SIGTERM)
    # It waits for the device to go.
    await says(port, 503, "draining: this server is about to stop")
    await device.close()
    assert await watched.ended() == 0


async def test_a_cluster_that_does_not_answer_yet(watched: ServerProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        watched.settings.update(
            METRICS__LISTEN=f"127.0.0.1:{port}",
            STORE__KIND="scylla",
            SCYLLA__HOSTS="127.0.0.1",
            SCYLLA__PORT=str(silent.getsockname()[1]),
        )
        starting = asyncio.ensure_future(watched.start())
        await says(port, 503, "starting: the store is being opened")
        starting.cancel()
    # It does not wait for ever: whoever starts it again decides how often.
    assert await watched.ended() == 1
