"""The store on a cluster under lost answers, held requests, cuts, and other nodes: nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from tests.contract.contract_base import all_pages
from tests.contract.honest_client import HonestClient, at_last
from tests.contract.keyspaces import Keyspaces, ScyllaMedium
from tests.contract.samples import LOG, OTHER, append_of, fill, membership, page
from tidings_server.core.pages import BUCKET_SIZE, Page
from tidings_server.storage.base import (
    APPLIED,
    UNKNOWN,
    Append,
    Conflict,
    CursorRow,
    Outcome,
    PresenceRow,
    Receipt,
    Snapshot,
    Store,
    StoreUnavailable,
)
from tidings_server.storage.columns import dump_intervals
from tidings_server.storage.scylla import ScyllaStore
from tidings_server.storage.scylla.connection import execute
from tidings_server.storage.scylla.statements import timestamp
from tools.stack.cassandra import CassandraNodes
from tools.stack.proxy import Proxy

DEADLINE_S = 20.0
SHORT_S = 0.4


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  # threads and processes of others set no event
            await asyncio.sleep(0.005)


@pytest.fixture
def medium(keyspaces: Keyspaces) -> ScyllaMedium:
    return keyspaces.take()


@pytest.fixture
async def direct(medium: ScyllaMedium) -> AsyncIterator[ScyllaStore]:
    """A store that nothing stands in the way of."""
    store = medium.store()
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def proxy(cassandra: CassandraNodes) -> AsyncIterator[Proxy]:
    proxy = Proxy(cassandra.port)
    await proxy.start()
    yield proxy
    await proxy.stop()


@pytest.fixture
async def store(medium: ScyllaMedium, proxy: Proxy) -> AsyncIterator[ScyllaStore]:
    """A store behind the proxy, that soon stops waiting for answers."""
    options = medium.keyspaces.options(
        medium.name, request_timeout_s=SHORT_S, heartbeat_s=SHORT_S, connect_timeout_s=2.0
    )
    store = ScyllaStore(replace(options, port=proxy.port), new_id=lambda: "behind a proxy")
    await store.open()
    yield store
    proxy.answering = proxy.passing = True
    await store.close()


async def settled(store: Store, request: Append) -> Outcome:
    """The first definite answer."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                answer = await store.append(request)
            except StoreUnavailable:
                await asyncio.sleep(0.01)
                continue
            if answer is not UNKNOWN:
                return answer
            await asyncio.sleep(0.01)


async def test_an_append_whose_answer_is_lost_is_unknown_and_found_by_its_commit_id(
    store: ScyllaStore, direct: ScyllaStore, proxy: Proxy
) -> None:
    await fill(store, LOG, [2])
    request = append_of(LOG, page(3, 2))
    proxy.answering = False
    assert await store.append(request) is UNKNOWN
    # It is there all the same: who reads without the fault sees it.
    assert (await direct.heads([LOG]))[LOG].commit_id == request.page.commit_id
    proxy.answering = True
    proxy.cut()
    assert await settled(store, request) == Conflict(4)
    found = await at_last(lambda: store.read(LOG, 2, max_bytes=1))
    assert found[0] == request.page
    assert store.counters.unknown >= 1


async def test_an_append_that_is_held_back_and_sent_again_is_applied_once(
    store: ScyllaStore, direct: ScyllaStore, proxy: Proxy
) -> None:
    await fill(store, LOG, [1])
    request = append_of(LOG, page(2, 3))
    proxy.passing = False
    assert await store.append(request) is UNKNOWN
    assert proxy.holding
    # Not there, now: but that says nothing of later.
    assert (await direct.heads([LOG]))[LOG].last_seq == 1
    proxy.cut()
    proxy.passing = True
    assert await settled(store, request) is APPLIED
    await proxy.release()
    await fill(direct, LOG, [1], start=5)
    pages = await all_pages(direct, LOG)
    assert [p.first_seq for p in pages] == [1, 2, 5]
    assert pages[1] == request.page


async def test_an_append_that_comes_late_is_refused_when_another_was_first(
    store: ScyllaStore, direct: ScyllaStore, proxy: Proxy
) -> None:
    await fill(store, LOG, [1])
    late = append_of(LOG, page(2, 3))
    proxy.passing = False
    assert await store.append(late) is UNKNOWN
    (other,) = await fill(direct, LOG, [1], start=2)
    proxy.cut()
    proxy.passing = True
    await proxy.release()
    assert await settled(store, late) == Conflict(2)
    assert (await all_pages(direct, LOG))[1] == other


