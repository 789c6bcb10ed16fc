"""Unary calls of one user are bounded, whatever they ask for and whether or not they wait for the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2

from tests.integration.wire import PATIENCE_S
from tests.unit.world import World
from tidings.v1 import message_pb2
from tidings.v1.message_service_pb2_grpc import MessageServiceStub
from tidings_server.core.limits import Limits
from tidings_server.rpc.server import RpcServer
from tidings_server.storage.memory import Fate

MOST = 3


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World(limits=Limits(max_commands_in_flight=MOST)).start()
    yield world
    world.script.always.clear()
    await world.stop()


@pytest.fixture
async def messages(world: World) -> AsyncIterator[Any]:
    server = RpcServer(world.node, "127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield MessageServiceStub(channel)
    await server.stop(0)


def retry(problem: grpc.aio.AioRpcError) -> int:
    """After how many milliseconds a call that was refused is to be made again; 0 when that is not told."""
    for key, value in problem.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                told = error_details_pb2.RetryInfo()
                if detail.Unpack(told):
                    return int(told.retry_delay.ToMilliseconds())
    return 0


async def test_calls_of_a_user_are_bounded(world: World, messages: Any) -> None:
    log = await world.group("alice", "bob")

    def send(user: str) -> asyncio.Future[message_pb2.SendMessageResponse]:
        request = message_pb2.SendMessageRequest(
            conversation_id=log,
            message_id=world.new_id(),
            content=message_pb2.MessageContent(text="x"),
        )
        metadata = (("authorization", f"Bearer {user}/phone"),)

        async def call() -> message_pb2.SendMessageResponse:
            sent = await messages.SendMessage(request, metadata=metadata, timeout=PATIENCE_S)
            assert isinstance(sent, message_pb2.SendMessageResponse)
            return sent

        return asyncio.ensure_future(call())

    world.script.always["append"] = Fate(before=3.0)
    calls = [send("alice") for _ in range(MOST + 1)]
    (refused,), waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    problem = refused.exception()
    assert isinstance(problem, grpc.aio.AioRpcError)
    assert problem.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert retry(problem) > 0
    # Who hangs up has what they asked for still under way.
    for call in waiting:
        call.cancel()
    await asyncio.wait(waiting)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await send("alice")
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await send("bob")).seq
    async with asyncio.timeout(PATIENCE_S):
        while len(world.entries(log)) < MOST + 2:  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0.01)
    world.script.always.clear()
    assert (await send("alice")).seq == MOST + 3
