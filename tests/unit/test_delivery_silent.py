"""Devices that connect and never say hello: nothing else would ever end their sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.world import World, until
from tidings.v1 import chat_service_pb2
from tidings_server.errors import Reason

pytestmark = pytest.mark.virtual_time


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = await World().start()
    yield made
    await made.stop()


async def test_a_device_that_never_says_hello(world: World) -> None:
    log = await world.group("alice", "bob")
    silent, rude = world.device("bob", "silent"), world.device("bob", "rude")
    rude.post(log, "x")
    # What is no hello that can be taken is none.
    hello = chat_service_pb2.Hello(window=-1)
    rude.send(chat_service_pb2.Command(command_id=rude.number(), hello=hello))
    for device in silent, rude:
        ended = device.session.ended
        await until(ended.done, seconds=40)
        problem = ended.result()
        assert problem is not None
        assert problem.reason is Reason.HELLO_EXPECTED
        assert device.of("session_ended")[0].session_ended.reconnect


async def test_a_device_that_has_said_hello_stays(world: World) -> None:
    device = world.device("bob")
    await device.hello()
    with pytest.raises(AssertionError):
        await until(device.session.ended.done, seconds=300)
