"""Who was removed gets nothing of what follows, also where the log of their conversation is joined once more."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.world import World, settled, until
from tidings_server.bus.base import Publication
from tidings_server.bus.local import LocalBus
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


class LateBus(LocalBus):
    """Keeps what is published to one log until it is told to hand it on, in whichever order."""

    def __init__(self) -> None:
        super().__init__()
        self.late = ""
        self.kept: list[Publication] = []

    def publish(self, publication: Publication) -> None:
        if publication.log == self.late:
            self.kept.append(publication)
        else:
            super().publish(publication)

    def hand_on(self, *order: int) -> None:
        self.late = ""
        for at in order:
            super().publish(self.kept[at])


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (1, 0, 0), (0, 0, 1), (1,), (0,), ()])
async def test_who_has_returned_hears_on_however_late_the_removal_is_published(
    order: tuple[int, ...],
) -> None:
    bus = LateBus()
    world = await World(bus=bus).start()
    log = await world.group("alice", "bob")
    bob = world.device("bob")
    await bob.hello()
    bus.late = log
    await world.remove(log, "alice", "bob")
    await world.add(log, "alice", "bob")
    await until(lambda: bob.applied("inbox:bob") == 3)
    await settled()
    bus.hand_on(*order)
    await settled()
    seq = await world.post(log, "alice", "hears bob of it?")
    await until(lambda: bob.applied(log) == seq)
    assert world.node.hub.has_joined(log, bob.session)
    await world.stop()


async def test_an_earlier_removal_that_comes_late_hides_nothing_before_the_last_one() -> None:
    bus = LateBus()
    world = await World(bus=bus).start()
    log = await world.group("alice", "bob")
    bob = world.device("bob")
    await bob.hello()
    bus.late = log
    await world.remove(log, "alice", "bob")
    await world.add(log, "alice", "bob")
    await until(lambda: bob.applied("inbox:bob") == 3)
    await settled()
    await world.post(log, "alice", "while bob is there")
    end = await world.remove(log, "alice", "bob")
    # All at once: the first one lets go of the log, and so he is not offered what follows.
    bus.hand_on(0, 1, 2, 3)
    await until(lambda: bob.applied(log) == end)
    assert not world.node.hub.has_joined(log, bob.session)
    await world.stop()


async def test_who_has_returned_hears_on_when_the_removal_is_published_during_hello() -> None:
    bus = LateBus()
    world = await World(bus=bus).start()
    log = await world.group("alice", "bob")
    bus.late = log
    await world.remove(log, "alice", "bob")
    await world.add(log, "alice", "bob")
    bob = world.device("bob")
    world.script.plan("cursors", Fate(before=1))
    # He names no cursor of his inbox, and so the stored ones are read when all else is known.
    await bob.hello({log: 3}, synced=False)
    await until(lambda: world.node.hub.has_joined(log, bob.session))
    bus.hand_on(0, 1)
    seq = await world.post(log, "alice", "hears bob of it?")
    await until(lambda: bob.applied(log, 3) == seq)
    seq = await world.post(log, "alice", "and of this?")
    await until(lambda: bob.applied(log, 3) == seq)
    await world.stop()
