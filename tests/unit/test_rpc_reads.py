"""Reading calls: a user's wait for each other when there are many, and hold up nobody else's."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.world import settled
from tidings_server.errors import DomainError, Reason
from tidings_server.rpc.reads import AT_ONCE, Reads

pytestmark = pytest.mark.virtual_time


async def test_some_at_once_and_the_rest_in_turn() -> None:
    reads = Reads(100)
    calls = [asyncio.ensure_future(reads.enter("bob")) for _ in range(AT_ONCE + 2)]
    await settled()
    assert [c.done() for c in calls] == [True] * AT_ONCE + [False] * 2
    await asyncio.wait_for(reads.enter("alice"), 1)
    reads.leave("bob")
    await settled()
    assert [c.done() for c in calls[-2:]] == [True, False]


async def test_too_many_are_refused() -> None:
    reads = Reads(AT_ONCE + 1)
    calls = [asyncio.ensure_future(reads.enter("bob")) for _ in range(AT_ONCE + 1)]
    await settled()
    with pytest.raises(DomainError) as caught:
        await reads.enter("bob")
    assert caught.value.reason is Reason.TOO_MANY_IN_FLIGHT
    # Who hangs up while waiting makes room.
    calls[-1].cancel()
    await settled()
    waiting = asyncio.ensure_future(reads.enter("bob"))
    reads.leave("bob")
    await settled()
    assert waiting.done()


async def test_nothing_is_kept_of_who_waits_for_nothing() -> None:
    reads = Reads(100)
    await reads.enter("bob")
    reads.leave("bob")
    assert not reads._users
