"""Lag is counted while it lasts, and measured when it ends, whatever ends it."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.world import World, until
from tidings_server.core.ids import inbox_log

pytestmark = pytest.mark.virtual_time


async def test_lag_is_counted_until_a_device_is_level(world: World, log: str) -> None:
    counters = world.node.counters
    bob = world.device("bob")
    await bob.hello(window=3)
    # Brought level in the group and in the inbox when it connected.
    assert (counters.lagging_logs, sum(counters.lag_duration_seconds.counts)) == (0, 2)
    for _ in range(3):
        await world.post(log, "alice")
    assert counters.lagging_logs == 1
    began = counters.lag_duration_seconds.sum
    await asyncio.sleep(7)
    bob.send(acks=[(inbox_log("bob"), 1), (log, 2)])
    await until(lambda: bob.applied(log) == 4)
    assert counters.lagging_logs == 0
    assert counters.lag_duration_seconds.sum - began >= 7


async def test_a_device_that_leaves_lags_no_more(world: World, log: str) -> None:
    counters = world.node.counters
    bob = world.device("bob")
    await bob.hello(window=2)
    for _ in range(3):
        await world.post(log, "alice")
    assert counters.lagging_logs == 1
    again = world.device("bob")
    await again.hello(window=1, synced=False)
    # The first is ended by the second, which can't be brought level.
    await until(bob.session.ended.done)
    bob.session.close()
    assert counters.lagging_logs >= 1
    again.session.close()
    again.session.close()
    assert counters.lagging_logs == 0


async def test_publications_are_measured_where_sessions_follow(world: World, log: str) -> None:
    durations = world.node.counters.publication_duration_seconds
    before = sum(durations.counts)
    await world.post(log, "alice")
    assert sum(durations.counts) == before, "nobody follows it"
    bob = world.device("bob")
    await bob.hello()
    await world.post(log, "alice")
    await until(lambda: bob.applied(log) == 3)
    assert sum(durations.counts) == before + 1
