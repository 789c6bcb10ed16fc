"""A disk whose fsync fails: what is not known to be durable is acknowledged to nobody, and sent to nobody."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.faulty_vfs import FaultyVFS, failed_sync
from tests.faults.check import invariants
from tests.faults.person import Person
from tests.integration.wire import CLOCK, POLICY, RNG, Caller, new_id, until
from tidings_server.auth import TokenVerifier
from tidings_server.bus.local import LocalBus
from tidings_server.node import Node
from tidings_server.rpc.server import RpcServer
from tidings_server.storage.sqlite import SqliteOptions, SqliteStore


@dataclass
class Served:
    """A server whose disk is in the hands of the test."""

    vfs: FaultyVFS
    node: Node
    address: str


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    vfs = FaultyVFS(random.Random(3))
    options = SqliteOptions(path=tmp_path / "tidings.db", vfs=vfs.name, retry_most_s=0.2)
    store = SqliteStore(options, new_id=new_id)
    await store.open()
    verifier = TokenVerifier(POLICY, CLOCK)
    await verifier.prepare()
    node = Node(store, LocalBus(), CLOCK, RNG, verifier.verify)
    server = RpcServer(node, "127.0.0.1:0")
    await node.start()
    await server.start()
    yield Served(vfs, node, f"127.0.0.1:{server.port}")
    await node.stop()
    await server.stop(0)
    await store.close()


@pytest.mark.parametrize("odds", [0.2, 1.0])
async def test_syncs_that_fail(served: Served, odds: float) -> None:
    caller = Caller(served.address, "alice")
    log = await caller.group("bob")
    people = [Person(user, lambda: served.address, [log]) for user in ("alice", "bob")]
    rng = random.Random(5)
    failed = 0

    def fault(do: str, _: str) -> Exception | None:
        nonlocal failed
        # The first one fails, so that one does however few there are.
        if do != "sync" or (failed and rng.random() >= odds):
            return None
        failed += 1
        return failed_sync()

    served.vfs.fault = fault
    for _ in range(40):
        for person in people:
            person.post(log)
    if odds == 1.0:
        await until(lambda: all(len(p.refused) > 20 for p in people))
        assert not any(post.seq for p in people for post in p.posts)
        # Nobody has seen what is not durable.
        assert all(len(p.applied[log]) == 1 for p in people)
        served.vfs.fault = lambda _do, _what: None
    await until(lambda: not any(p.waiting for p in people))
    served.vfs.fault = lambda _do, _what: None
    assert failed
    heads = {log: 81}
    await until(lambda: all(p.level(heads) for p in people))
    await invariants(people, caller, [log])
    for person in people:
        await person.stop()
    await caller.close()