async def test_an_append_that_comes_late_is_applied_if_nobody_was_first(
    store: ScyllaStore, direct: ScyllaStore, proxy: Proxy
) -> None:
    await fill(store, LOG, [1])
    late = append_of(LOG, page(2, 3))
    proxy.passing = False
    assert await store.append(late) is UNKNOWN
    proxy.cut()
    await proxy.release()
    async with asyncio.timeout(DEADLINE_S):
        while (await direct.heads([LOG]))[LOG].last_seq == 1:  # noqa: ASYNC110  # the cluster's doing
            await asyncio.sleep(0.01)
    assert (await all_pages(direct, LOG))[1] == late.page


async def test_without_a_connection_nothing_is_written_and_it_is_said(
    store: ScyllaStore, direct: ScyllaStore, proxy: Proxy
) -> None:
    await fill(store, LOG, [1])
    await proxy.stop()
    refused: list[bytes] = []
    definite = False
    async with asyncio.timeout(DEADLINE_S):
        # Until the driver has seen that its connections are gone, outcomes are unknown.
        while not definite:
            request = append_of(OTHER, page(1))
            try:
                assert await store.append(request) is UNKNOWN
            except StoreUnavailable:
                refused.append(request.page.commit_id)
                definite = True
    with pytest.raises(StoreUnavailable):
        await store.check()
    with pytest.raises(StoreUnavailable):
        await store.heads([LOG])
    await proxy.start()
    await at_last(store.check)
    assert (await store.heads([LOG]))[LOG].last_seq == 1
    assert not {p.commit_id for p in await all_pages(direct, OTHER)} & set(refused)


async def test_a_node_that_stands_still_makes_outcomes_unknown(
    store: ScyllaStore, cassandra: CassandraNodes
) -> None:
    client = HonestClient(store, [LOG, OTHER])
    await client.work(3)
    cassandra.send(0, signal.SIGSTOP)
    try:
        working = asyncio.create_task(client.work(3))
        await until(lambda: client.unknown > 0)
    finally:
        cassandra.send(0, signal.SIGCONT)
    await working
    await client.verify()


@pytest.mark.parametrize("seed", [1, 2])
async def test_under_random_faults_all_that_was_acknowledged_is_there_once(
    store: ScyllaStore, direct: ScyllaStore, proxy: Proxy, seed: int
) -> None:
    rng = random.Random(seed)
    client = HonestClient(store, [f"log-{n}" for n in range(4)])
    working = asyncio.create_task(client.work(8))
    while not working.done():
        proxy.answering, proxy.passing = rng.random() < 0.6, rng.random() < 0.7
        if rng.random() < 0.4:
            proxy.cut()
        await asyncio.wait([working], timeout=rng.uniform(0.05, 0.3))
        proxy.answering = proxy.passing = True
        await proxy.release()
        if rng.random() < 0.5:
            proxy.cut()
        await asyncio.wait([working], timeout=rng.uniform(0.3, 0.8))
    await working
    assert store.counters.failures
    await client.verify(direct)


async def test_two_nodes_at_one_log_take_turns(medium: ScyllaMedium, direct: ScyllaStore) -> None:
    other = medium.store()
    await other.open()
    rng = random.Random(3)

    async def write(store: Store, name: int) -> list[Page]:
        mine: list[Page] = []
        while len(mine) < 15:
            head = (await store.heads([LOG])).get(LOG)
            at = head.last_seq if head is not None else 0
            content = page(at + 1, 1 + name, body=b"%d" % name)
            answer = await settled(store, append_of(LOG, content))
            if isinstance(answer, Conflict):
                # The answer may be the one to an earlier sending.
                found = await store.read(LOG, at, max_bytes=1)
                if found[0].commit_id != content.commit_id:
                    await asyncio.sleep(rng.uniform(0, 0.01))
                    continue
            mine.append(content)
        return mine

    mine, theirs = await asyncio.gather(write(direct, 0), write(other, 1))
    pages = await all_pages(direct, LOG)
    assert pages == sorted(mine + theirs, key=lambda p: p.first_seq)
    assert [p.first_seq for p in pages[1:]] == [p.last_seq + 1 for p in pages[:-1]]
    assert direct.counters.conflicts + other.counters.conflicts > 0
    await other.close()


