"""Receiving: what is applied when, and what else a client is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tidings import (
    ClientClosed,
    ClientConfig,
    ConversationJoined,
    FailedPrecondition,
    Gap,
    MemoryStateStore,
    Message,
    MessagePending,
    ReceiptUpdate,
    StateError,
    SyncComplete,
)
from tidings.v1 import chat_service_pb2, event_pb2

from .device import client_of, collecting, next_of, texts, until
from .loop import simulated
from .network import Network


@simulated
async def test_asking_for_the_next_event_applies_the_one_before() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")
    for n in range(5):
        network.server.post(log, "bob", f"m{n}")
    store = MemoryStateStore()
    async with client_of(network, state=store) as alice:
        assert texts(list(await next_of(alice, Message, 3))) == ["m0", "m1", "m2"]
    assert store.cursors["c"].seq == 3
    assert network.server.remembered["alice", "phone"]["c"] == 3
    async with client_of(network, state=store) as alice:
        # m2 was handed over, and nobody said that it was applied.
        assert texts(list(await next_of(alice, Message, 3))) == ["m2", "m3", "m4"]


@simulated
async def test_an_application_may_say_itself_what_it_applied() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")
    for n in range(5):
        network.server.post(log, "bob", f"m{n}")
    store = MemoryStateStore()
    config = ClientConfig(auto_apply=False)
    async with client_of(network, state=store, config=config) as alice:
        messages = await next_of(alice, Message, 5)
        alice.applied(messages[1])
        await asyncio.sleep(0.2)
        assert store.cursors["c"].seq == 3
        assert network.server.remembered["alice", "phone"] == {"c": 3}
    async with client_of(network, state=store, config=config) as alice:
        assert texts(list(await next_of(alice, Message, 3))) == ["m2", "m3", "m4"]


@simulated
async def test_acknowledgements_are_gathered() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")
    config = ClientConfig(window=64)
    async with client_of(network, config=config) as alice:
        async with collecting(alice) as seen:
            await alice.wait_online()
            await asyncio.sleep(1.0)
            before = len(network.frames)
            for n in range(200):
                network.server.post(log, "bob", f"m{n}")
            network.changed()
            await until(lambda: len(texts(seen)) == 200)
            await asyncio.sleep(0.2)
        acks = [
            ack.seq
            for frame in network.frames[before:]
            for ack in chat_service_pb2.ChatRequest.FromString(frame).acks
        ]
        assert acks == sorted(set(acks))
        assert acks[-1] in (200, 201)
        # A quarter of the window each, or less where the timer was first.
        assert 200 // 64 <= len(acks) <= 200 // 8


@simulated
async def test_nothing_is_acknowledged_that_could_not_be_saved() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")
    network.server.post(log, "bob", "text")

    class Full(MemoryStateStore):
        full = True

        async def save_cursors(self, cursors: Any) -> None:
            if self.full:
                raise StateError("the disk is full")
            await super().save_cursors(cursors)

    store = Full()
    async with client_of(network, state=store) as alice:
        async with collecting(alice) as seen:
            await until(lambda: texts(seen) == ["text"])
            await asyncio.sleep(10.0)
            assert network.server.remembered == {}
            Full.full = False
            await asyncio.sleep(60.0)
            assert network.server.remembered["alice", "phone"]["c"] == 2
        assert store.cursors["c"].seq == 2


@simulated
async def test_a_message_that_can_not_be_stored_is_not_sent() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")

    class Full(MemoryStateStore):
        async def add(self, messages: Any) -> None:
            if any(b"second" in message.content for message in messages):
                raise StateError("the disk is full")
            await super().add(messages)

    network.working = False
    async with client_of(network, state=Full()) as alice:
        first = await alice.send("c", "first")
        with pytest.raises(StateError):
            await alice.send("c", "second")
        network.working = True
        network.work()
        await first.sent()
        await until(lambda: not alice.pending())
        third = await alice.send("c", "third")
        await third.sent()
    assert [entry.message.text for entry in log.entries[1:]] == ["first", "third"]


@simulated
async def test_a_gap_can_be_listed_and_is_not_offered_again() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")
    for n in range(1000):
        network.server.post(log, "bob", f"m{n}")
    store = MemoryStateStore()
    async with client_of(network, state=store, config=ClientConfig(catch_up_limit=10)) as alice:
        (gap,) = await next_of(alice, Gap)
        assert (gap.conversation_id, gap.from_seq, gap.to_seq) == ("c", 1, 991)
        missed = [entry async for entry in alice.missed(gap)]
        assert [entry.seq for entry in missed] == list(range(1, 992))
        rest = await next_of(alice, Message, 10)
        assert [message.seq for message in rest] == list(range(992, 1002))
    async with client_of(network, state=store, config=ClientConfig(catch_up_limit=10)) as alice:
        (message,) = await next_of(alice, Message)
        assert message.seq == 1001


@simulated
async def test_receipts_that_nobody_has_taken_are_merged() -> None:
    network = Network()
    async with client_of(network) as alice:
        await alice.wait_online()
        for delivered, read in ((1, 0), (5, 2), (4, 4)):
            receipt = event_pb2.ReceiptUpdate(
                conversation_id="c", user_id="bob", delivered_seq=delivered, read_seq=read
            )
            network.links[0].session.out.append(event_pb2.Event(receipt=receipt))
        network.changed()
        await asyncio.sleep(0.1)
        (update,) = await next_of(alice, ReceiptUpdate)
        assert (update.delivered_seq, update.read_seq) == (5, 4)


@simulated
async def test_who_takes_no_events_keeps_getting_results() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")
    config = ClientConfig(window=8, max_queued_events=20)
    async with client_of(network, config=config) as alice:
        for n in range(100):
            network.server.post(log, "bob", f"m{n}")
            await (await alice.send("c", f"a{n}")).sent()
        async with collecting(alice) as seen:
            await until(lambda: len(texts(seen)) == 200)
        seqs = [event.seq for event in seen if isinstance(event, Message)]
        assert seqs == list(range(2, 202))


@simulated
async def test_joining_and_leaving_come_by_the_inbox() -> None:
    network = Network()
    async with client_of(network) as alice:
        await alice.wait_online()
        log = network.server.create("c", "bob", "alice")
        network.changed()
        (joined,) = await next_of(alice, ConversationJoined)
        assert (joined.conversation_id, joined.log, joined.join_seq) == ("c", "inbox:alice", 1)
        network.server.remove(log, "alice")
        network.server.post(log, "bob", "not for alice")
        network.server.add(log, "alice")
        network.server.post(log, "bob", "for alice")
        network.changed()
        (message,) = await next_of(alice, Message)
        assert message.text == "for alice"
        network.beacons()
        await asyncio.sleep(1.0)
        assert len(network.connects) == 1


@simulated
async def test_closing_ends_whatever_waits() -> None:
    network = Network()
    network.server.create("c", "alice", "bob")
    network.working = False
    alice = client_of(network)
    with pytest.raises(ClientClosed):
        await alice.send("c", "too early")
    async with alice:
        await alice.wait_online()
        handle = await alice.send("c", "text")
        waiting = asyncio.create_task(handle.sent())
        taking = asyncio.create_task(next_of(alice, Message))
        await asyncio.sleep(0.1)
    with pytest.raises(ClientClosed):
        await waiting
    assert await taking == []
    assert network.links == []
    with pytest.raises(ClientClosed):
        await alice.send("c", "too late")
    with pytest.raises(ClientClosed):
        await alice.get_message("c", seq=1)
    with pytest.raises(FailedPrecondition):
        await alice.__aenter__()


@simulated
async def test_what_is_in_the_outbox_is_sent_by_the_next_client() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")
    store = MemoryStateStore()
    network.up = False
    async with client_of(network, state=store) as alice:
        handles = [await alice.send("c", f"m{n}") for n in range(3)]
    network.up = True
    async with client_of(network, state=store) as alice:
        pending = await next_of(alice, MessagePending, 3)
        assert [event.text for event in pending] == ["m0", "m1", "m2"]
        assert all(event.restored for event in pending)
        again = alice.pending()
        await asyncio.gather(*(handle.sent() for handle in again))
        assert [h.message_id for h in again] == [h.message_id for h in handles]
    assert [entry.message.text for entry in log.entries[1:]] == ["m0", "m1", "m2"]


@simulated
async def test_only_one_client_uses_a_store() -> None:
    network = Network()
    store = MemoryStateStore()
    async with client_of(network, state=store):
        with pytest.raises(StateError, match="in use"):
            async with client_of(network, state=store):
                pass


@simulated
async def test_only_one_task_takes_events() -> None:
    network = Network()
    async with client_of(network) as alice, collecting(alice):
        await alice.wait_online()
        await asyncio.sleep(0.1)
        with pytest.raises(FailedPrecondition):
            await anext(alice.events())


@simulated
async def test_a_cancelled_wait_for_events_loses_none() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")
    async with client_of(network) as alice:
        await next_of(alice, SyncComplete)
        got: list[str] = []
        for n in range(50):
            network.server.post(log, "bob", f"m{n}")
            network.changed()
            try:
                async with asyncio.timeout(0.0005 * (n % 4)):
                    async for event in alice.events():
                        got.extend(texts([event]))
            except TimeoutError:
                continue
        while len(got) < 50:
            got.extend(texts([await anext(alice.events())]))
        assert got == [f"m{n}" for n in range(50)]
