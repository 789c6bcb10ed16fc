"""The server on a real Cassandra: what users and operators do with it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.processes import ServerProcess
from tests.integration.test_readiness import ask, says
from tests.integration.wire import PATIENCE_S
from tools.stack.cassandra import CassandraNodes
from tools.stack.proxy import Proxy

KEYSPACE = "served"


@pytest.fixture
def settings(cassandra: CassandraNodes) -> dict[str, str]:
    return {
        "STORE__KIND": "scylla",
        "SCYLLA__HOSTS": cassandra.hosts[0],
        "SCYLLA__PORT": str(cassandra.port),
        "SCYLLA__KEYSPACE": KEYSPACE,
        "SCYLLA__REPLICATION": "1",
        "SCYLLA__REQUEST_TIMEOUT_S": "30",
    }


@pytest.fixture
async def nodes(tmp_path: Path, settings: dict[str, str]) -> AsyncIterator[list[ServerProcess]]:
    """Two servers, not started."""
    both = [ServerProcess(tmp_path, prefix=(), **settings) for _ in range(2)]
    yield both
    for node in both:
        await node.close()


async def run(settings: dict[str, str], *arguments: str) -> tuple[int, str]:
    """A command's exit code, and what it said."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TIDINGS_")}
    environment.update({f"TIDINGS_{name}": value for name, value in settings.items()})
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tidings_server", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


async def test_a_server_that_was_killed_has_all_that_it_acknowledged(
    nodes: list[ServerProcess],
) -> None:
    first, second = nodes
    await first.start()
    alice = first.caller("alice")
    log = await alice.group("bob")
    device = await first.connect("alice").open()
    posts = [device.message(log, str(n)) for n in range(300)]
    await device.send(*posts)
    for post in posts:
        assert (await device.result(post.command_id)).HasField("send_message")
    await first.kill()
    await second.start()
    bob = await second.connect("bob").open()
    assert bob.applied(log) == 301
    # The same messages once more: they are known.
    again = await second.connect("alice").open()
    await again.send(*posts)
    for post in posts:
        await again.result(post.command_id)
    assert await second.caller("alice").post(log, "one more") == 302
    second.signal(signal.SIGTERM)
    assert await second.ended() == 0


async def test_a_cluster_that_does_not_answer_is_told_at_readyz(
    tmp_path: Path, settings: dict[str, str], cassandra: CassandraNodes
) -> None:
    between = Proxy(cassandra.port)
    await between.start()
    settings["SCYLLA__PORT"] = str(between.port)
    settings["SCYLLA__REQUEST_TIMEOUT_S"] = "6"
    node = ServerProcess(
        tmp_path, prefix=(), **settings, METRICS__ENABLED="true", METRICS__LISTEN="127.0.0.1:0"
    )
    try:
        await node.start()
        port = (await node.logged("serving"))["metrics_port"]
        await says(port, 200, "ok")
        between.drop_answers()
        # It is silent at first; later its connections are given up.
        lines = {"store: it does not answer in time", "store: it can't be reached"}
        async with asyncio.timeout(PATIENCE_S):
            while (await asyncio.to_thread(ask, port))[1] not in lines:
                pass
        between.heal()
        between.cut()
        async with asyncio.timeout(2 * PATIENCE_S):
            while await asyncio.to_thread(ask, port) != (200, "ok"):
                pass
    finally:
        await node.close()
        await between.stop()


async def test_an_operator_looks_after_a_keyspace(settings: dict[str, str]) -> None:
    settings = {**settings, "SCYLLA__KEYSPACE": "looked_after"}
    code, said = await run(settings, "migrate")
    assert (code, said) == (0, "keyspace looked_after is up to date\n")
    code, said = await run(settings, "doctor")
    assert "keyspace looked_after has schema version" in said
    assert "commitlog_sync: periodic" in said
    assert code == 1, "with one copy, a power cut loses acknowledged messages"
    code, said = await run(settings, "begin-history", "--yes")
    assert code == 0
    assert "keyspace looked_after: incarnation " in said
    code, said = await run(settings, "backup", "copy.db")
    assert code == 2
    assert "docs/storage-scylla.md" in said


async def test_a_cluster_that_is_not_there_is_one_line(settings: dict[str, str]) -> None:
    code, said = await run({**settings, "SCYLLA__PORT": "1"}, "migrate")
    assert code == 1
    assert said.splitlines()[-1].startswith("tidings-server: the cluster can't be reached")


async def test_a_cluster_without_an_address_is_one_line(settings: dict[str, str]) -> None:
    code, said = await run({**settings, "SCYLLA__HOSTS": "nowhere.invalid"}, "migrate")
    assert code == 1
    assert (
        said.splitlines()[-1] == "tidings-server: none of the hosts has an address: nowhere.invalid"
    )
