"""Whatever a client sends: an error with code, reason and field; the stream lives where it can, the server always."""

from __future__ import annotations

import random

import grpc
import pytest

from tests.integration.streams.raw import Device, Server, bearer, new_id, refusal, token
from tidings.v1 import (
    chat_service_pb2,
    conversation_service_pb2,
    error_pb2,
    event_pb2,
    message_pb2,
    message_service_pb2,
)

REASON = error_pb2.ErrorReason


def reason(result: event_pb2.CommandResult) -> str:
    return REASON.Name(result.error.reason).removeprefix("ERROR_REASON_")


async def lives(server: Server, device: Device, conversation: str) -> None:
    """The stream still does its work, and the server takes new ones."""
    sent = await device.send(conversation, "still here")
    assert sent.HasField("send_message")
    await device.has(conversation, sent.send_message.seq)
    other = await server.connect("bob", f"probe-{len(server.devices)}")
    await other.close()


async def test_a_command_before_hello(server: Server) -> None:
    conversation = await server.direct("alice", "bob")
    device = server.open("alice")
    early = await device.send(conversation, "too early")
    assert reason(early) == "HELLO_EXPECTED"
    assert early.error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    await device.hello()
    await device.synced()
    assert reason(await device.hello()) == "HELLO_EXPECTED"
    await lives(server, device, conversation)
    assert device.texts(conversation) == ["still here"]


@pytest.mark.parametrize("frame", [b"\xff" * 10, b"\x0a\x05ab", random.Random(1).randbytes(1000)])
async def test_a_frame_of_garbage(server: Server, frame: bytes) -> None:
    conversation = await server.direct("alice", "bob")
    device = await server.connect("alice")
    await device.write(frame)
    assert reason(await device.result(0)) == "MALFORMED_FRAME"
    await lives(server, device, conversation)


async def test_a_frame_over_the_limit(server: Server) -> None:
    conversation = await server.direct("alice", "bob")
    device = await server.connect("alice")
    big = message_pb2.SendMessageRequest(
        conversation_id=conversation,
        message_id=new_id(),
        content=message_pb2.MessageContent(text="x" * (1 << 20)),
    )
    command = chat_service_pb2.Command(command_id=7, send_message=big)
    await device.write(chat_service_pb2.ChatRequest(commands=[command]).SerializeToString())
    assert reason(await device.result(0)) == "TOO_LARGE"
    await lives(server, device, conversation)


async def test_a_frame_far_over_the_limit_ends_only_its_stream(server: Server) -> None:
    conversation = await server.direct("alice", "bob")
    device = await server.connect("alice")
    await device.write(b"\x0a" * (9 << 20))
    assert await device.ended() == grpc.StatusCode.RESOURCE_EXHAUSTED
    again = await server.connect("alice")
    await lives(server, again, conversation)


async def test_a_text_over_the_limit(server: Server) -> None:
    conversation = await server.direct("alice", "bob")
    device = await server.connect("alice")
    result = await device.send(conversation, "\N{GRINNING FACE}" * 4097)
    assert (reason(result), result.error.field) == ("TOO_LARGE", "send_message.content.text")
    assert (await device.send(conversation, "\N{GRINNING FACE}" * 4096)).HasField("send_message")
    empty = await device.send(conversation, "")
    assert (reason(empty), empty.error.field) == ("INVALID_FIELD", "send_message.content.text")


async def test_unknown_fields_and_commands(server: Server) -> None:
    conversation = await server.direct("alice", "bob")
    device = await server.connect("alice")
    send = message_pb2.SendMessageRequest(
        conversation_id=conversation,
        message_id=new_id(),
        content=message_pb2.MessageContent(text="hi"),
    ).SerializeToString()
    newer = chat_service_pb2.Command(command_id=70).SerializeToString()
    # Field 9 of the request, a string: something that a newer client relies on.
    newer += b"\x1a" + bytes([len(send) + 3]) + send + b"\x4a\x01x"
    unknown = chat_service_pb2.Command(command_id=71).SerializeToString() + b"\xa2\x1f\x00"
    nothing = chat_service_pb2.Command(command_id=72).SerializeToString()
    for command in (newer, unknown, nothing):
        await device.write(b"\x0a" + bytes([len(command)]) + command)
    for number in (70, 71, 72):
        assert reason(await device.result(number)) == "UNKNOWN_FIELD"
    await lives(server, device, conversation)
    assert device.texts(conversation) == ["still here"]


