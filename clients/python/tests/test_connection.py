"""Connecting: what a client does when connections, servers and tokens end."""

from __future__ import annotations

import asyncio
import random

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tidings import (
    ClientConfig,
    ConnectionState,
    ConnectionStatus,
    LogEntry,
    MemoryStateStore,
    Message,
    StateError,
    TidingsError,
    Unauthenticated,
    Unavailable,
)
from tidings.v1 import event_pb2

from .device import client_of, collecting, next_of, statuses, texts, until
from .loop import simulated
from .model import error
from .network import Network


@simulated
async def test_cuts_neither_lose_nor_repeat_anything() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")
    rng = random.Random(3)
    async with client_of(network, config=ClientConfig(window=16, backoff_cap=1.0)) as alice:
        async with collecting(alice) as seen:
            for n in range(300):
                network.server.post(log, "bob", f"b{n}")
                network.changed()
                await alice.send("c", f"a{n}")
                await asyncio.sleep(rng.uniform(0, 0.02))
                if rng.random() < 0.05:
                    network.cut()
            await until(lambda: len(texts(seen)) == 600)
            await until(lambda: not alice.pending())
        entries = [event for event in seen if isinstance(event, LogEntry) and event.log == "c"]
        assert [entry.seq for entry in entries] == list(range(1, 602))
        own = [event for event in entries if isinstance(event, Message) and event.own]
        assert [event.text for event in own] == [f"a{n}" for n in range(300)]


@simulated
async def test_the_waits_between_attempts_grow_with_full_jitter() -> None:
    class Highest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    network = Network()
    network.up = False
    async with client_of(network, rng=Highest(1)) as alice, collecting(alice) as seen:
        await asyncio.sleep(200.0)
        waits = [e.retry_in for e in seen if isinstance(e, ConnectionState) and e.retry_in]
        assert waits[:8] == [0.5, 1, 2, 4, 8, 16, 30, 30]
        offline = next(e for e in seen if isinstance(e, ConnectionState) and e.retry_in)
        assert isinstance(offline.error, Unavailable)
        network.up = True
        await until(lambda: statuses(seen)[-1] == "online")

        # A session that stood for a while makes the next failure a first one.
        async def beat() -> None:
            while True:
                network.beacons()
                await asyncio.sleep(10.0)

        beating = asyncio.create_task(beat())
        await asyncio.sleep(60.0)
        beating.cancel()
        network.cut()
        await until(lambda: statuses(seen)[-1] == "offline")
        assert isinstance(seen[-1], ConnectionState)
        assert seen[-1].retry_in == 0.5


@simulated
async def test_silence_is_noticed_within_two_and_a_half_beacons() -> None:
    network = Network()
    async with client_of(network) as alice:
        await alice.wait_online()
        began = asyncio.get_running_loop().time()
        for _ in range(5):
            await asyncio.sleep(9.0)
            network.beacons()
        silent_since = asyncio.get_running_loop().time()
        await asyncio.sleep(1.0)
        network.silent = True
        assert alice.connection.status is ConnectionStatus.ONLINE
        await until(lambda: alice.connection.status is not ConnectionStatus.ONLINE)
        waited = asyncio.get_running_loop().time() - silent_since
        assert 24.9 <= waited <= 25.1
        network.silent = False
        await alice.wait_online()
        assert asyncio.get_running_loop().time() > began


@simulated
async def test_a_server_that_does_not_answer_is_left() -> None:
    network = Network()
    network.silent = True
    async with client_of(network, config=ClientConfig(connect_timeout=3.0)) as alice:
        await until(lambda: alice.connection.status is ConnectionStatus.OFFLINE)
        assert 3.0 <= asyncio.get_running_loop().time() <= 3.1
        network.silent = False
        await alice.wait_online()


@simulated
async def test_a_digest_that_differs_makes_it_connect_again() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")
    async with client_of(network) as alice, collecting(alice) as seen:
        await alice.wait_online()
        # The push of this one is lost inside the server, which believes that it went out.
        network.server.append(log, "bob", "lost", message={"text": "lost"})
        session = network.links[0].session
        assert session.sent is not None
        session.sent["c"] = 2
        network.beacons()
        await until(lambda: texts(seen) == ["lost"])
        assert statuses(seen)[:6] == [
            "connecting",
            "syncing",
            "online",
            "offline",
            "connecting",
            "syncing",
        ]


