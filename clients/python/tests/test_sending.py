"""Sending: the outbox of a client over a simulated network, in simulated time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tidings import (
    ClientConfig,
    InvalidArgument,
    MemoryStateStore,
    Message,
    MessageFailed,
    MessagePending,
    MessageSent,
    PermissionDenied,
    ResourceExhausted,
    SyncComplete,
    TidingsError,
)

from .device import client_of, collecting, next_of, now_ms, until
from .loop import simulated
from .model import DENIED, UNAVAILABLE, UNKNOWN_OUTCOME, error, id_time
from .network import Network


@simulated
async def test_a_message_gets_from_one_to_the_other() -> None:
    network = Network()
    async with client_of(network) as alice, client_of(network, "bob") as bob:
        conversation = await alice.create_direct("bob")
        handle = await alice.send(conversation.conversation_id, "Hello, Bob!")
        assert await handle.sent() == 2
        assert handle.seq == 2

        (to_bob,) = await next_of(bob, Message)
        assert (to_bob.text, to_bob.user_id, to_bob.own) == ("Hello, Bob!", "alice", False)
        assert to_bob.message_id == handle.message_id
        assert (to_bob.seq, to_bob.ordinal, to_bob.reply_to) == (2, 1, None)
        assert to_bob.time.timestamp() == 1_700_000_000

        (pending,) = await next_of(alice, MessagePending)
        assert pending.message_id == handle.message_id
        assert not pending.restored
        (sent,) = await next_of(alice, MessageSent)
        assert (sent.message_id, sent.seq) == (handle.message_id, 2)
        (own,) = await next_of(alice, Message)
        assert own.own
        assert own.message_id == handle.message_id


@simulated
async def test_what_is_sent_offline_goes_out_in_order_once_online() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")
    network.up = False
    async with client_of(network) as alice:
        handles = [await alice.send("c", f"m{n}") for n in range(50)]
        assert [handle.message_id for handle in alice.pending()] == [
            handle.message_id for handle in handles
        ]
        network.up = True
        assert [await handle.sent() for handle in handles] == list(range(2, 52))
        assert [entry.message.text for entry in log.entries[1:]] == [f"m{n}" for n in range(50)]
        assert alice.pending() == []


@simulated
async def test_sends_of_several_tasks_keep_the_order_of_the_calls() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")

    class Slow(MemoryStateStore):
        async def add(self, messages: Any) -> None:
            # The first take the longest: their turn is kept all the same.
            await asyncio.sleep(1.0 / (1 + len(self.messages)))
            await super().add(messages)

    async with client_of(network, state=Slow()) as alice:
        await alice.wait_online()
        handles = await asyncio.gather(*(alice.send("c", f"m{n}") for n in range(20)))
        await asyncio.gather(*(handle.sent() for handle in handles))
    assert [entry.message.text for entry in log.entries[1:]] == [f"m{n}" for n in range(20)]


@simulated
async def test_each_send_names_its_unacknowledged_predecessor() -> None:
    network = Network()
    network.server.create("c", "alice", "bob")
    network.working = False
    async with client_of(network) as alice:
        await alice.wait_online()
        handles = [await alice.send("c", f"m{n}", reply_to="r") for n in range(3)]
        await until(lambda: bool(network.links) and len(network.links[0].session.todo) == 3)
        sends = [command.send_message for command in network.links[0].session.todo]
        ids = [handle.message_id for handle in handles]
        assert [send.message_id for send in sends] == ids
        assert [send.after_message_id for send in sends] == ["", *ids[:2]]
        assert {send.content.reply_to_message_id for send in sends} == {"r"}


@simulated
async def test_what_was_in_flight_when_the_connection_broke_is_sent_again() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")
    async with client_of(network) as alice:
        await alice.wait_online()
        network.working = False
        handles = [await alice.send("c", f"m{n}") for n in range(3)]
        await until(lambda: len(network.links[0].session.todo) == 3)
        # The first two were taken before the cut, and nobody heard of it.
        network.links[0].session.work()
        network.links[0].session.work()
        network.cut()
        network.working = True
        assert [await handle.sent() for handle in handles] == [2, 3, 4]
    assert [entry.id for entry in log.entries[1:]] == [handle.message_id for handle in handles]


@simulated
async def test_at_most_half_of_the_commands_allowed_are_in_flight() -> None:
    network = Network()
    network.server.create("c", "alice", "bob")
    network.working = False
    async with client_of(network) as alice:
        await alice.wait_online()
        for n in range(100):
            await alice.send("c", f"m{n}")
        await asyncio.sleep(1.0)
        assert len(network.links[0].session.todo) == network.server.max_in_flight // 2
        network.working = True
        network.work()
        await alice.pending()[-1].sent()


@simulated
async def test_refusals_that_may_pass_are_tried_again_with_the_same_id_in_order() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")
    network.problems = [UNAVAILABLE, None, UNKNOWN_OUTCOME, UNAVAILABLE, None, None]
    async with client_of(network) as alice:
        handles = [await alice.send("c", f"m{n}") for n in range(8)]
        assert [await handle.sent() for handle in handles] == list(range(2, 10))
    assert [entry.message.text for entry in log.entries[1:]] == [f"m{n}" for n in range(8)]
    assert [entry.id for entry in log.entries[1:]] == [handle.message_id for handle in handles]


@simulated
async def test_the_server_says_how_long_to_wait() -> None:
    network = Network()
    network.server.create("c", "alice", "bob")
    wait = error(8, "TOO_MANY_IN_FLIGHT")
    wait.retry_delay.seconds = 20
    async with client_of(network) as alice:
        await alice.wait_online()
        network.problems = [wait]
        began = asyncio.get_running_loop().time()
        await (await alice.send("c", "text")).sent()
        assert 20 <= asyncio.get_running_loop().time() - began <= 21


@simulated
async def test_a_message_refused_for_good_fails_and_those_behind_it_go_on() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")
    store = MemoryStateStore()
    async with client_of(network, state=store) as alice:
        await alice.wait_online()
        network.problems = [DENIED]
        first, second = await alice.send("c", "first"), await alice.send("c", "second")
        assert await second.sent() == 2
        with pytest.raises(PermissionDenied) as refused:
            await first.sent()
        assert refused.value.reason == "RIGHT_MISSING"
        (failed,) = await next_of(alice, MessageFailed)
        assert (failed.message_id, failed.text) == (first.message_id, "first")
        assert isinstance(failed.error, PermissionDenied)
    assert [entry.message.text for entry in log.entries[1:]] == ["second"]
    assert not store.messages


@simulated
async def test_a_failure_that_nobody_saw_is_told_again_by_the_next_process() -> None:
    network = Network()
    network.server.create("c", "alice", "bob")
    store = MemoryStateStore()
    async with client_of(network, state=store) as alice:
        await alice.wait_online()
        network.problems = [DENIED]
        handle = await alice.send("c", "text")
        await until(lambda: handle.error is not None)
    async with client_of(network, state=store) as alice:
        (failed,) = await next_of(alice, MessageFailed)
        assert failed.message_id == handle.message_id
        assert failed.error.reason == "RIGHT_MISSING"
        await next_of(alice, SyncComplete)
    assert not store.messages


@simulated
async def test_a_message_can_be_taken_out_of_the_outbox() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")
    network.up = False
    store = MemoryStateStore()
    async with client_of(network, state=store) as alice:
        first, second = await alice.send("c", "first"), await alice.send("c", "second")
        assert await first.cancel()
        assert not await first.cancel()
        await asyncio.sleep(0.2)
        assert set(store.messages) == {second.message_id}
        with pytest.raises(TidingsError, match="taken out"):
            await first.sent()
        network.up = True
        await second.sent()
    assert [entry.message.text for entry in log.entries[1:]] == ["second"]


@simulated
async def test_a_message_taken_out_stays_out_after_a_loss_of_power() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")
    network.up = False

    class Forgetful(MemoryStateStore):
        async def remove(self, message_ids: Any) -> None:
            """What is only kept may be gone."""

    store = Forgetful()
    async with client_of(network, state=store) as alice:
        first, second = await alice.send("c", "first"), await alice.send("c", "second")
        assert await first.cancel()
        await asyncio.sleep(0.2)
        assert first.message_id in store.messages
    network.up = True
    async with client_of(network, state=store) as alice:
        assert [handle.message_id for handle in alice.pending()] == [second.message_id]
        async with collecting(alice) as seen:
            await alice.pending()[0].sent()
            await asyncio.sleep(1.0)
        assert not [event for event in seen if isinstance(event, MessageFailed)]
    assert [entry.message.text for entry in log.entries[1:]] == ["second"]


@simulated
async def test_texts_are_checked_before_they_are_queued() -> None:
    network = Network()
    async with client_of(network, config=ClientConfig(max_queued_messages=1)) as alice:
        for text in ("", "x" * 16_385, "\udc00"):
            with pytest.raises(InvalidArgument) as refused:
                await alice.send("c", text)
            assert refused.value.field == "text"
        network.working = False
        await alice.send("c", "x" * 16_384)
        with pytest.raises(ResourceExhausted):
            await alice.send("c", "one too many")


@simulated
async def test_an_own_message_in_the_log_is_proof_that_it_was_sent() -> None:
    network = Network()
    network.server.create("c", "alice", "bob")
    async with client_of(network) as alice:
        await alice.wait_online()
        network.problems = [UNKNOWN_OUTCOME]
        handle = await alice.send("c", "text")
        assert await handle.sent() == 2
        assert network.server.received_ids == [handle.message_id]


@simulated
async def test_ids_are_made_by_the_servers_clock() -> None:
    network = Network()
    network.server.create("c", "alice", "bob")
    day = 86_400_000
    wrong: Callable[[], int] = lambda: 1_700_000_000_000 + now_ms() + day  # noqa: E731
    async with client_of(network, wall_clock=wrong) as alice:
        early = await alice.send("c", "made by a wrong clock, never sent like this")
        old_id = early.message_id
        assert id_time(old_id) > network.server.now_ms + day - 1000
        await early.sent()
        assert early.message_id != old_id
        assert abs(id_time(early.message_id) - network.server.now_ms) < 5_000
        late = await alice.send("c", "made by the server's clock")
        assert abs(id_time(late.message_id) - network.server.now_ms) < 5_000
        assert abs(alice.clock_offset_ms + day) < 5_000
        first, second = await next_of(alice, MessagePending, 2)
        assert (first.message_id, first.replaces) == (old_id, None)
        assert (second.message_id, second.replaces) == (early.message_id, old_id)


@simulated
async def test_an_id_that_may_have_been_sent_is_never_made_anew() -> None:
    network = Network()
    network.server.create("c", "alice", "bob")
    store = MemoryStateStore()
    network.working = False
    async with client_of(network, state=store) as alice:
        await alice.wait_online()
        handle = await alice.send("c", "text")
        await until(lambda: bool(network.links[0].session.todo))
    # Another process, and the server's clock an hour back: the id lies ahead, and stays.
    network.server.now_ms -= 3_600_000
    async with client_of(network, state=store) as alice:
        await until(lambda: bool(network.links) and bool(network.links[0].session.todo))
        (command,) = network.links[0].session.todo
        assert command.send_message.message_id == handle.message_id
