"""Unary operations: pages, retries, tokens."""

from __future__ import annotations

import asyncio

import pytest

from tidings import (
    DeadlineExceeded,
    HistoryOrder,
    InvalidArgument,
    NotFound,
    Unauthenticated,
    Unavailable,
)

from .device import client_of
from .loop import simulated
from .model import id_time, timestamp
from .network import Network


@simulated
async def test_pages_are_turned() -> None:
    network = Network()
    server = network.server
    for n in range(7):
        server.create(f"c{n}", "alice", *(f"u{k}" for k in range(9)))
    for n in range(25):
        server.post(server.logs["c0"], "u1", f"m{n}")
    async with client_of(network) as alice:
        listed = [one.conversation_id async for one in alice.conversations(page_size=3)]
        assert listed == [f"c{n}" for n in range(7)]
        assert network.calls.count("tidings.v1.ConversationService/ListConversations") == 3
        members = [member.user_id async for member in alice.members("c0", page_size=4)]
        assert members == ["alice", *(f"u{n}" for n in range(9))]
        newest = [entry.seq async for entry in alice.history("c0", page_size=4)]
        assert newest == list(range(26, 0, -1))
        up = [
            e.seq
            async for e in alice.history(
                "c0", 5, order=HistoryOrder.ASCENDING, until=11, page_size=2
            )
        ]
        assert up == list(range(5, 12))
        down = [entry.seq async for entry in alice.history("c0", 11, until=5, page_size=3)]
        assert down == list(range(11, 4, -1))
        assert [entry.seq async for entry in alice.history("c0", 3, until=3)] == [3]


@simulated
async def test_failures_that_may_pass_are_tried_again() -> None:
    network = Network()
    network.server.create("c", "alice", "bob")
    async with client_of(network) as alice:
        await alice.wait_online()
        network.call_problems = [Unavailable("down"), Unavailable("down"), Unavailable("down")]
        assert (await alice.get_message("c", seq=1)).seq == 1
        assert len(network.calls) == 4
        network.call_problems = [Unavailable("down")] * 1000
        began = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable):
            await alice.get_message("c", seq=1)
        assert asyncio.get_running_loop().time() - began <= 30.0
        network.call_problems = []
        with pytest.raises(NotFound) as refused:
            await alice.get_message("unknown", seq=1)
        assert refused.value.reason == "CONVERSATION_NOT_FOUND"
        with pytest.raises(InvalidArgument):
            await alice.get_message("c")


@simulated
async def test_a_call_with_a_refused_token_gets_another() -> None:
    network = Network()
    network.server.create("c", "alice", "bob")
    tokens = iter(["alice/phone/0", "alice/phone/1", "alice/phone/2"])
    async with client_of(network, token_provider=lambda: next(tokens)) as alice:
        await alice.wait_online()
        network.refused_tokens = {"alice/phone/0"}
        assert (await alice.mark_read("c", 1)).unread_count == 0
        network.refused_tokens = {"alice/phone/1", "alice/phone/2"}
        with pytest.raises(Unauthenticated):
            await alice.mark_read("c", 1)


@simulated
async def test_history_before_the_first_connection_gives_up_in_time() -> None:
    network = Network()
    network.up = False
    async with client_of(network) as alice:
        with pytest.raises(Unavailable):
            await anext(aiter(alice.history("c")))
        assert asyncio.get_running_loop().time() == 30.0


@simulated
async def test_a_call_that_hangs_is_given_up() -> None:
    network = Network()

    async def hang() -> str:
        await asyncio.Event().wait()
        return ""

    async with client_of(network, token_provider=hang) as alice:
        with pytest.raises(DeadlineExceeded):
            await alice.get_conversation("c")
        assert asyncio.get_running_loop().time() == 30.0


@simulated
async def test_presence_is_a_mapping() -> None:
    network = Network()
    async with client_of(network) as alice:
        known = await alice.presence(["bob", "carol"])
        assert known["bob"].status_text == "here"
        assert known["bob"].last_seen_time is not None
        assert known["bob"].last_seen_time.timestamp() == 1
        assert list(known) == ["bob", "carol"]


@simulated
async def test_a_request_keeps_its_id_over_retries() -> None:
    network = Network()
    async with client_of(network) as alice:
        network.call_problems = [Unavailable("down"), Unavailable("down")]
        group = await alice.create_group("friends", ["bob"])
        id_time(group.conversation_id)
        assert sum(name.startswith(group.conversation_id) for name in network.server.logs) == 1
        assert timestamp(0).seconds == 0
