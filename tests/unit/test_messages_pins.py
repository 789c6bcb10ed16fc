"""Pins: who may, how many, who is told which, and that they follow deletions and survive crashes and restarts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.test_messages_delete import deleted
from tests.unit.test_messages_edit import edited, states
from tests.unit.world import World, refusal
from tidings.v1 import chat_service_pb2
from tidings_server.core import commands as c
from tidings_server.core.entries import NewMember, Role
from tidings_server.core.pages import BUCKET_SIZE, PageFlag
from tidings_server.core.state import MAX_PINS, dump, load
from tidings_server.errors import Reason
from tidings_server.storage.memory import Happens

pytestmark = pytest.mark.virtual_time


@pytest.fixture(params=[False, True], ids=["alone", "shared"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world = await World(shared=request.param).start()
    yield world
    await world.stop()


def setting(
    world: World, log: str, seq: int, *, pinned: bool = True, change_id: str = ""
) -> c.SetPin:
    return c.SetPin(log, world.change_id(change_id), seq, pinned)


async def pin(world: World, user: str, log: str, seq: int, *, pinned: bool = True) -> int:
    got = await world.execute(user, setting(world, log, seq, pinned=pinned))
    assert isinstance(got, c.MessageChanged)
    return got.seq


async def pins(world: World, user: str, log: str) -> list[tuple[int, str, int]]:
    """The pinned messages: positions, texts as they are now, and positions of the pins."""
    got = await world.execute(user, c.ListPins(log))
    assert isinstance(got, c.PinsListed)
    events = chat_service_pb2.ChatResponse.FromString(got.events).events
    found = []
    for entry, state in zip(events[::2], events[1::2], strict=True):
        message, became = entry.entry, state.message_state
        assert message.seq == became.seq
        text = became.content.text if became.HasField("content") else message.message.text
        found.append((message.seq, text, became.pin_seq))
    return found


async def restart(world: World) -> None:
    world.store.crash(lambda: True)
    world.node = world._make()
    await world.start()


async def test_what_is_pinned_is_listed_the_last_first(world: World) -> None:
    log = await world.group("alice", "bob")
    one, two = await world.post(log, "alice", "one"), await world.post(log, "bob", "two")
    first = await pin(world, "alice", log, one)
    second = await pin(world, "alice", log, two)
    assert await pins(world, "bob", log) == [(two, "two", second), (one, "one", first)]
    assert {seq: s.pin_seq for seq, s in (await states(world, "bob", log)).items()} == {
        one: first,
        two: second,
    }
    await edited(world, "alice", log, one, "edited")
    assert await pin(world, "bob", log, one) == 0, "it is pinned already"
    assert (await pins(world, "bob", log))[1] == (one, "edited", first)
    await pin(world, "bob", log, two, pinned=False)
    assert await pin(world, "bob", log, two, pinned=False) == 0
    assert await pins(world, "alice", log) == [(one, "edited", first)]
    again = await pin(world, "bob", log, two)
    await restart(world)
    assert await pins(world, "alice", log) == [(two, "two", again), (one, "edited", first)]


async def test_the_same_id_is_the_same_pin(world: World) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "alice")
    change = world.new_id()
    first = await world.execute("bob", setting(world, log, seq, change_id=change))
    await pin(world, "alice", log, seq, pinned=False)
    assert await world.execute("bob", setting(world, log, seq, change_id=change)) == first
    assert await pins(world, "bob", log) == []
    other = setting(world, log, seq, pinned=False, change_id=change)
    assert (await refusal(world, "bob", other)).reason is Reason.ID_REUSED


async def test_what_is_deleted_is_pinned_no_more(world: World) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "alice")
    await pin(world, "bob", log, seq)
    await world.post(log, "alice")
    await deleted(world, "alice", log, seq)
    assert await pins(world, "bob", log) == []
    assert (await states(world, "bob", log))[seq].pin_seq == 0
    await restart(world)
    assert await pins(world, "bob", log) == []
    problem = await refusal(world, "bob", setting(world, log, seq))
    assert problem.reason is Reason.MESSAGE_NOT_FOUND


async def test_who_may_not(world: World) -> None:
    log = await world.group("alice", "bob", "carol")
    seq = await world.post(log, "bob")
    await pin(world, "bob", log, seq)
    guest = (NewMember("guest", Role.GUEST),)
    await world.execute("alice", c.AddMembers(log, world.change_id(), guest))
    await world.add(log, "alice", "late")
    new = await world.post(log, "bob")
    await world.remove(log, "alice", "carol")
    await pin(world, "alice", log, new)
    head = len(world.entries(log))
    for user, about, expected in [
        ("late", seq, Reason.MESSAGE_NOT_FOUND),
        ("late", 99, Reason.MESSAGE_NOT_FOUND),
        ("bob", 1, Reason.MESSAGE_NOT_FOUND),
        ("guest", new, Reason.RIGHT_MISSING),
        ("carol", seq, Reason.CONVERSATION_NOT_FOUND),
        ("stranger", seq, Reason.CONVERSATION_NOT_FOUND),
    ]:
        for pinned in (True, False):
            problem = await refusal(world, user, setting(world, log, about, pinned=pinned))
            assert problem.reason is expected, (user, about)
    assert len(world.entries(log)) == head
    for user in ("carol", "stranger"):
        problem = await refusal(world, user, c.ListPins(log))
        assert problem.reason is Reason.CONVERSATION_NOT_FOUND
    for user in ("late", "guest"):
        assert [seq for seq, _, _ in await pins(world, user, log)] == [new], "from the joining on"
    assert [seq for seq, _, _ in await pins(world, "bob", log)] == [new, seq]


async def test_who_has_left_is_not_told_of_later_pins(world: World) -> None:
    log = await world.group("alice", "bob")
    before, after = await world.post(log, "alice"), await world.post(log, "alice")
    mark = await pin(world, "alice", log, before)
    await world.remove(log, "alice", "bob")
    await pin(world, "alice", log, after)
    told = await states(world, "bob", log)
    assert {seq: state.pin_seq for seq, state in told.items()} == {before: mark, after: 0}
    assert told[after].as_of < len(world.entries(log))


async def test_so_many_and_no_more(world: World) -> None:
    log = await world.group("alice", "bob")
    seqs = [await world.post(log, "alice") for _ in range(MAX_PINS + 1)]
    for seq in seqs[:-1]:
        await pin(world, "alice", log, seq)
    problem = await refusal(world, "bob", setting(world, log, seqs[-1]))
    assert (problem.reason, problem.field) == (Reason.PIN_LIMIT, "pinned")
    assert await pin(world, "bob", log, seqs[0]) == 0, "nothing is added"
    await deleted(world, "alice", log, seqs[3])
    await pin(world, "bob", log, seqs[-1])
    listed = [seq for seq, _, _ in await pins(world, "bob", log)]
    assert listed == [seq for seq in reversed(seqs) if seq != seqs[3]]


@pytest.mark.parametrize("happens", [Happens.REFUSED, Happens.UNSURE_DONE, Happens.UNSURE_LOST])
async def test_pins_outlast_failures_of_writing(world: World, happens: Happens) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "bob")
    world.script.plan("put_overlays", happens, happens)
    mark = await pin(world, "alice", log, seq)
    assert await pins(world, "bob", log) == [(seq, world.texts(log)[0], mark)]
    await restart(world)
    assert await pins(world, "bob", log) == [(seq, world.texts(log)[0], mark)]


async def test_a_page_is_read_to_load_the_state_only_where_pins_change(world: World) -> None:
    log = await world.group("alice", "bob")
    seqs = [await world.post(log, "alice") for _ in range(3)]
    await pin(world, "alice", log, seqs[0])
    await deleted(world, "alice", log, seqs[1])
    await edited(world, "alice", log, seqs[2], "edited")
    await deleted(world, "alice", log, seqs[0])
    pages = world.disk.read_flagged(log, 1, PageFlag.CHANGE, BUCKET_SIZE)
    flagged = [bool(page.flags & PageFlag.STATE) for page in pages]
    assert flagged == [True, False, False, True]


async def test_snapshots_keep_what_is_pinned(world: World) -> None:
    log = await world.group("alice", "bob")
    seqs = [await world.post(log, "alice") for _ in range(2)]
    for seq in reversed(seqs):
        await pin(world, "alice", log, seq)
    state = (await world.node.sequencer.view(log, "alice")).conversation
    assert load(dump(state)) == state
    assert state.pins == (seqs[1], seqs[0])
