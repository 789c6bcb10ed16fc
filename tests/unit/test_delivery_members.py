"""Members come and go, and read: each device gets what its user may see, and is told of receipts."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from tests.unit.devices import level
from tests.unit.world import World, settled, until
from tidings.v1 import chat_service_pb2, event_pb2
from tidings_server.core import commands as c
from tidings_server.core.ids import inbox_log
from tidings_server.storage.memory import Fate, Happens

pytestmark = pytest.mark.virtual_time

Command = chat_service_pb2.Command
Entries = list[event_pb2.Event]


# Removal


async def removed_at(world: World, log: str, *, more: int = 5) -> int:
    """Removes bob; others go on."""
    seq = await world.remove(log, "alice", "bob")
    for i in range(more):
        await world.post(log, "alice", f"not for bob {i}")
    return seq


async def test_nothing_comes_after_a_removal(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    await world.post(log, "alice", "for bob")
    seq = await removed_at(world, log)
    await level(bob, log, seq)
    await settled()
    assert bob.seqs(log) == [1, 2, 3]
    assert bob.of("entry")[-2].entry.HasField("member_removed") or bob.of("entry")[
        -1
    ].entry.HasField("conversation_left")


async def test_nothing_comes_after_a_removal_to_a_device_that_lags(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello({log: 1, inbox_log("bob"): 1}, window=2)
    for i in range(10):
        await world.post(log, "alice", f"for bob {i}")
    seq = await removed_at(world, log)
    await settled()
    assert bob.applied(log, 1) == 3
    while bob.applied(log, 1) < seq:
        bob.send(acks=[(log, bob.applied(log, 1)), (inbox_log("bob"), 2)])
        await settled()
    for _ in range(5):
        bob.send(acks=[(log, seq), (inbox_log("bob"), 2)])
        await settled()
    assert bob.applied(log, 1) == seq
    assert bob.seqs(log)[-1] == seq


async def test_nothing_comes_after_a_removal_while_synchronising(world: World, log: str) -> None:
    for method in ("heads", "memberships_of", "cursors"):
        world.script.always[method] = Fate(before=0.1)
    bob = world.device("bob")
    await bob.hello(synced=False)
    await asyncio.sleep(0.15)
    seq = await removed_at(world, log)
    await until(lambda: bob.of("sync_complete"))
    await level(bob, log, seq)
    await removed_at(world, log)
    await settled()
    assert bob.seqs(log)[-1] == seq


async def test_nothing_comes_after_a_removal_while_offline(world: World, log: str) -> None:
    seq = await removed_at(world, log)
    bob = world.device("bob")
    await bob.hello()
    assert bob.applied(log) == seq
    assert bob.seqs(log) == [1, 2]


async def test_a_removed_user_hears_of_nobodys_receipts(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    await world.post(log, "alice")
    await world.remove(log, "alice", "bob")
    await world.post(log, "alice")
    await world.execute("alice", c.MarkRead(log, 4))
    await settled()
    assert not bob.of("receipt")


async def test_a_device_that_looks_back_at_a_stay_hears_of_no_receipts(
    world: World, log: str
) -> None:
    """It follows the conversation for a moment, until it is known that the stay is over."""
    await world.remove(log, "alice", "bob")
    await world.restart()
    await world.post(log, "alice")
    bob = world.device("bob")
    await bob.hello({log: 2}, synced=False)
    world.script.always["memberships"] = Fate(before=0.2)
    await until(lambda: bob.of("sync_complete"))
    await world.execute("alice", c.MarkRead(log, 3))
    await asyncio.sleep(1)
    assert not bob.of("receipt")


@pytest.mark.parametrize("lagging", [False, True])
async def test_who_comes_back_skips_what_was_between(world: World, log: str, lagging: bool) -> None:
    bob = world.device("bob")
    await bob.hello({log: 1, inbox_log("bob"): 1}, window=2 if lagging else 100)
    await world.post(log, "alice", "one")
    await world.post(log, "alice", "two")
    removed = await removed_at(world, log)
    back = await world.add(log, "alice", "bob")
    await world.post(log, "alice", "three")
    for _ in range(10):
        bob.send(acks=[(log, bob.applied(log, 1)), (inbox_log("bob"), 3)])
        await settled()
    await level(bob, log, back + 1, start=1)
    assert [(s.skipped.from_seq, s.skipped.to_seq) for s in bob.of("skipped")] == [
        (removed + 1, back - 1)
    ]
    # And it is live.
    await world.post(log, "alice", "four")
    bob.send(acks=[(log, bob.applied(log, 1)), (inbox_log("bob"), 3)])
    await level(bob, log, back + 2, start=1)
    assert [e.entry.seq for e in bob.of("entry") if "not for bob" in e.entry.message.text] == []


async def test_who_comes_back_during_a_sync(world: World, log: str) -> None:
    for method in ("heads", "memberships_of", "cursors"):
        world.script.always[method] = Fate(before=0.1)
    bob = world.device("bob")
    await bob.hello(synced=False)
    await asyncio.sleep(0.15)
    await removed_at(world, log)
    back = await world.add(log, "alice", "bob")
    await until(lambda: bob.of("sync_complete"))
    await settled()
    await world.post(log, "alice", "live")
    await level(bob, log, back + 1)


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.01, 0.02, 0.03, 0.05])
async def test_coming_and_going_quickly(world: World, log: str, delay: float) -> None:
    """However the reads of the store and the changes interleave, the device ends up level."""
    for method in ("memberships", "heads", "read", "user_logs", "memberships_of"):
        world.script.always[method] = Fate(before=0.013, after=0.007)
    bob = world.device("bob")
    await bob.hello(window=4, synced=False)

    async def change() -> None:
        for _ in range(6):
            await world.remove(log, "alice", "bob")
            await world.post(log, "alice", "hidden")
            await asyncio.sleep(delay)
            await world.add(log, "alice", "bob")
            await world.post(log, "alice", "shown")

    changing = asyncio.get_running_loop().create_task(change())
    while not changing.done():
        bob.send(acks=[(log, bob.applied(log)), (inbox_log("bob"), bob.applied("inbox:bob"))])
        await asyncio.sleep(0.01)
    await changing
    for _ in range(100):
        bob.send(acks=[(log, bob.applied(log)), (inbox_log("bob"), bob.applied("inbox:bob"))])
        await asyncio.sleep(0.05)
    seq = await world.post(log, "alice", "shown")
    await level(bob, log, seq)
    assert all(e.entry.message.text != "hidden" for e in bob.of("entry"))


# Receipts


async def test_receipts_of_small_groups_are_told(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    await world.post(log, "alice")
    await world.execute("alice", c.MarkRead(log, 2))
    await until(lambda: bob.of("receipt"))
    receipt = bob.of("receipt")[0].receipt
    assert (receipt.user_id, receipt.delivered_seq, receipt.read_seq) == ("alice", 2, 2)


async def test_acknowledging_marks_as_delivered(world: World, log: str) -> None:
    alice, bob = world.device("alice"), world.device("bob")
    await alice.hello()
    await bob.hello()
    await world.post(log, "alice")
    await level(bob, log, 2)
    bob.send(acks=[(log, 2)])
    await until(lambda: alice.of("receipt"))
    receipt = alice.of("receipt")[0].receipt
    assert (receipt.user_id, receipt.delivered_seq, receipt.read_seq) == ("bob", 2, 0)
    listed = await world.execute("alice", c.ListReceipts(log, 10, ""))
    assert isinstance(listed, c.ReceiptsListed)
    assert listed.marks == (c.ReceiptMarks("bob", 2, 0),)


async def test_acknowledging_marks_as_delivered_after_a_restart(world: World, log: str) -> None:
    await world.post(log, "alice")
    await world.restart()
    bob = world.device("bob")
    await bob.hello()
    bob.send(acks=[(log, 2)])
    await asyncio.sleep(2)
    listed = await world.execute("alice", c.ListReceipts(log, 10, ""))
    assert isinstance(listed, c.ReceiptsListed)
    assert listed.marks == (c.ReceiptMarks("bob", 2, 0),)


async def test_acknowledgements_are_gathered(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    before = world.script.calls["put_cursors"]
    for i in range(20):
        seq = await world.post(log, "alice", str(i))
        await level(bob, log, seq)
        bob.send(acks=[(log, seq)])
    await asyncio.sleep(2)
    assert world.script.calls["put_cursors"] == before + 1
    assert world.disk.cursors("bob", "phone")[log] == 21


async def test_acknowledgements_that_can_not_be_written_cost_nothing(
    world: World, log: str
) -> None:
    world.script.plan("put_cursors", Happens.REFUSED)
    bob = world.device("bob")
    await bob.hello()
    bob.send(acks=[(log, 1)])
    with capture_logs() as logs:
        await asyncio.sleep(2)
    assert [line["event"] for line in logs] == ["acks_not_written"]
    again = world.device("bob", "phone")
    await again.hello()
    assert again.applied(log) == 1


@pytest.mark.parametrize("refused", ["put_cursors", "put_receipts", "heads"])
async def test_a_delivered_mark_outlives_a_refusal_of_the_store(
    world: World, log: str, refused: str
) -> None:
    await world.post(log, "alice")
    await world.restart()
    bob = world.device("bob")
    await bob.hello()
    world.script.plan(refused, Happens.REFUSED)
    bob.send(acks=[(log, 2)])
    # The device has it, names it when it comes again, and so never acknowledges it again.
    await asyncio.sleep(10)
    listed = await world.execute("alice", c.ListReceipts(log, 10, ""))
    assert isinstance(listed, c.ReceiptsListed)
    assert listed.marks == (c.ReceiptMarks("bob", 2, 0),)
    assert world.disk.cursors("bob", "phone")[log] == 2