@simulated
async def test_a_position_left_out_makes_it_connect_again() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")
    async with client_of(network) as alice, collecting(alice) as seen:
        await alice.wait_online()
        session = network.links[0].session
        network.server.append(log, "bob", "lost", message={"text": "lost"})
        assert session.sent is not None
        session.sent["c"] = 2
        network.server.post(log, "bob", "after it")
        network.changed()
        await until(lambda: texts(seen) == ["lost", "after it"])
        assert len(network.connects) == 2


@simulated
async def test_garbage_makes_it_connect_again() -> None:
    network = Network()
    async with client_of(network) as alice:
        await alice.wait_online()
        link = network.links[0]
        link.session.frame = lambda count: b"\xff" * count  # type: ignore[method-assign]
        network.changed()
        await until(lambda: len(network.connects) == 2)
        await alice.wait_online()


@simulated
async def test_events_of_kinds_to_come_are_passed_over() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")
    async with client_of(network) as alice:
        await alice.wait_online()
        network.links[0].session.out.append(event_pb2.Event())
        network.server.append(log, "bob", "of a kind to come")
        network.server.post(log, "bob", "known")
        network.changed()
        (message,) = await next_of(alice, Message)
        assert (message.text, message.seq) == ("known", 3)


@simulated
async def test_a_server_that_goes_away_is_joined_again_after_the_delay() -> None:
    network = Network()
    log = network.server.create("c", "alice", "bob")
    async with client_of(network) as alice:
        await alice.wait_online()
        away = event_pb2.GoingAway(reconnect_delay_ms=4000)
        network.links[0].session.out.append(event_pb2.Event(going_away=away))
        network.changed()
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(0.1)
        # It is served until then.
        taken = await alice.send("c", "taken meanwhile")
        assert await taken.sent() == 2
        assert len(network.connects) == 1
        network.working = False
        cut_off = await alice.send("c", "not answered any more")
        await until(lambda: len(network.connects) == 2)
        assert 4.0 <= network.connects[-1] - began <= 4.2
        assert network.renewals == 1
        network.working = True
        network.work()
        assert await cut_off.sent() == 3
        assert [entry.message.text for entry in log.entries[1:]] == [
            "taken meanwhile",
            "not answered any more",
        ]


@simulated
async def test_a_server_that_is_gone_before_the_delay_is_not_waited_for() -> None:
    network = Network()
    async with client_of(network) as alice:
        await alice.wait_online()
        away = event_pb2.GoingAway(reconnect_delay_ms=4000)
        network.links[0].session.out.append(event_pb2.Event(going_away=away))
        network.changed()
        await asyncio.sleep(0.5)
        cut = asyncio.get_running_loop().time()
        network.cut()
        await until(lambda: len(network.connects) == 2)
        assert network.renewals == 1
        assert network.connects[-1] - cut <= ClientConfig().backoff_base


@simulated
async def test_a_session_that_ends_for_good_ends_the_client() -> None:
    network = Network()
    network.server.create("c", "alice", "bob")
    async with client_of(network) as alice:
        await alice.wait_online()
        for _ in range(3):
            await asyncio.sleep(9.0)
            network.beacons()
        network.working = False
        handle = await alice.send("c", "text")
        network.links[0].session.end(error(10, "SESSION_REPLACED"), reconnect=False)
        network.changed()
        with pytest.raises(TidingsError) as ended:
            await handle.sent()
        assert ended.value.reason == "SESSION_REPLACED"
        states = await next_of(alice, ConnectionState, 4)
        assert [one.status for one in states] == ["connecting", "syncing", "online", "ended"]
        with pytest.raises(TidingsError, match="SESSION_REPLACED"):
            await anext(alice.events())
        with pytest.raises(TidingsError):
            await alice.send("c", "more")
        with pytest.raises(TidingsError):
            await alice.wait_online()
        assert len(network.connects) == 1


@simulated
async def test_a_session_replaced_at_once_may_be_by_an_own_connection_that_came_late() -> None:
    network = Network()
    async with client_of(network) as alice:
        for attempts in (1, 2):
            await until(lambda: alice.connection.status is ConnectionStatus.ONLINE)
            assert len(network.connects) == attempts
            network.links[0].session.end(error(10, "SESSION_REPLACED"), reconnect=False)
            network.changed()
            await until(lambda: alice.connection.status is not ConnectionStatus.ONLINE)
        assert alice.connection.status is ConnectionStatus.ENDED


