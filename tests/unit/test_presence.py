"""Presence: online while connected and a grace period longer, and only told to who shares a conversation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from tests.unit.world import World
from tidings_server.core import commands as c
from tidings_server.presence.service import GRACE_S
from tidings_server.storage.base import StoreUnavailable
from tidings_server.storage.memory import Happens

pytestmark = pytest.mark.virtual_time


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World().start()
    yield world
    await world.stop()


async def seen(world: World, by: str, *users: str) -> dict[str, c.PresenceView]:
    got = await world.execute(by, c.GetPresence(users))
    assert isinstance(got, c.PresenceGot)
    return {p.user_id: p for p in got.presences}


async def test_online_while_connected(world: World) -> None:
    await world.direct("alice", "bob")
    assert (await seen(world, "alice", "bob"))["bob"] == c.PresenceView("bob", False, 0, 0, "")
    bob = world.device("bob")
    await bob.hello()
    assert (await seen(world, "alice", "bob"))["bob"].online
    left = world.clock.now_ms()
    bob.session.close()
    assert (await seen(world, "alice", "bob"))["bob"].online, "the grace period"
    await asyncio.sleep(GRACE_S - 0.1)
    assert (await seen(world, "alice", "bob"))["bob"].online
    await asyncio.sleep(0.2)
    gone = (await seen(world, "alice", "bob"))["bob"]
    assert (gone.online, gone.last_seen_ms) == (False, left)


async def test_whom_a_dead_node_has_left_behind(world: World) -> None:
    await world.direct("alice", "bob")
    await asyncio.sleep(60)
    await world.node.leases.left_behind(["bob"], 7.5)
    gone = (await seen(world, "alice", "bob"))["bob"]
    assert (gone.online, gone.last_seen_ms) == (False, world.clock.now_ms() - 7500)
    # Seen here since: what comes late changes nothing.
    bob = world.device("bob")
    await bob.hello()
    bob.session.close()
    left = world.clock.now_ms()
    await asyncio.sleep(GRACE_S + 1)
    await world.node.leases.left_behind(["bob"], 30.0)
    assert (await seen(world, "alice", "bob"))["bob"].last_seen_ms == left
    world.script.plan("put_presence", Happens.REFUSED)
    with pytest.raises(StoreUnavailable):
        await world.node.leases.left_behind(["bob"], 1.0)


async def test_coming_back_within_the_grace_period(world: World) -> None:
    await world.direct("alice", "bob")
    for _ in range(5):
        bob = world.device("bob")
        await bob.hello()
        bob.session.close()
        await asyncio.sleep(GRACE_S / 2)
        assert (await seen(world, "alice", "bob"))["bob"].online
    assert world.script.calls["put_presence"] == 0, "only transitions are written"
    await asyncio.sleep(GRACE_S)
    assert not (await seen(world, "alice", "bob"))["bob"].online
    assert world.script.calls["put_presence"] == 1


async def test_several_devices(world: World) -> None:
    await world.direct("alice", "bob")
    phone, tablet = world.device("bob"), world.device("bob", "tablet")
    await phone.hello()
    await tablet.hello()
    phone.session.close()
    await asyncio.sleep(2 * GRACE_S)
    assert (await seen(world, "alice", "bob"))["bob"].online
    tablet.session.close()
    await asyncio.sleep(2 * GRACE_S)
    assert not (await seen(world, "alice", "bob"))["bob"].online


async def test_a_device_that_opens_a_newer_session_stays_online(world: World) -> None:
    await world.direct("alice", "bob")
    older, newer = world.device("bob"), world.device("bob")
    await older.hello()
    await newer.hello()
    await asyncio.sleep(2 * GRACE_S)
    assert (await seen(world, "alice", "bob"))["bob"].online
    assert world.script.calls["put_presence"] == 0


async def test_only_those_who_share_a_conversation_are_told(world: World) -> None:
    await world.direct("alice", "bob")
    group = await world.group("alice", "carol")
    for user in ("alice", "bob", "carol", "dave"):
        device = world.device(user)
        await device.hello()
    asked = ("dave", "carol", "alice", "bob", "nobody")
    assert list(await seen(world, "alice", *asked)) == ["carol", "alice", "bob"]
    assert list(await seen(world, "bob", *asked)) == ["alice", "bob"]
    assert list(await seen(world, "dave", *asked)) == ["dave"]
    await world.remove(group, "alice", "carol")
    assert list(await seen(world, "alice", *asked)) == ["alice", "bob"]
    assert list(await seen(world, "carol", *asked)) == ["carol"]


async def test_a_status(world: World) -> None:
    await world.direct("alice", "bob")
    got = await world.execute("bob", c.SetStatus(2, "at lunch"))
    assert got == c.StatusSet(c.PresenceView("bob", False, 0, 2, "at lunch"))
    shown = (await seen(world, "alice", "bob"))["bob"]
    assert (shown.availability, shown.status_text, shown.online) == (2, "at lunch", False)
    await asyncio.sleep(1)
    await world.execute("bob", c.SetStatus(1, ""))
    await world.restart()
    shown = (await seen(world, "alice", "bob"))["bob"]
    assert (shown.availability, shown.status_text) == (1, "")


async def test_two_statuses_within_a_millisecond(world: World) -> None:
    await world.execute("bob", c.SetStatus(2, "first"))
    got = await world.execute("bob", c.SetStatus(1, "second"))
    assert got == c.StatusSet(c.PresenceView("bob", False, 0, 1, "second"))


async def test_a_status_keeps_when_one_was_last_seen(world: World) -> None:
    await world.direct("alice", "bob")
    bob = world.device("bob")
    await bob.hello()
    bob.session.close()
    left = world.clock.now_ms()
    await asyncio.sleep(2 * GRACE_S)
    await world.execute("bob", c.SetStatus(3, "do not disturb"))
    shown = (await seen(world, "alice", "bob"))["bob"]
    assert (shown.last_seen_ms, shown.availability) == (left, 3)


async def test_stopping_notes_when_everybody_was_last_seen(world: World) -> None:
    await world.direct("alice", "bob")
    for user in ("alice", "bob"):
        await world.device(user).hello()
    stopped = world.clock.now_ms()
    await world.restart()
    shown = (await seen(world, "alice", "bob"))["bob"]
    assert not shown.online
    assert stopped <= shown.last_seen_ms <= world.clock.now_ms()


async def test_last_seen_is_written_once_the_store_takes_it(world: World) -> None:
    await world.direct("alice", "bob")
    bob = world.device("bob")
    await bob.hello()
    bob.session.close()
    left = world.clock.now_ms()
    world.script.plan("put_presence", *[Happens.REFUSED] * 3)
    with capture_logs() as logs:
        await asyncio.sleep(2 * GRACE_S)
    assert [line["event"] for line in logs] == ["last_seen_not_written"] * 3
    shown = (await seen(world, "alice", "bob"))["bob"]
    assert (shown.online, shown.last_seen_ms) == (False, left)


async def test_a_store_that_fails_does_not_keep_a_server_from_stopping(world: World) -> None:
    await world.direct("alice", "bob")
    await world.device("bob").hello()
    world.script.plan("put_presence", *[Happens.REFUSED] * 3)
    await world.restart()
    assert world.script.calls["put_presence"] == 1, "it is not tried again"
    shown = (await seen(world, "alice", "bob"))["bob"]
    assert (shown.online, shown.last_seen_ms) == (False, 0)
