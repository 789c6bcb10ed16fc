"""Who was removed gets nothing of what follows, also where the log of their conversation is joined once more."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.world import World, until
from tidings_server.storage.memory import Fate

pytestmark = pytest.mark.virtual_time


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = await World().start()
    yield made
    await made.stop()


async def test_a_joining_that_is_long_over_brings_nothing_of_what_came_later(world: World) -> None:
    log = await world.group("alice")
    await world.add(log, "alice", "bob")
    await world.remove(log, "alice", "bob")
    bob = world.device("bob")
    await bob.hello()
    # The log was forgotten, and bob's membership is read slowly when his inbox tells of the joining.
    world.node.sequencer._max_idle_logs = 1
    while log in world.node.sequencer._logs:
        await world.group("carol")
    world.script.always["memberships"] = Fate(before=1)
    bob.session._inbox_page(world.pages("inbox:bob")[0])
    hub = world.node.hub
    await until(lambda: hub.has_joined(log, bob.session))
    await until(lambda: not world.node.sequencer._logs[log].busy)
    world.script.always.clear()
    await world.post(log, "alice")
    await until(lambda: not hub.has_joined(log, bob.session))
    assert bob.applied(log) == 3
    assert bob.seqs(log) == [2, 3]