@pytest.mark.parametrize(
    ("message_id", "expected"),
    [
        ("", "INVALID_FIELD"),
        ("not an id", "INVALID_FIELD"),
        ("01A20D6B-1475-77ED-9CC4-7628C2CE6F44", "INVALID_FIELD"),
        ("01a20d6b-1475-47ed-9cc4-7628c2ce6f44", "INVALID_FIELD"),
        ("01a20d6b-1475-77ed-1cc4-7628c2ce6f44", "INVALID_FIELD"),
    ],
)
async def test_an_id_that_is_no_uuid7(server: Server, message_id: str, expected: str) -> None:
    conversation = await server.direct("alice", "bob")
    device = await server.connect("alice")
    result = await device.send(conversation, "hi", message_id=message_id)
    assert (reason(result), result.error.field) == (expected, "send_message.message_id")
    await lives(server, device, conversation)


async def test_an_id_that_lies_ahead(server: Server) -> None:
    conversation = await server.direct("alice", "bob")
    device = await server.connect("alice")
    result = await device.send(conversation, "hi", message_id=new_id(ahead_ms=6 * 60 * 1000))
    assert reason(result) == "ID_AHEAD"
    near = await device.send(conversation, "hi", message_id=new_id(ahead_ms=4 * 60 * 1000))
    assert near.HasField("send_message")
    await lives(server, device, conversation)


async def test_a_foreign_and_an_absent_conversation_answer_alike(server: Server) -> None:
    mine = await server.direct("alice", "bob")
    foreign = await server.group("carol", "dave")
    absent = "01a20d6b-1475-87ed-9cc4-7628c2ce6f44"
    device = await server.connect("alice")
    told = []
    for conversation in (foreign, absent):
        result = await device.send(conversation, "let me in")
        error = result.error
        told.append((error.code, error.reason, error.field, error.message))
    assert told[0] == told[1]
    assert told[0][0] == grpc.StatusCode.NOT_FOUND.value[0]
    refused = []
    for conversation in (foreign, absent):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.messages.ListHistory(
                message_service_pb2.ListHistoryRequest(conversation_id=conversation),
                metadata=bearer(token("alice")),
            )
        refused.append((caught.value.details(), refusal(caught.value)))
    assert refused[0] == refused[1]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.messages.ListHistory(
            message_service_pb2.ListHistoryRequest(conversation_id="inbox:carol"),
            metadata=bearer(token("alice")),
        )
    assert refusal(caught.value).code == "NOT_FOUND"
    await lives(server, device, mine)


async def test_cursors_that_cannot_be_taken(server: Server) -> None:
    conversation = await server.direct("alice", "bob")
    foreign = await server.group("carol", "dave")
    device = server.open("alice")
    cursor = chat_service_pb2.Cursor
    hello = await device.hello(
        cursors=[
            cursor(conversation_id=conversation, seq=50),
            cursor(conversation_id=foreign, seq=1),
            cursor(conversation_id="nonsense", seq=1),
            cursor(conversation_id="inbox:carol", seq=1),
            cursor(conversation_id="inbox:alice", seq=-5),
        ]
    )
    await device.synced()
    refused = {r.conversation_id: r for r in hello.hello.refused_cursors}
    name = {c: REASON.Name(r.error.reason) for c, r in refused.items()}
    assert name == {
        conversation: "ERROR_REASON_POSITION_AHEAD",
        foreign: "ERROR_REASON_CONVERSATION_NOT_FOUND",
        "nonsense": "ERROR_REASON_INVALID_FIELD",
        "inbox:carol": "ERROR_REASON_INVALID_FIELD",
        "inbox:alice": "ERROR_REASON_INVALID_FIELD",
    }
    assert refused[conversation].seq == 1
    assert refused[foreign].seq == 0
    await lives(server, device, conversation)
    assert device.seqs(conversation) == [2]


async def test_a_cursor_of_another_incarnation_starts_anew(server: Server) -> None:
    conversation = await server.direct("alice", "bob")
    device = server.open("alice")
    hello = await device.hello(
        incarnation="an older one",
        cursors=[chat_service_pb2.Cursor(conversation_id=conversation, seq=1)],
    )
    await device.synced()
    (welcome,) = [e.welcome for e in device.events if e.HasField("welcome")]
    assert welcome.incarnation_changed
    assert [r.seq for r in hello.hello.refused_cursors] == [0]
    assert device.seqs(conversation) == [1]