@simulated
async def test_a_session_that_ends_for_now_is_opened_again() -> None:
    network = Network()
    async with client_of(network) as alice:
        await alice.wait_online()
        network.links[0].session.end(error(14, "STORE_UNAVAILABLE"), reconnect=True)
        network.changed()
        await until(lambda: len(network.connects) == 2)
        await alice.wait_online()
        assert network.renewals == 0


@simulated
async def test_a_server_that_drains_is_left_by_a_new_connection() -> None:
    network = Network()
    async with client_of(network) as alice:
        await alice.wait_online()
        network.links[0].session.end(error(14, "DRAINING"), reconnect=True)
        network.changed()
        await until(lambda: len(network.connects) == 2)
        assert network.renewals == 1
        await alice.wait_online()


@simulated
async def test_a_state_of_another_user_is_not_used() -> None:
    network = Network()
    network.server.create("c", "alice", "bob")
    store = MemoryStateStore()
    network.up = False
    async with client_of(network, state=store) as alice:
        network.up = True
        await alice.wait_online()
        assert (alice.user_id, alice.device_id) == ("alice", "phone")
        await asyncio.sleep(0.2)
    async with client_of(network, "bob", state=store) as bob:
        with pytest.raises(StateError, match="alice"):
            await bob.wait_online()


@simulated
async def test_a_token_is_refreshed_before_it_expires() -> None:
    network = Network()
    tokens = iter([f"alice/phone/{n}" for n in range(9)])

    async def provide() -> str:
        await asyncio.sleep(0.1)
        return next(tokens)

    async with client_of(network, token_provider=provide) as alice:
        await alice.wait_online()
        session = network.links[0].session
        expiring = event_pb2.TokenExpiring(token_expire_time=Timestamp(seconds=1_700_000_060))
        session.out.append(event_pb2.Event(token_expiring=expiring))
        network.changed()
        await until(lambda: bool(session.tokens))
        assert session.tokens == ["alice/phone/1"]
        assert network.tokens == ["alice/phone/0"]
        network.cut()
        await alice.wait_online()
        await until(lambda: len(network.tokens) == 2)
        assert network.tokens[-1] == "alice/phone/1"


@simulated
async def test_a_provider_may_take_its_time_and_give_a_line() -> None:
    network = Network()

    async def ask_a_person() -> str:
        await asyncio.sleep(300.0)
        return "alice/phone\n"

    async with client_of(network, token_provider=ask_a_person) as alice:
        await alice.wait_online()
        assert network.tokens == ["alice/phone"]


@simulated
async def test_a_provider_that_fails_is_asked_again() -> None:
    network = Network()
    attempts = 0

    def provide() -> str:
        nonlocal attempts
        attempts += 1
        if attempts < 4:
            raise RuntimeError("the login server is down")
        return "alice/phone"

    async with client_of(network, token_provider=provide) as alice, collecting(alice) as seen:
        await alice.wait_online()
        offline = [e for e in seen if isinstance(e, ConnectionState) and e.error is not None]
        assert len(offline) == 3
        assert "the login server is down" in str(offline[0].error)


@simulated
async def test_a_refused_token_is_replaced_and_the_same_again_is_the_end() -> None:
    network = Network()
    network.refused_tokens = {"alice/phone/old"}
    tokens = iter(["alice/phone/old", "alice/phone/new"])
    async with client_of(network, token_provider=lambda: next(tokens)) as alice:
        await alice.wait_online()
        assert network.tokens == ["alice/phone/old", "alice/phone/new"]
    async with client_of(network, token_provider=lambda: "alice/phone/old") as alice:
        with pytest.raises(Unauthenticated):
            await alice.wait_online()
        assert alice.connection.status is ConnectionStatus.ENDED


@simulated
async def test_a_token_known_to_be_expired_is_not_used() -> None:
    network = Network()
    network.server.expire_ms = network.server.now_ms + 30_000
    tokens = iter([f"alice/phone/{n}" for n in range(9)])
    async with client_of(network, token_provider=lambda: next(tokens)) as alice:
        await alice.wait_online()
        network.up = False
        network.cut()
        await asyncio.sleep(60.0)
        network.up = True
        network.server.expire_ms = 0
        await alice.wait_online()
        await until(lambda: len(network.links) == 1)
        assert network.tokens[-1] != "alice/phone/0"
