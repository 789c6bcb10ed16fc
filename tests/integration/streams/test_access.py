"""Every method and every command is denied unless a rule allows it: a new one without a rule fails here."""

from __future__ import annotations

import random
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.integration.streams.raw import Call, Server, bearer, refusal, token
from tests.unit import admin_requests
from tidings.v1 import chat_service_pb2
from tidings_server.codec.requests import RequestReader
from tidings_server.core import commands as c
from tidings_server.core.admin import AdminCommand
from tidings_server.core.limits import Limits
from tidings_server.core.principal import Principal
from tidings_server.errors import DomainError, Reason
from tidings_server.operations.access import RULES, Access
from tidings_server.operations.unary import CHAT, UNARY

METHODS = [f"/{s.full_name}/{m.name}" for s in (CHAT, *UNARY) for m in s.methods]
READER = RequestReader(Limits())
SESSION_ONLY = {c.Hello, c.RefreshToken}


def call(server: Server, method: str) -> Call:
    return server.channel.unary_unary(method)


def test_the_table_names_every_method() -> None:
    ours = {method for method in RULES if method.startswith("/tidings.")}
    assert ours == set(METHODS)
    # What is for operators is for nobody else, and everything else for everybody.
    for method in METHODS:
        admins = method.startswith("/tidings.v1.AdminService/")
        assert RULES[method] is (Access.ADMIN if admins else Access.USER)


async def test_every_command_has_a_reader_and_a_handler(server: Server) -> None:
    readable = RequestReader(Limits()).request_types
    fields = chat_service_pb2.Command.DESCRIPTOR.oneofs_by_name["command"].fields
    taken = {GetMessageClass(f.message_type) for f in fields if f.message_type is not None}
    assert len(taken) == len(fields)
    assert taken <= readable
    requests = {GetMessageClass(m.input_type) for s in UNARY for m in s.methods}
    assert requests <= readable
    commands = set(c.Command.__args__)
    assert commands >= set(AdminCommand.__args__)
    assert server.node.handlers.commands | SESSION_ONLY == commands
    assert not server.node.handlers.commands & SESSION_ONLY


@pytest.mark.parametrize("method", [m for m in METHODS if not m.endswith("/Chat")])
async def test_no_method_without_a_token(server: Server, method: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(server, method)(b"")
    assert refusal(caught.value).code == "UNAUTHENTICATED"


@pytest.mark.parametrize("method", [m for m in METHODS if RULES[m] is Access.ADMIN])
@pytest.mark.parametrize("scopes", [(), ("Admin", "administrator", "user")])
async def test_no_method_of_operators_without_the_scope(
    server: Server, method: str, scopes: tuple[str, ...]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        # Whatever is in it: nothing of the request is looked at.
        await call(server, method)(b"garbage", metadata=bearer(token("alice", scopes=scopes)))
    found = refusal(caught.value)
    assert (found.code, found.reason, found.field) == ("PERMISSION_DENIED", "DENIED", "")


async def test_no_command_of_operators_without_the_scope(server: Server) -> None:
    commands = [READER.read(request) for request, _ in admin_requests.GOOD]
    assert {type(command) for command in commands} == set(AdminCommand.__args__)
    for command in commands:
        with pytest.raises(DomainError) as caught:
            await server.node.handlers.execute(Principal("alice", "phone", 1 << 60), command)
        assert caught.value.reason is Reason.DENIED


@pytest.mark.parametrize("method", [m for m in METHODS if not m.endswith("/Chat")])
async def test_garbage_is_refused_by_every_method(server: Server, method: str) -> None:
    metadata = bearer(token("alice", scopes=("admin",)))
    garbage = random.Random(7).randbytes(300)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(server, method)(garbage, metadata=metadata)
    assert caught.value.code() in {grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT}


async def test_a_method_that_nobody_listed(server: Server) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(server, "/tidings.v1.AdminService/EraseEverything")(
            b"", metadata=bearer(token("alice"))
        )
    assert refusal(caught.value).reason == "DENIED"


async def test_health_and_reflection_are_open(server: Server) -> None:
    health: Any = health_pb2_grpc.HealthStub(server.channel)
    for service in ("", CHAT.full_name):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(server.channel)  # type: ignore[arg-type]
    asking = stub.ServerReflectionInfo()
    await asking.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await asking.read()
    names = {s.name for s in answer.list_services_response.service}
    assert {CHAT.full_name, *(s.full_name for s in UNARY)} <= names
    asking.cancel()
