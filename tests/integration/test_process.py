"""The server as a process: signals, draining, health, reflection, and what is left after it."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.integration.conftest import Served
from tests.integration.processes import ServerProcess
from tests.integration.wire import PATIENCE_S, Command, Device, error_of, message, refused, token
from tidings.v1 import chat_service_pb2
from tidings.v1.message_pb2 import MessageContent
from tidings_server.core.entries import Entry, MessagePosted

Status = health_pb2.HealthCheckResponse
BUF = str(Path(sys.executable).with_name("buf"))


def stored_text(entry: Entry) -> str:
    if not isinstance(entry.body, MessagePosted):
        return ""
    return MessageContent.FromString(entry.body.content).text


async def health(address: str, service: str = "") -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        return int(answer.status)


async def test_draining(process: ServerProcess) -> None:
    process.settings["DRAIN__DELAY_SPREAD_S"] = "2"
    await process.start()
    second = ServerProcess(process.folder)
    with pytest.raises(AssertionError, match="it ended with 1"):
        await second.start()
    assert "tidings.db" in second.log[-1]["message"]
    alice = process.caller("alice")
    log = await alice.group("bob")
    device = await process.connect("alice").open()
    other = await process.connect("bob").open()
    silent = process.connect("carol")
    silent.read_on()
    assert await health(process.address) == Status.SERVING
    posts = [device.message(log, str(i)) for i in range(200)]
    await device.send(*posts)
    process.signal(signal.SIGTERM)
    await device.until(lambda: device.of("going_away"))
    delay = device.of("going_away")[0].going_away.reconnect_delay_ms
    assert 0 <= delay <= 2000
    for service in ("", "tidings.v1.ChatService", "tidings.v1.MessageService"):
        assert await health(process.address, service) == Status.NOT_SERVING
    # What was begun is finished, and sessions that are open go on for a while.
    for post in posts:
        assert (await device.result(post.command_id)).HasField("send_message")
    assert await device.post(log, "one more") == 202
    # New sessions are refused, and told to come again.
    late = await process.connect("dave").open(synced=False)
    problem = await late.over()
    assert (problem.code, problem.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert late.events[-1].session_ended.reconnect
    # One leaves, the other is sent away.
    await device.close()
    problem = await other.over()
    assert (problem.code, problem.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert other.events[-1].session_ended.reconnect
    assert other.applied(log) == 202
    assert await process.ended() == 0
    await silent.over()
    assert [line["message"] for line in process.log][-2:] == ["draining", "stopped"]
    # Nothing of it is lost.
    texts = [stored_text(entry) for entry in await process.stored(log)]
    assert texts == ["", *map(str, range(200)), "one more"]


async def test_a_stop_that_is_noticed_before_it_begins(process: ServerProcess) -> None:
    process.settings["DRAIN__NOTICE_S"] = "4"
    await process.start()
    process.signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE_S):
        while await health(process.address) == Status.SERVING:  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.01)
    # Who is sent here by somebody who does not know it yet is served.
    device = await process.connect("alice").open()
    assert not device.of("going_away")
    log = await process.caller("alice").group("bob")
    await device.until(lambda: device.applied(log) == 1)
    await device.until(lambda: device.of("going_away"))
    assert (await device.over()).reason == "DRAINING"
    assert await process.ended() == 0


async def test_a_drain_waits_for_those_who_are_told_to_leave_late(process: ServerProcess) -> None:
    process.settings |= {"DRAIN__DELAY_SPREAD_S": "6", "DRAIN__GRACE_S": "0.2"}
    await process.start()
    devices = [await process.connect("alice", f"device-{i}").open() for i in range(10)]
    process.signal(signal.SIGTERM)

    async def leave_when_told(device: Device) -> bool:
        await device.until(lambda: device.of("going_away"))
        delay_ms = device.of("going_away")[0].going_away.reconnect_delay_ms
        # The others leave before their time, so that nobody waits for them.
        await asyncio.sleep(min(delay_ms, 3000) / 1000)
        stayed = device.ended is None
        await device.close()
        return stayed

    assert all(await asyncio.gather(*map(leave_when_told, devices)))
    assert await process.ended() == 0


async def test_a_command_that_can_not_be_finished(process: ServerProcess) -> None:
    """Every command is answered, also in the moment of stopping."""
    process.settings["DRAIN__GRACE_S"] = "1"
    await process.start()
    log = await process.caller("alice").group("bob")
    devices = [await process.connect("alice", f"device-{i}").open() for i in range(4)]
    running = True
    numbers: dict[Device, list[int]] = {device: [] for device in devices}

    async def flood(device: Device) -> None:
        while running:
            if len(numbers[device]) - len(device.results()) > 500:
                await asyncio.sleep(0)
                continue
            post = device.message(log, "x" * 1000)
            numbers[device].append(post.command_id)
            try:
                await device.send(post)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                numbers[device].pop()
                return

    flooding = [asyncio.get_running_loop().create_task(flood(d)) for d in devices]
    await devices[0].until(lambda: len(devices[0].results()) > 50)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0
    running = False
    await asyncio.gather(*flooding)
    acknowledged: set[int] = set()
    for device in devices:
        await device.over()
        results = {r.command_id: r for r in device.results()}
        assert len(results) == len(device.results())
        for result in results.values():
            if result.HasField("send_message"):
                acknowledged.add(result.send_message.seq)
            elif result.HasField("error"):
                assert error_of(result)[0] is grpc.StatusCode.UNAVAILABLE
        # Those without an answer are the last ones: they were not read any more.
        answered = [number in results for number in numbers[device]]
        assert answered == sorted(answered, reverse=True)
    assert acknowledged <= {entry.seq for entry in await process.stored(log)}


async def test_the_log_holds_neither_texts_nor_tokens(process: ServerProcess) -> None:
    process.settings["LOG__LEVEL"] = "debug"
    await process.start()
    alice = process.caller("alice")
    log = await alice.group("bob", title="a secret title")
    await alice.post(log, "a secret text")
    device = await process.connect("alice").open()
    await device.send(device.message(log, ""))
    await device.write(b"a secret in garbage \xff")
    await device.until(lambda: len(device.results()) == 3)
    await refused(
        alice.messages.SendMessage(message(log, "a secret text", "no id"), metadata=alice.metadata)
    )
    process.signal(signal.SIGINT)
    assert await process.ended() == 0
    text = json.dumps(process.log)
    assert "secret" not in text
    assert token("alice").split(".")[0] not in text


# Reflection


async def test_reflection_tells_the_whole_contract(server: Served) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        make: Any = reflection_pb2_grpc.ServerReflectionStub
        stub = make(channel)
        request = reflection_pb2.ServerReflectionRequest

        async def asked() -> Any:
            yield request(list_services="")
            yield request(file_containing_symbol="tidings.v1.ChatService")
            yield request(file_by_filename="tidings/v1/entry.proto")

        answers = [answer async for answer in stub.ServerReflectionInfo(asked())]
    services = {s.name for s in answers[0].list_services_response.service}
    assert services >= {
        "tidings.v1.ChatService",
        "tidings.v1.ConversationService",
        "tidings.v1.MessageService",
        "tidings.v1.ReceiptService",
        "tidings.v1.PresenceService",
        "grpc.health.v1.Health",
    }
    for answer in answers[1:]:
        files = [
            FileDescriptorProto.FromString(raw)
            for raw in answer.file_descriptor_response.file_descriptor_proto
        ]
        assert any(file.package == "tidings.v1" for file in files)


async def buf_curl(server: Served, method: str, data: str, user: str = "alice") -> str:
    command = [
        BUF,
        "curl",
        "--protocol=grpc",
        "--http2-prior-knowledge",
        f"--header=authorization: Bearer {token(user, 'buf')}",
        "--data=@-",
        f"http://{server.address}/{method}",
    ]
    done = await asyncio.to_thread(
        subprocess.run, command, input=data, capture_output=True, text=True, timeout=60, check=False
    )
    assert not done.stderr or done.returncode, done.stderr
    return done.stdout or done.stderr


async def test_buf_curl_calls_a_method(server: Served) -> None:
    log = await server.caller("alice").group("bob", title="Plan")
    method = "tidings.v1.ConversationService/GetConversation"
    answer = json.loads(await buf_curl(server, method, json.dumps({"conversationId": log})))
    assert answer["conversation"]["title"] == "Plan"
    problem = json.loads(await buf_curl(server, method, json.dumps({"conversationId": "x"})))
    assert problem["code"] == "invalid_argument"
    info, _ = (base64.b64decode(detail["value"] + "==") for detail in problem["details"])
    assert error_details_pb2.ErrorInfo.FromString(info).reason == "INVALID_FIELD"


async def test_buf_curl_opens_a_session(server: Served) -> None:
    """What is written is answered, though the tool then closes its side."""
    log = await server.caller("alice").group("bob")
    post = message(log, "typed by hand")
    lines = [
        {"commands": [{"commandId": 1, "hello": {}}]},
        {
            "commands": [
                {
                    "commandId": 2,
                    "sendMessage": {
                        "conversationId": log,
                        "messageId": post.message_id,
                        "content": {"text": post.content.text},
                    },
                }
            ]
        },
    ]
    output = await buf_curl(
        server, "tidings.v1.ChatService/Chat", "\n".join(map(json.dumps, lines))
    )
    decoder, at, events = json.JSONDecoder(), 0, []
    while at < len(output.rstrip()):
        frame, at = decoder.raw_decode(output, at)
        events += frame.get("events", [])
        while at < len(output) and output[at].isspace():
            at += 1
    kinds = [kind for event in events for kind in event]
    assert kinds[0] == "welcome"
    assert "syncComplete" in kinds
    (sent,) = [e["result"] for e in events if e.get("result", {}).get("commandId") == "2"]
    assert sent["sendMessage"]["seq"] == "2"


async def test_hello_by_hand_names_its_field(server: Served) -> None:
    device = server.connect("alice")
    device.read_on()
    hello = chat_service_pb2.Hello(client="c" * 200)
    await device.send(Command(command_id=1, hello=hello))
    assert await device.error(1) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "hello.client",
    )
