"""Tokens that expire and are refreshed within a session."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.devices import level
from tests.unit.world import HOUR_MS, World, until
from tidings.v1 import chat_service_pb2, error_pb2, event_pb2
from tidings_server.core.limits import Limits
from tidings_server.errors import Reason

pytestmark = pytest.mark.virtual_time

Command = chat_service_pb2.Command
Entries = list[event_pb2.Event]


# Tokens


async def test_a_token_that_expires(world: World, log: str) -> None:
    bob = world.device("bob", good_for_ms=100_000)
    await bob.hello()
    assert not bob.of("token_expiring")
    expires = bob.session.principal.expires_at_ms
    await until(lambda: bob.of("token_expiring"), seconds=200)
    assert world.clock.now_ms() < expires
    warning = bob.of("token_expiring")[0].token_expiring
    assert warning.token_expire_time.ToMilliseconds() == expires
    await bob.session.ended
    assert world.clock.now_ms() - expires < 100
    assert len(bob.of("token_expiring")) == 1
    last = bob.events[-1].session_ended
    assert last.error.reason == error_pb2.ERROR_REASON_TOKEN_EXPIRED
    assert last.error.code == 16
    assert last.reconnect
    problem = bob.session.ended.result()
    assert problem is not None
    assert problem.reason is Reason.TOKEN_EXPIRED


async def test_a_token_that_is_refreshed(world: World, log: str) -> None:
    bob = world.device("bob", good_for_ms=50_000)
    await bob.hello()
    assert bob.of("token_expiring"), "warned at once when there is less than a minute"
    token = f"bob/phone/{HOUR_MS}"
    command = Command(command_id=9, refresh_token=chat_service_pb2.RefreshToken(token=token))
    bob.send(command)
    result = await bob.result(9)
    expires = result.refresh_token.token_expire_time.ToMilliseconds()
    assert expires == bob.session.principal.expires_at_ms
    await asyncio.sleep(HOUR_MS / 1000 - 70)
    assert not bob.session.ended.done()
    assert len(bob.of("token_expiring")) == 1
    await bob.session.ended
    assert len(bob.of("token_expiring")) == 2
    assert abs(world.clock.now_ms() - expires) < 100


@pytest.mark.parametrize("token", ["alice/phone", "bob/tablet", "/nobody"])
async def test_a_token_of_somebody_else(world: World, log: str, token: str) -> None:
    bob = world.device("bob", good_for_ms=50_000)
    await bob.hello()
    bob.send(Command(command_id=9, refresh_token=chat_service_pb2.RefreshToken(token=token)))
    error = (await bob.result(9)).error
    assert (error.code, error.reason) == (16, error_pb2.ERROR_REASON_TOKEN_INVALID)
    assert bob.session.principal.user_id == "bob"
    await world.post(log, "alice")
    await level(bob, log, 2)
    await bob.session.ended


async def test_a_clock_that_goes_back_does_not_end_a_session_early_or_never(world: World) -> None:
    bob = world.device("bob", good_for_ms=20_000)
    await bob.hello()
    await asyncio.sleep(10)
    world.clock.step(-15_000)
    await asyncio.sleep(20)
    assert not bob.session.ended.done()
    await bob.session.ended
    assert abs(world.clock.now_ms() - bob.session.principal.expires_at_ms) < 100


async def test_a_warning_comes_however_rare_beacons_are() -> None:
    world = await World(limits=Limits(beacon_interval_ms=600_000)).start()
    bob = world.device("bob", good_for_ms=700_000)
    await bob.hello()
    await bob.session.ended
    kinds = [e.WhichOneof("event") for e in bob.events]
    assert kinds.count("token_expiring") == 1
    assert kinds[-1] == "session_ended"
    await world.stop()