async def test_a_bucket_is_opened_by_one_node_and_found_by_the_others(
    medium: ScyllaMedium, direct: ScyllaStore
) -> None:
    other = medium.store()
    await other.open()
    await fill(direct, LOG, [100] * 99)
    assert (await other.heads([LOG]))[LOG].last_seq == BUCKET_SIZE - 100
    # The one before is not full: no node may open the next.
    assert await other.append(append_of(LOG, page(BUCKET_SIZE + 1))) == Conflict(BUCKET_SIZE - 100)
    await fill(direct, LOG, [100], start=BUCKET_SIZE - 99)
    first = [append_of(LOG, page(BUCKET_SIZE + 1, n)) for n in (1, 2)]
    answers = await asyncio.gather(settled(direct, first[0]), settled(other, first[1]))
    won = answers.index(APPLIED)
    assert answers[1 - won] == Conflict(BUCKET_SIZE + 1 + won)
    head = BUCKET_SIZE + 1 + won
    # Nodes that never saw the log, and ones that believe it to be shorter, find its end.
    third = medium.store()
    await third.open()
    for node in (direct, other, third):
        assert (await node.heads([LOG]))[LOG].last_seq == head
        assert await node.append(append_of(LOG, page(5))) == Conflict(head)
        assert await node.append(append_of(LOG, page(BUCKET_SIZE))) == Conflict(head)
        assert await node.append(append_of(LOG, page(2 * BUCKET_SIZE + 1))) == Conflict(head)
        assert await node.snapshot(LOG) == Snapshot(BUCKET_SIZE, b"state at 10000")
        back = await node.read_back(LOG, 1 << 40, max_bytes=1)
        assert [p.last_seq for p in back] == [head]
    await third.close()
    await other.close()


async def test_a_hint_is_only_a_hint(medium: ScyllaMedium, direct: ScyllaStore) -> None:
    await fill(direct, LOG, [100] * 101)
    await fill(direct, OTHER, [100] * 100)
    session = medium.keyspaces.session
    hint = f"SELECT bucket FROM {medium.name}.bucket_hint WHERE log = %s"

    async def hinted() -> int:
        row = (await asyncio.to_thread(execute, session, hint, (LOG,))).one()
        return row[0] if row is not None else 0

    async with asyncio.timeout(DEADLINE_S):
        while await hinted() != 1:  # noqa: ASYNC110  # it is written after the answer
            await asyncio.sleep(0.01)
    # As after a restore that brought back older logs than hints, and as when none was ever written.
    for bucket in (7, None):
        for log in (LOG, OTHER):
            execute(session, f"DELETE FROM {medium.name}.bucket_hint WHERE log = %s", (log,))
            if bucket is not None:
                execute(
                    session,
                    f"INSERT INTO {medium.name}.bucket_hint (log, bucket) VALUES (%s, %s)",
                    (log, bucket),
                )
        newcomer = medium.store()
        await newcomer.open()
        heads = await newcomer.heads([LOG, OTHER, "nowhere"])
        assert {log: head.last_seq for log, head in heads.items()} == {LOG: 10_100, OTHER: 10_000}
        assert await newcomer.snapshot(OTHER) == Snapshot(0, b"state at 0")
        await newcomer.close()


async def test_more_requests_than_allowed_are_refused_at_once(medium: ScyllaMedium) -> None:
    store = medium.store(max_in_flight=10)
    await store.open()
    appends = [store.append(append_of(f"log-{n}", page(1))) for n in range(30)]
    answers = await asyncio.gather(*appends, return_exceptions=True)
    assert answers[:10] == [APPLIED] * 10
    assert all(isinstance(answer, StoreUnavailable) for answer in answers[10:])
    await store.check()
    assert len(await store.heads([f"log-{n}" for n in range(10)])) == 10
    await store.close()


async def test_writes_that_come_late_change_nothing(direct: ScyllaStore) -> None:
    """Another node decided to write before, and its request was held up: it has read nothing of what is there now."""
    now, late = membership("ann", 8, current=False), membership("ann", 3)
    receipt = Receipt(LOG, "ann", 9, 8, 2)
    presence = PresenceRow("ann", 900, 80, 1, "a")
    await direct.put_memberships(LOG, [now])
    await direct.put_receipts([receipt])
    await direct.put_presence([presence])
    await direct.put_cursors([CursorRow("ann", "phone", LOG, 8)])
    assert direct._parts is not None
    bound, courier = direct._parts.statements, direct._parts.courier
    stays = dump_intervals(late.intervals)
    before, role = timestamp(late.as_of), int(late.role)
    by_log = (before, late.as_of, role, late.current, stays, "", LOG, "ann")
    await courier.ask_all(
        [
            bound.put_membership.bind(by_log),
            bound.put_membership_of_user.bind((before, late.as_of, role, stays, "", "ann", LOG)),
            bound.put_delivered.bind((timestamp(7), 7, LOG, "ann")),
            bound.put_read.bind((timestamp(7), 7, 1_000, LOG, "ann")),
            bound.put_seen.bind((timestamp(400), 400, "ann")),
            bound.put_status.bind((timestamp(70), 70, 9, "z", "ann")),
            bound.put_cursor.bind((timestamp(7), 7, "ann", "phone", LOG)),
        ]
    )
    assert await direct.memberships(LOG, ["ann"]) == {"ann": now}
    assert await direct.memberships_of("ann", [LOG]) == {LOG: now}
    assert await direct.receipts_of("ann", [LOG]) == {LOG: receipt}
    assert await direct.presence(["ann"]) == {"ann": presence}
    assert await direct.cursors("ann", "phone") == {LOG: 8}
