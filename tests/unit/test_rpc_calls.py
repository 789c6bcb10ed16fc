"""Unary calls: a user's are bounded, reading ones wait for each other, and nobody else's are held up."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.world import settled
from tidings_server.errors import Code, DomainError, Reason
from tidings_server.operations.calls import READS_AT_ONCE, Calls

pytestmark = pytest.mark.virtual_time


async def test_some_reads_at_once_and_the_rest_in_turn() -> None:
    calls = Calls(100)
    reads = [
        asyncio.ensure_future(calls.enter("bob", reads=True)) for _ in range(READS_AT_ONCE + 2)
    ]
    await settled()
    assert [c.done() for c in reads] == [True] * READS_AT_ONCE + [False] * 2
    await asyncio.wait_for(calls.enter("alice", reads=True), 1)
    await asyncio.wait_for(calls.enter("bob", reads=False), 1)
    calls.leave("bob", reads=False)
    await settled()
    assert not reads[-2].done()
    calls.leave("bob", reads=True)
    await settled()
    assert [c.done() for c in reads[-2:]] == [True, False]


async def test_too_many_are_refused() -> None:
    calls = Calls(READS_AT_ONCE + 2)
    await calls.enter("bob", reads=False)
    reads = [
        asyncio.ensure_future(calls.enter("bob", reads=True)) for _ in range(READS_AT_ONCE + 1)
    ]
    await settled()
    for kind in (True, False):
        with pytest.raises(DomainError) as caught:
            await calls.enter("bob", reads=kind)
        assert caught.value.reason is Reason.TOO_MANY_IN_FLIGHT
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
        assert caught.value.retry_after_ms
    # Who hangs up while waiting makes room.
    reads[-1].cancel()
    await settled()
    waiting = asyncio.ensure_future(calls.enter("bob", reads=True))
    calls.leave("bob", reads=True)
    await settled()
    assert waiting.done()


async def test_nothing_is_kept_of_who_waits_for_nothing() -> None:
    calls = Calls(100)
    for kind in (True, False):
        await calls.enter("bob", reads=kind)
        calls.leave("bob", reads=kind)
    assert not calls._users