@pytest.mark.parametrize("count", [10_001, 100_000])
async def test_too_many_cursors(server: Server, count: int) -> None:
    conversation = await server.direct("alice", "bob")
    device = server.open("alice")
    cursors = [
        chat_service_pb2.Cursor(conversation_id=f"{i:08x}-1475-77ed-9cc4-7628c2ce6f44", seq=1)
        for i in range(count)
    ]
    command = chat_service_pb2.Command(command_id=5, hello=chat_service_pb2.Hello(cursors=cursors))
    await device.write(chat_service_pb2.ChatRequest(commands=[command]).SerializeToString())
    # A hello of 100,000 is over the limit of frames already, so that nobody reads its number.
    number, field = (5, "hello.cursors") if count < 20_000 else (0, "")
    result = await device.result(number)
    assert (reason(result), result.error.field) == ("TOO_LARGE", field)
    await device.hello()
    await device.synced()
    await lives(server, device, conversation)


async def test_ten_thousand_commands_in_flight(server: Server) -> None:
    conversation = await server.direct("alice", "bob")
    device = await server.connect("alice", window=8192)
    total, size = 10_000, 500
    for first in range(0, total, size):
        commands = [
            chat_service_pb2.Command(
                command_id=100 + i,
                send_message=message_pb2.SendMessageRequest(
                    conversation_id=conversation,
                    message_id=new_id(),
                    content=message_pb2.MessageContent(text=f"message {i}"),
                ),
            )
            for i in range(first, first + size)
        ]
        await device.write(chat_service_pb2.ChatRequest(commands=commands).SerializeToString())
    results = device.results
    await device.until(lambda: sum(n >= 100 for n in results) == total)
    refused = {n: r for n, r in results.items() if r.HasField("error")}
    assert {reason(r) for r in refused.values()} <= {"TOO_MANY_IN_FLIGHT"}
    assert all(r.error.HasField("retry_delay") for r in refused.values())
    seqs = [r.send_message.seq for r in results.values() if r.HasField("send_message")]
    assert sorted(seqs) == list(range(2, 2 + len(seqs)))
    history = await server.messages.ListHistory(
        message_service_pb2.ListHistoryRequest(conversation_id=conversation, page_size=1),
        metadata=bearer(token("alice")),
    )
    assert history.events[0].entry.seq == 1 + len(seqs)


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        bearer("nonsense"),
        bearer(token("alice", issuer="somebody else")),
        bearer(token("alice", audience="something else")),
        bearer(token("alice", ttl_s=-60)),
        bearer(token("alice", hs256_secret=b"another secret, which is just as long")),
    ],
    ids=["none", "nonsense", "issuer", "audience", "expired", "secret"],
)
async def test_tokens_that_are_not_believed(
    server: Server, metadata: tuple[tuple[str, str], ...]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.conversations.ListConversations(
            conversation_service_pb2.ListConversationsRequest(), metadata=metadata
        )
    told = refusal(caught.value)
    assert told.code == "UNAUTHENTICATED"
    assert told.reason in {"TOKEN_INVALID", "TOKEN_EXPIRED"}
    device = Device(
        "alice", server.channel.stream_stream("/tidings.v1.ChatService/Chat")(metadata=metadata)
    )
    device.start()
    assert await device.ended() == grpc.StatusCode.UNAUTHENTICATED


async def test_bad_fields_of_unary_calls_are_named(server: Server) -> None:
    conversation = await server.direct("alice", "bob")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.messages.ListHistory(
            message_service_pb2.ListHistoryRequest(conversation_id=conversation, page_size=-1),
            metadata=bearer(token("alice")),
        )
    told = refusal(caught.value)
    assert (told.code, told.reason, told.field) == (
        "INVALID_ARGUMENT",
        "INVALID_FIELD",
        "page_size",
    )


async def test_the_same_id_with_other_content(server: Server) -> None:
    conversation = await server.direct("alice", "bob")
    device = await server.connect("alice")
    message_id = new_id()
    first = await device.send(conversation, "one", message_id=message_id)
    same = await device.send(conversation, "one", message_id=message_id)
    other = await device.send(conversation, "two", message_id=message_id)
    assert same.send_message == first.send_message
    assert reason(other) == "ID_REUSED"
    assert other.error.metadata["seq"] == str(first.send_message.seq)
    await lives(server, device, conversation)
    assert device.texts(conversation) == ["one", "still here"]
