"""History: every page size, both ways, from anywhere, within what the caller may see."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.world import HOUR_MS, World
from tidings_server.codec.entries import decode_entries
from tidings_server.core import commands as c
from tidings_server.core.entries import MessagePosted
from tidings_server.core.ids import inbox_log
from tidings_server.errors import DomainError, Reason
from tidings_server.messaging import history

pytestmark = pytest.mark.virtual_time

STRANGE = "0198c1f4-2a3b-8c4d-8e5f-60718293a4b5"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World().start()
    yield world
    await world.stop()


@pytest.fixture
async def log(world: World) -> str:
    """A conversation of which bob sees 3 to 9, 14 and what follows; pages of one, of several entries."""
    log = await world.group("alice", "carol")
    await world.post(log, "alice", "2")
    await world.add(log, "alice", "bob")
    for seq in range(4, 9):
        await world.post(log, "alice", str(seq))
    await world.remove(log, "alice", "bob")
    for seq in range(10, 14):
        await world.post(log, "carol", str(seq))
    await world.add(log, "alice", "bob")
    for seq in range(15, 20):
        await world.post(log, "bob", str(seq))
    return log


BOBS = [*range(3, 10), *range(14, 20)]


async def listed(
    world: World, user: str, log: str, *, start: int, ascending: bool, size: int
) -> list[int]:
    """The positions of a whole listing, page by page."""
    found: list[int] = []
    token = ""
    while True:
        got = await world.execute(user, c.ListHistory(log, start, ascending, size, token))
        assert isinstance(got, c.HistoryListed)
        page = [e.seq for e in decode_entries(got.events)]
        assert len(page) <= size
        assert page or not got.next_page_token
        found += page
        token = got.next_page_token
        if not token:
            return found


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 13, 100])
async def test_every_page_size_from_every_position(
    world: World, log: str, size: int, restart: bool
) -> None:
    if restart:
        await world.restart()
    for start in range(22):
        up = await listed(world, "bob", log, start=start, ascending=True, size=size)
        assert up == [seq for seq in BOBS if seq >= start]
        down = await listed(world, "bob", log, start=start, ascending=False, size=size)
        assert down == [seq for seq in reversed(BOBS) if seq <= (start or 99)]


async def test_members_of_old_see_all(world: World, log: str) -> None:
    seqs = await listed(world, "alice", log, start=0, ascending=False, size=5)
    assert seqs == list(range(19, 0, -1))


async def test_entries_are_those_that_are_stored(world: World, log: str) -> None:
    got = await world.execute("alice", c.ListHistory(log, 0, True, 100, ""))
    assert isinstance(got, c.HistoryListed)
    assert decode_entries(got.events) == world.entries(log)


async def test_a_removed_user_sees_what_they_saw(world: World, log: str) -> None:
    await world.remove(log, "bob", "bob")
    await world.post(log, "alice", "after")
    seqs = await listed(world, "bob", log, start=0, ascending=True, size=4)
    assert seqs == [*BOBS, 20]


@pytest.mark.parametrize("log_name", [STRANGE, "inbox:bob", "inbox:", "log"])
async def test_strangers_see_nothing(world: World, log: str, log_name: str) -> None:
    name = log if log_name == "log" else log_name
    for command in (c.ListHistory(name, 0, True, 10, ""), c.ListHistory(name, 5, False, 10, "")):
        with pytest.raises(DomainError) as caught:
            await world.execute("mallory", command)
        assert caught.value.reason is Reason.CONVERSATION_NOT_FOUND
    if name == log:
        with pytest.raises(DomainError) as caught:
            await world.execute("mallory", c.GetMessage(log, 5, None))
        assert caught.value.reason is Reason.CONVERSATION_NOT_FOUND


async def test_ones_own_inbox(world: World, log: str) -> None:
    seqs = await listed(world, "bob", inbox_log("bob"), start=0, ascending=True, size=2)
    assert seqs == [1, 2, 3]
    assert not await listed(world, "mallory", "inbox:mallory", start=0, ascending=True, size=2)


@pytest.mark.parametrize("token", ["x", "-1", "1.5", "9" * 19, "0x10", " 7"])
async def test_tokens_that_nobody_gave(world: World, log: str, token: str) -> None:
    with pytest.raises(DomainError) as caught:
        await world.execute("alice", c.ListHistory(log, 0, True, 10, token))
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, "page_token")


@pytest.mark.parametrize("ascending", [True, False])
async def test_a_page_of_history_is_bounded_in_bytes(
    world: World, log: str, ascending: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_MOST_BYTES", 50_000)
    monkeypatch.setattr(history, "_CHUNK_BYTES", 30_000)
    for i in range(40):
        await world.post(log, "alice", f"{i:02}" + "x" * 5_000)
    got = await world.execute("alice", c.ListHistory(log, 0, ascending, 1000, ""))
    assert isinstance(got, c.HistoryListed)
    assert 40_000 < len(got.events) < 60_000
    seqs = await listed(world, "alice", log, start=0, ascending=ascending, size=1000)
    assert sorted(seqs) == list(range(1, 60))


async def test_history_does_not_read_more_than_it_gives(world: World, log: str) -> None:
    await world.restart()
    await world.execute("bob", c.GetConversation(log))
    before = world.script.calls.copy()
    await world.execute("bob", c.ListHistory(log, 0, False, 5, ""))
    assert (world.script.calls - before).total() == 1


# One entry


async def get(world: World, user: str, log: str, key: int | str) -> int:
    seq, change = (key, None) if isinstance(key, int) else (0, world.change_id(key))
    got = await world.execute(user, c.GetMessage(log, seq, change))
    assert isinstance(got, c.MessageGot)
    (entry,) = decode_entries(got.event)
    return entry.seq


@pytest.mark.parametrize("restart", [False, True])
async def test_one_entry_by_its_position(world: World, log: str, restart: bool) -> None:
    if restart:
        await world.restart()
    for seq in range(1, 22):
        if seq in BOBS:
            assert await get(world, "bob", log, seq) == seq
            continue
        with pytest.raises(DomainError) as caught:
            await get(world, "bob", log, seq)
        assert caught.value.reason is Reason.MESSAGE_NOT_FOUND


@pytest.mark.parametrize("restart", [False, True])
async def test_one_entry_by_its_id(world: World, log: str, restart: bool) -> None:
    entries = world.entries(log)
    world.clock.step(HOUR_MS)
    await world.post(log, "alice")
    if restart:
        await world.restart()
    for entry in entries:
        if entry.seq in BOBS:
            assert await get(world, "bob", log, entry.id) == entry.seq
            continue
        with pytest.raises(DomainError) as caught:
            await get(world, "bob", log, entry.id)
        assert caught.value.reason is Reason.MESSAGE_NOT_FOUND
    with pytest.raises(DomainError) as caught:
        await get(world, "bob", log, world.new_id())
    assert (caught.value.reason, caught.value.field) == (Reason.MESSAGE_NOT_FOUND, "message_id")


@pytest.mark.parametrize("restart", [False, True])
async def test_an_id_that_several_senders_used(world: World, log: str, restart: bool) -> None:
    change = world.new_id()
    first = await world.post(log, "carol", "one", change_id=change)
    second = await world.post(log, "alice", "two", change_id=change)
    world.clock.step(HOUR_MS)
    await world.post(log, "alice")
    if restart:
        await world.restart()
    assert await get(world, "alice", log, change) == first
    assert second == first + 1


@pytest.mark.parametrize("restart", [False, True])
async def test_the_first_with_an_id_among_those_that_may_be_seen(
    world: World, log: str, restart: bool
) -> None:
    change = world.new_id()
    await world.remove(log, "alice", "bob")
    await world.post(log, "carol", "hidden from bob", change_id=change)
    await world.add(log, "alice", "bob")
    seen = await world.post(log, "alice", "seen by bob", change_id=change)
    world.clock.step(HOUR_MS)
    await world.post(log, "alice")
    if restart:
        await world.restart()
    assert await get(world, "bob", log, change) == seen


async def test_texts_come_back(world: World, log: str) -> None:
    odd = "\ufeff e\u0301 \r\n\x00 \u202e 👩‍👩‍👧 x  "
    seq = await world.post(log, "alice", odd)
    await world.restart()
    body = world.entries(log)[seq - 1].body
    assert isinstance(body, MessagePosted)
    assert world.texts(log)[-1] == odd
