"""Deletions for all: who may, and that the content is gone from wherever it was, whatever fails."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.test_messages_edit import edit, edited, history, states
from tests.unit.world import World, refusal
from tidings_server.bus.base import PagePublished
from tidings_server.core import commands as c
from tidings_server.core.entries import MessageDeleted, MessageEdited, MessagePosted
from tidings_server.errors import Reason
from tidings_server.storage.memory import Fate, Happens

pytestmark = pytest.mark.virtual_time


@pytest.fixture(params=[False, True], ids=["alone", "shared"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world = await World(shared=request.param).start()
    yield world
    await world.stop()


def delete(world: World, log: str, seq: int, *, change_id: str = "") -> c.DeleteMessage:
    return c.DeleteMessage(log, world.change_id(change_id), seq)


async def deleted(world: World, user: str, log: str, seq: int) -> int:
    got = await world.execute(user, delete(world, log, seq))
    assert isinstance(got, c.MessageChanged)
    return got.seq


def stored(world: World, log: str) -> bytes:
    """All that the store has of a log."""
    pages = b"".join(page.body for page in world.pages(log))
    return pages + b"".join(row.body for row in world.disk.overlays(log, 1, 1 << 40))


async def readable(world: World, user: str, log: str) -> bytes:
    """All that a user can read of a log, by whichever way."""
    found = b"".join(e.SerializeToString() for e in await history(world, user, log))
    down = await world.execute(user, c.ListHistory(log, 0, False, 1000, ""))
    assert isinstance(down, c.HistoryListed)
    found += down.events
    for entry in world.entries(log):
        got = await world.execute(user, c.GetMessage(log, entry.seq, None))
        assert isinstance(got, c.MessageGot)
        found += got.event + got.state
    for device in ("new", "old"):
        connected = world.device(user, device)
        await connected.hello({log: 1} if device == "old" else None)
        found += b"".join(connected.frames)
        connected.vanish()
        connected.session.close()
    return found


async def test_the_content_is_gone_and_the_position_stays(world: World) -> None:
    log = await world.group("alice", "bob")
    before = await world.post(log, "bob", "before")
    change = world.new_id()
    seq = await world.post(log, "bob", "secret one", change_id=change)
    first = await edited(world, "bob", log, seq, "secret two")
    await world.post(log, "bob", "after")
    second = await edited(world, "bob", log, seq, "secret three")
    entries = world.entries(log)
    assert b"secret" in await readable(world, "alice", log)
    end = await deleted(world, "bob", log, seq)
    assert b"secret" not in stored(world, log)
    assert b"secret" not in await readable(world, "alice", log)
    now = world.entries(log)
    assert now[-1].body == MessageDeleted(seq)
    for old, new in zip(entries, now[:-1], strict=True):
        assert (new.seq, new.ordinal, new.id, new.user_id, new.time_ms) == (
            old.seq,
            old.ordinal,
            old.id,
            old.user_id,
            old.time_ms,
        )
        if old.seq in (seq, first, second):
            assert new.erased
        else:
            assert new == old
    assert now[seq - 1].body == MessagePosted(b"")
    assert now[first - 1].body == MessageEdited(seq, b"")
    state = (await states(world, "alice", log))[seq]
    assert (state.deleted, state.as_of, state.HasField("content")) == (True, end, False)
    assert world.texts(log)[before - 2] == "before"
    # Whoever did not hear that it was taken asks again, and is told where it is.
    again = world.message(log, "secret one", change_id=change)
    got = await world.execute("bob", again)
    assert isinstance(got, c.Sent)
    assert got.seq == seq
    await world.restart()
    got = await world.execute("bob", again)
    assert isinstance(got, c.Sent)
    assert got.seq == seq
    assert b"secret" not in stored(world, log)


async def test_what_is_deleted_stays_so(world: World) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "bob", "x")
    change = world.new_id()
    first = await world.execute("bob", delete(world, log, seq, change_id=change))
    assert await world.execute("bob", delete(world, log, seq, change_id=change)) == first
    assert await deleted(world, "alice", log, seq) == 0
    problem = await refusal(world, "bob", edit(world, log, seq, "back"))
    assert (problem.reason, problem.field) == (Reason.MESSAGE_NOT_FOUND, "seq")
    assert len(world.entries(log)) == seq + 1


async def test_who_may_not(world: World) -> None:
    log = await world.group("alice", "bob", "carol")
    bobs = await world.post(log, "bob", "b")
    alices = await world.post(log, "alice", "a")
    await world.add(log, "alice", "late")
    await world.remove(log, "alice", "carol")
    head = len(world.entries(log))
    for user, seq, expected in [
        ("bob", alices, Reason.RIGHT_MISSING),
        ("late", bobs, Reason.MESSAGE_NOT_FOUND),
        ("late", 99, Reason.MESSAGE_NOT_FOUND),
        ("bob", 1, Reason.MESSAGE_NOT_FOUND),
        ("carol", bobs, Reason.CONVERSATION_NOT_FOUND),
        ("stranger", bobs, Reason.CONVERSATION_NOT_FOUND),
    ]:
        assert (await refusal(world, user, delete(world, log, seq))).reason is expected, user
    assert len(world.entries(log)) == head
    assert await deleted(world, "alice", log, bobs) == head + 1, "an owner deletes any"
    direct = await world.direct("alice", "bob")
    theirs = await world.post(direct, "bob", "b")
    problem = await refusal(world, "alice", delete(world, direct, theirs))
    assert problem.reason is Reason.RIGHT_MISSING
    assert await deleted(world, "bob", direct, theirs)


@pytest.mark.parametrize("method", ["put_overlays", "rewrite"])
@pytest.mark.parametrize("happens", [Happens.REFUSED, Happens.UNSURE_DONE, Happens.UNSURE_LOST])
async def test_it_is_erased_however_often_that_fails(
    world: World, method: str, happens: Happens
) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "bob", "secret")
    await edited(world, "bob", log, seq, "secret too")
    world.script.plan(method, happens, happens, happens)
    await deleted(world, "bob", log, seq)
    assert b"secret" not in await readable(world, "alice", log)
    assert b"secret" not in stored(world, log)


@pytest.mark.parametrize("method", ["put_overlays", "rewrite"])
async def test_it_is_erased_after_a_crash(world: World, method: str) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "bob", "secret")
    world.script.always[method] = Fate(Happens.REFUSED)
    assert await deleted(world, "bob", log, seq) == seq + 1, "it is durable, and so told"
    assert b"secret" in stored(world, log)
    problem = await refusal(world, "alice", c.ListHistory(log, 0, True, 10, ""))
    assert problem.reason is Reason.STORE_UNAVAILABLE, "better nothing than what was deleted"
    world.store.crash(lambda: False)
    world.script.always.clear()
    world.node = world._make()
    await world.start()
    assert b"secret" not in await readable(world, "alice", log)
    assert b"secret" not in stored(world, log)


async def test_no_cache_of_another_node_gives_it_away() -> None:
    one = await World(shared=True).start()
    two = await World(shared=True, disk=one.disk).start()
    log = await one.group("alice", "bob")
    seq = await one.post(log, "bob", "secret")
    for page in one.pages(log):
        two.node.hub.on_publication(PagePublished(log, page))
    assert b"secret" in await readable(two, "alice", log)
    # The other node hears nothing of it.
    await deleted(one, "bob", log, seq)
    assert b"secret" not in await readable(two, "alice", log)
    for page in one.pages(log):
        two.node.hub.on_publication(PagePublished(log, page))
    assert b"secret" not in await readable(two, "alice", log)
    await two.stop()
    await one.stop()
