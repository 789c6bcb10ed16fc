"""Receipts and unread counts: marks only grow, never pass the head, and counts are differences of ordinals."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from tests.unit.world import World, settled
from tidings_server.core import commands as c
from tidings_server.core.entries import MessagePosted
from tidings_server.errors import DomainError, Reason

pytestmark = pytest.mark.virtual_time


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World().start()
    yield world
    await world.stop()


@pytest.fixture
async def log(world: World) -> str:
    return await world.group("alice", "bob")


async def read(world: World, user: str, log: str, seq: int) -> c.Read:
    got = await world.execute(user, c.MarkRead(log, seq))
    assert isinstance(got, c.Read)
    return got


async def delivered(world: World, user: str, log: str, seq: int) -> int:
    got = await world.execute(user, c.MarkDelivered(log, seq))
    assert isinstance(got, c.Delivered)
    return got.delivered_seq


async def marks(world: World, user: str, log: str, size: int = 100) -> list[c.ReceiptMarks]:
    found: list[c.ReceiptMarks] = []
    token = ""
    while True:
        got = await world.execute(user, c.ListReceipts(log, size, token))
        assert isinstance(got, c.ReceiptsListed)
        found += got.marks
        token = got.next_page_token
        if not token:
            return found


async def unread(world: World, user: str, *logs: str) -> dict[str, int]:
    got = await world.execute(user, c.GetUnread(logs))
    assert isinstance(got, c.UnreadGot)
    return {u.conversation_id: u.unread_count for u in got.counts}


async def test_marks_only_grow(world: World, log: str) -> None:
    for i in range(9):
        await world.post(log, "alice", str(i))
    assert await delivered(world, "bob", log, 4) == 4
    assert await delivered(world, "bob", log, 2) == 4
    assert await read(world, "bob", log, 3) == c.Read(3, 7)
    assert await read(world, "bob", log, 2) == c.Read(3, 7)
    assert await marks(world, "alice", log) == [c.ReceiptMarks("bob", 4, 3)]
    # What was read was delivered.
    assert await read(world, "bob", log, 8) == c.Read(8, 2)
    assert await marks(world, "alice", log) == [c.ReceiptMarks("bob", 8, 8)]


async def test_marks_do_not_pass_the_head(world: World, log: str) -> None:
    await world.post(log, "alice")
    assert await delivered(world, "bob", log, 2**62) == 2
    assert await read(world, "bob", log, 2**62) == c.Read(2, 0)
    await world.post(log, "alice")
    assert await unread(world, "bob") == {log: 1}


@pytest.mark.parametrize("command", [c.MarkRead, c.MarkDelivered])
async def test_marks_of_strangers_and_those_who_left(
    world: World, log: str, command: type[c.MarkRead]
) -> None:
    await world.remove(log, "alice", "bob")
    for user in ("bob", "mallory"):
        with pytest.raises(DomainError) as caught:
            await world.execute(user, command(log, 1))
        assert caught.value.reason is Reason.CONVERSATION_NOT_FOUND
        with pytest.raises(DomainError) as caught:
            await world.execute(user, c.ListReceipts(log, 10, ""))
        assert caught.value.reason is Reason.CONVERSATION_NOT_FOUND


async def test_receipts_page_by_page(world: World) -> None:
    users = [f"user-{i:02}" for i in range(12)]
    log = await world.group("alice", *users)
    for user in users:
        await read(world, user, log, 1)
    await world.remove(log, "alice", "user-03")
    await world.remove(log, "alice", "user-04")
    for size in (1, 2, 5, 100):
        listed = await marks(world, "alice", log, size)
        assert [m.user_id for m in listed] == [u for u in users if u not in ("user-03", "user-04")]


async def test_unread_counts_messages_only(world: World, log: str) -> None:
    assert await unread(world, "bob") == {}
    await world.post(log, "alice")
    await world.add(log, "alice", "carol")
    await world.post(log, "carol")
    assert await unread(world, "bob") == {log: 2}
    assert await unread(world, "carol") == {log: 1}
    assert (await read(world, "bob", log, 3)).unread_count == 1
    assert await unread(world, "bob", log) == {log: 1}


async def test_ones_own_messages_count_until_they_are_read(world: World, log: str) -> None:
    await world.post(log, "bob")
    assert await unread(world, "bob") == {log: 1}


async def test_unread_of_who_left_and_came_back(world: World, log: str) -> None:
    for _ in range(4):
        await world.post(log, "alice")
    await read(world, "bob", log, 2)
    await world.remove(log, "alice", "bob")
    assert await unread(world, "bob", log) == {}
    for _ in range(3):
        await world.post(log, "alice")
    await world.add(log, "alice", "bob")
    assert await unread(world, "bob") == {}
    await world.post(log, "alice")
    assert await unread(world, "bob") == {log: 1}
    # A mark from before the stay says nothing.
    assert await read(world, "bob", log, 5) == c.Read(2, 1)
    assert (await read(world, "bob", log, 11)).unread_count == 0


async def test_unread_of_several(world: World, log: str) -> None:
    other = await world.direct("bob", "carol")
    foreign = await world.group("carol", "dave")
    await world.post(log, "alice")
    for _ in range(3):
        await world.post(other, "carol")
    await world.post(foreign, "carol")
    assert await unread(world, "bob") == {log: 1, other: 3}
    assert await unread(world, "bob", other, foreign, world.new_id()) == {other: 3}


@pytest.mark.parametrize("seed", range(10))
async def test_unread_is_what_counting_gives(world: World, seed: int) -> None:
    """Against counting, over joins, removals and marks in any order."""
    rng = random.Random(seed)
    log = await world.group("alice", "bob")
    inside = True
    joined, mark = 1, 0
    for _ in range(60):
        step = rng.choice(["post", "post", "post", "read", "leave", "restart", "other"])
        if step == "post":
            await world.post(log, "alice")
        elif step == "read" and inside:
            seq = rng.randint(1, len(world.entries(log)) + 2)
            await read(world, "bob", log, seq)
            seq = min(seq, len(world.entries(log)))
            mark = max(mark, seq) if seq >= joined else mark
        elif step == "leave":
            if inside:
                await world.remove(log, "alice", "bob")
            else:
                joined = await world.add(log, "alice", "bob")
            inside = not inside
        elif step == "restart":
            await world.restart()
        elif step == "other":
            await world.add(log, "alice", f"user-{rng.random()}")
        entries = world.entries(log)
        expected = sum(
            isinstance(e.body, MessagePosted) and e.seq >= joined and e.seq > mark for e in entries
        )
        assert await unread(world, "bob", log) == ({log: expected} if expected and inside else {})
        if inside:
            got = await world.execute("bob", c.GetConversation(log))
            assert isinstance(got, c.ConversationGot)
            assert (got.view.unread_count, got.view.read_seq) == (expected, mark)
    await settled()
