"""The schema of a keyspace, its history, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.contract.keyspaces import Keyspaces, ScyllaMedium
from tests.contract.media import new_id
from tests.contract.samples import LOG, append_of, page
from tidings_server.storage.base import APPLIED, StoreCorrupt, StoreUnavailable
from tidings_server.storage.migrations import Migration
from tidings_server.storage.scylla import ScyllaOptions, ScyllaStore, schema
from tidings_server.storage.scylla.connection import begin, connect, execute
from tidings_server.storage.scylla.inspection import inspect
from tidings_server.storage.scylla.options import refuse_forks
from tidings_server.storage.scylla.restoring import begin_restored

ABSENT = "not_there_yet"


@pytest.fixture
def absent(keyspaces: Keyspaces) -> Iterator[ScyllaMedium]:
    """A keyspace that is made by the test."""
    keyspaces.drop(ABSENT)
    yield ScyllaMedium(keyspaces, ABSENT)
    keyspaces.drop(ABSENT)


async def test_nodes_that_start_together_make_one_schema_and_one_history(
    absent: ScyllaMedium,
) -> None:
    stores = [absent.store() for _ in range(3)]
    await asyncio.gather(*(store.open() for store in stores))
    assert len({store.incarnation for store in stores}) == 1
    for seq, store in enumerate(stores, 1):
        assert await store.append(append_of(LOG, page(seq))) is APPLIED
    session = absent.keyspaces.session
    applied = execute(session, f"SELECT number, checksum FROM {ABSENT}.schema_migration")
    assert [tuple(row) for row in applied] == [
        (step.number, step.checksum) for step in schema.known_migrations()
    ]
    assert execute(session, f"SELECT * FROM {ABSENT}.schema_lock").one() is None
    for store in stores:
        await store.close()


async def test_a_migration_that_was_broken_off_is_finished(absent: ScyllaMedium) -> None:
    store = absent.store()
    await store.open()
    await store.close()
    session = absent.keyspaces.session
    execute(session, f"TRUNCATE {ABSENT}.schema_migration")
    execute(session, f"DROP TABLE {ABSENT}.presence")
    store = absent.store()
    await store.open()
    await store.check()
    assert await store.presence(["ann"]) == {}
    await store.close()


@pytest.mark.parametrize(
    ("number", "checksum", "told"),
    [(1, "another", "another version of migration 1"), (2, "of the future", "newer program")],
)
async def test_a_keyspace_of_other_migrations_is_refused(
    absent: ScyllaMedium, number: int, checksum: str, told: str
) -> None:
    store = absent.store()
    await store.open()
    await store.close()
    number += len(schema.known_migrations()) - 1 if number > 1 else 0
    execute(
        absent.keyspaces.session,
        f"INSERT INTO {ABSENT}.schema_migration (part, number, name, checksum)"
        " VALUES ('schema', %s, 'logs', %s)",
        (number, checksum),
    )
    refused = absent.store()
    with pytest.raises(StoreCorrupt, match=told):
        await refused.open()
    with pytest.raises(StoreUnavailable):
        await refused.check()


def test_a_lock_that_another_holds_is_waited_for(
    absent: ScyllaMedium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_LOCK_WAIT_S", 0.3)
    options = absent.keyspaces.options(ABSENT)
    cluster = connect(options)
    try:
        session = begin(cluster)
        schema.migrate(cluster, session, options, "one")
        number = len(schema.known_migrations()) + 1
        step = Migration(number, "more", "CREATE TABLE IF NOT EXISTS more (id text PRIMARY KEY);")
        known = (*schema.known_migrations(), step)
        lock = "INSERT INTO schema_lock (name, owner) VALUES ('schema', 'somebody')"
        execute(session, lock)
        with pytest.raises(StoreUnavailable, match="somebody"):
            schema.migrate(cluster, session, options, "two", known)
        execute(session, "DELETE FROM schema_lock WHERE name = 'schema'")
        assert schema.migrate(cluster, session, options, "two", known) == 1
        assert schema.migrate(cluster, session, options, "two", known) == 0
        assert schema.applied_version(session, ABSENT) == number
    finally:
        cluster.shutdown()


async def test_a_cluster_that_is_not_there_can_not_be_opened(keyspaces: Keyspaces) -> None:
    options = replace(keyspaces.options("tidings"), port=1, connect_timeout_s=1.0)
    store = ScyllaStore(options, new_id=new_id)
    with pytest.raises(StoreUnavailable, match="can't be reached"):
        await store.open()
    await store.close()


def test_logs_that_would_fork_are_refused() -> None:
    two = {"east": 3, "west": 3}
    with pytest.raises(StoreCorrupt, match="LOCAL_SERIAL"):
        refuse_forks(ScyllaOptions(), two)
    refuse_forks(ScyllaOptions(), {"east": 3, "west": 0})
    refuse_forks(ScyllaOptions(home_datacenter="east"), two)
    refuse_forks(ScyllaOptions(everywhere=True), two)
    with pytest.raises(StoreCorrupt, match="no copies in the home"):
        refuse_forks(ScyllaOptions(home_datacenter="north"), two)


async def test_a_data_centre_that_does_not_exist_is_told(
    absent: ScyllaMedium,
) -> None:
    options = replace(absent.keyspaces.options(ABSENT), replication={"elsewhere": 1})
    store = ScyllaStore(options, new_id=new_id)
    with pytest.raises(StoreUnavailable, match="elsewhere"):
        await store.open()


async def test_decisions_of_all_data_centres_work_as_well(keyspaces: Keyspaces) -> None:
    medium = keyspaces.take()
    store = medium.store(everywhere=True)
    await store.open()
    assert await store.append(append_of(LOG, page(1))) is APPLIED
    assert (await store.heads([LOG]))[LOG].last_seq == 1
    await store.close()


async def test_a_history_is_begun_only_where_one_was(absent: ScyllaMedium) -> None:
    options = absent.keyspaces.options(ABSENT)
    with pytest.raises(StoreCorrupt, match="no keyspace"):
        await asyncio.to_thread(begin_restored, options, new_id=new_id)
    store = absent.store()
    await store.open()
    await store.append(append_of(LOG, page(1, stamp=41)))
    await store.close()
    history = await asyncio.to_thread(begin_restored, options, new_id=new_id)
    assert history.ended == {store.incarnation: 42}
    again = absent.store()
    await again.open()
    assert again.incarnation == history.incarnation
    assert again.stamp_floor == 42
    await again.close()


async def test_the_doctor_sees_the_cluster(keyspaces: Keyspaces) -> None:
    medium = keyspaces.take()
    seen = await asyncio.to_thread(inspect, keyspaces.options(medium.name))
    assert seen.engine.startswith("Cassandra 5")
    assert seen.replication == {seen.datacenter: 1}
    assert (seen.forks, seen.syncs_transactions) == ("", False)
    assert seen.schema_version == seen.known_version == len(schema.known_migrations())
    (node,) = seen.nodes
    assert node.up
    assert node.commitlog_sync == "periodic"
    assert node.write_timeout_ms == 20_000
    nothing = await asyncio.to_thread(inspect, keyspaces.options("nothing_here"))
    assert (nothing.replication, nothing.schema_version) == ({}, 0)
