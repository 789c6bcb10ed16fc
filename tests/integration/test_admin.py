"""AdminService over real gRPC: an operator looks, asks why, and drains a server that goes on for whoever stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from tests.integration.conftest import Served
from tests.integration.processes import ServerProcess
from tests.integration.test_process import health
from tests.integration.test_readiness import says
from tests.integration.wire import CLOCK, PATIENCE_S, POLICY, new_id, refused
from tidings.v1 import admin_service_pb2 as pb
from tidings.v1.admin_service_pb2_grpc import AdminServiceStub
from tidings_server.auth import mint
from tidings_server.core.principal import ADMIN_SCOPE

SECRET_TEXT = "nobody but the two is to read this"


class Operator:
    """Calls AdminService with a token that may."""

    def __init__(self, address: str, *scopes: str) -> None:
        self.channel = grpc.aio.insecure_channel(address)
        self._stub: Any = AdminServiceStub(self.channel)
        token = mint(POLICY, CLOCK, "operator", "cli", ttl_s=600, scopes=scopes)
        self._metadata = (("authorization", f"Bearer {token}"),)

    async def ask(self, method: str, request: Message) -> Any:
        call = getattr(self._stub, method)
        answer = await call(request, metadata=self._metadata, timeout=PATIENCE_S)
        assert SECRET_TEXT.encode() not in answer.SerializeToString()
        return answer


@pytest.fixture
async def operator(server: Served) -> AsyncIterator[Operator]:
    made = Operator(server.address, ADMIN_SCOPE)
    yield made
    await made.channel.close()


async def test_an_operator_looks_and_asks_why(server: Served, operator: Operator) -> None:
    alice = server.caller("alice")
    log = await alice.group("bob", title=SECRET_TEXT)
    bob = await server.device("bob")
    message_id = new_id()
    await alice.post(log, SECRET_TEXT, change_id=message_id)
    await bob.until(lambda: bob.applied(log) == 2)
    (node,) = (await operator.ask("ListNodes", pb.ListNodesRequest())).nodes
    assert node.answering
    assert (node.load.sessions, node.state) == (1, pb.NODE_STATE_SERVING)
    assert node.version
    (session,) = (await operator.ask("ListSessions", pb.ListSessionsRequest())).sessions
    assert (session.user_id, session.device_id, session.node_id) == ("bob", "phone", node.node_id)
    got = await operator.ask(
        "GetConversationState", pb.GetConversationStateRequest(conversation_id=log)
    )
    assert (got.state.head_seq, got.state.member_count) == (2, 2)
    assert got.state.home_node_id == node.node_id
    assert [s.session_id for s in got.sessions] == [session.session_id]
    listed = await operator.ask(
        "ListConversationStates", pb.ListConversationStatesRequest(user_id="alice")
    )
    assert [s.conversation_id for s in listed.states] == [log]

    async def explain() -> pb.ExplainDeliveryResponse:
        request = pb.ExplainDeliveryRequest(
            conversation_id=log, message_id=message_id, user_id="bob"
        )
        answer = await operator.ask("ExplainDelivery", request)
        assert isinstance(answer, pb.ExplainDeliveryResponse)
        return answer

    told = await explain()
    assert told.outcome in (pb.DELIVERY_OUTCOME_SENT, pb.DELIVERY_OUTCOME_DELIVERED)
    assert (told.seq, told.sender_user_id, told.entry_kind) == (2, "alice", "message")
    facts = {f.step: f for f in told.facts}
    assert facts[pb.DELIVERY_STEP_COMMITTED].node_id == node.node_id
    assert facts[pb.DELIVERY_STEP_PUBLISHED].state == pb.FACT_STATE_YES
    await bob.send(acks=[(log, 2)])
    async with asyncio.timeout(PATIENCE_S):
        while told.outcome != pb.DELIVERY_OUTCOME_DELIVERED:
            told = await explain()


async def test_nobody_else_may(server: Served) -> None:
    mallory = Operator(server.address, "administrator")
    problem = await refused(mallory.ask("ListNodes", pb.ListNodesRequest()))
    assert (problem.code, problem.reason) == (grpc.StatusCode.PERMISSION_DENIED, "DENIED")
    await mallory.channel.close()


async def test_a_server_taken_out_of_service(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path, METRICS__ENABLED="true", METRICS__LISTEN="127.0.0.1:0")
    await process.start()
    port = (await process.logged("serving"))["metrics_port"]
    await says(port, 200, "ok")
    device = await process.connect("bob").open()
    operator = Operator(process.address, ADMIN_SCOPE)
    drained = await operator.ask("DrainNode", pb.DrainNodeRequest())
    assert drained.sessions == 1
    await device.until(lambda: device.of("going_away"))
    await says(port, 503, "draining: an operator has taken this server out of service")
    assert await health(process.address) == 2
    # It goes on for whoever stays, and takes nobody new.
    log = await process.caller("alice").group("bob")
    await device.until(lambda: device.applied(log) == 1)
    late = await process.connect("dave").open(synced=False)
    assert (await late.over()).reason == "DRAINING"
    await operator.channel.close()
    await process.close()
