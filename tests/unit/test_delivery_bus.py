"""Sessions over a bus that loses, repeats and comes back: every device becomes level all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from structlog.testing import capture_logs

from tests.unit.devices import level
from tests.unit.world import World, settled
from tidings_server.bus.base import PagePublished, Publication
from tidings_server.messaging.log_state import LogView
from tidings_server.storage.memory import Fate, Happens

pytestmark = pytest.mark.virtual_time


async def test_a_publication_that_is_lost_is_made_up_for(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    lose = True
    on_publication = world.node.bus.on_publication

    def lossy(publication: Publication) -> None:
        if not (lose and isinstance(publication, PagePublished) and publication.log == log):
            on_publication(publication)

    world.node.bus.on_publication = lossy
    await world.post(log, "alice", "lost")
    lose = False
    await settled()
    assert bob.applied(log) == 1
    await world.post(log, "alice", "seen")
    await level(bob, log, 3)


async def test_a_bus_that_was_renewed(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    on_publication, world.node.bus.on_publication = (
        world.node.bus.on_publication,
        lambda _: None,
    )
    await world.post(log, "alice", "lost")
    world.node.bus.on_publication = on_publication
    world.node.bus.on_resync()
    await level(bob, log, 2)


async def test_a_bus_that_comes_and_goes_while_the_store_is_away(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    world.node.bus.on_publication, on_publication = (
        lambda _: None,
        world.node.bus.on_publication,
    )
    await world.post(log, "alice", "lost")
    world.script.always["heads"] = Fate(Happens.REFUSED)
    with capture_logs():
        for _ in range(100):
            world.node.bus.on_resync()
            await asyncio.sleep(1)
    assert len(bob.session._tasks) <= 1
    # One that comes while the heads are read is not taken for answered by them.
    world.script.always["heads"] = Fate(after=0.5)
    await asyncio.sleep(0.7)
    await world.post(log, "alice", "lost too")
    world.node.bus.on_resync()
    world.node.bus.on_publication = on_publication
    await level(bob, log, 3)
    await settled()
    assert not bob.session._tasks


async def test_a_bus_that_was_renewed_during_a_sync(world: World, log: str) -> None:
    await world.post(log, "alice", "clears what is pending")
    world.script.always["memberships_of"] = Fate(before=0.2)
    bob = world.device("bob")
    await bob.hello(synced=False)
    # By now the heads are read, and no log is brought anywhere yet.
    await asyncio.sleep(0.1)
    on_publication, world.node.bus.on_publication = (
        world.node.bus.on_publication,
        lambda _: None,
    )
    await world.post(log, "alice", "lost")
    world.node.bus.on_publication = on_publication
    world.node.bus.on_resync()
    await level(bob, log, 3)


async def test_a_second_session_waits_for_the_subscription_of_the_first(
    world: World, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe, confirmed = world.node.bus.subscribe, asyncio.Event()

    async def slowly(logs: Iterable[str]) -> None:
        await confirmed.wait()
        await subscribe(logs)

    monkeypatch.setattr(world.node.bus, "subscribe", slowly)
    first, second = world.device("bob"), world.device("bob", "tablet")
    await first.hello(synced=False)
    await settled()
    await second.hello(synced=False)
    await settled()
    # Whose wish it was ends while the other waits.
    first.session.close()
    await world.post(log, "alice", "before anything is subscribed")
    confirmed.set()
    await level(second, log, 2)


async def test_a_removal_that_a_renewed_bus_lost(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    world.node.bus.on_publication, on_publication = (
        lambda _: None,
        world.node.bus.on_publication,
    )
    await world.post(log, "alice", "lost")
    # The heads are read again before the removal is stored, the membership after it.
    world.script.always["heads"] = Fate(after=0.2)
    world.node.bus.on_resync()
    await asyncio.sleep(0.1)
    await world.remove(log, "alice", "bob")
    world.node.bus.on_publication = on_publication
    await level(bob, log, 3)


async def test_a_view_that_is_behind_a_head_is_waited_for(
    world: World, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = world.device("bob")
    await bob.hello()
    await world.post(log, "alice", "seen")
    view, calls = world.node.sequencer.view, 0
    old = await view(log, "bob")

    async def behind(name: str, user: str) -> LogView:
        nonlocal calls
        calls += 1
        return old if calls <= 3 else await view(name, user)

    monkeypatch.setattr(world.node.sequencer, "view", behind)
    on_publication, world.node.bus.on_publication = (
        world.node.bus.on_publication,
        lambda _: None,
    )
    await world.post(log, "alice", "lost")
    world.node.bus.on_publication = on_publication
    with capture_logs() as logs:
        world.node.bus.on_resync()
        await level(bob, log, 3)
    assert [line["event"] for line in logs] == ["catch_up_waits"] * 3


async def test_pages_that_come_twice_or_late(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    await world.post(log, "alice", "1")
    await world.post(log, "alice", "2")
    for page in (*world.pages(log), *reversed(world.pages(log))):
        world.node.bus.on_publication(PagePublished(log, page))
    await world.post(log, "alice", "3")
    await level(bob, log, 4)
