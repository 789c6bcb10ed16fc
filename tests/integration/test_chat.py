"""The way of a message over real streams: to every device, in order, once."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import grpc
import pytest

from tests.integration.conftest import Serve, Served
from tests.integration.wire import (
    ChatRequest,
    Command,
    message,
    metadata,
    new_id,
    refused,
    token,
    until,
)
from tidings.v1 import (
    chat_service_pb2,
    conversation_service_pb2,
    event_pb2,
    message_service_pb2,
    presence_service_pb2,
    receipt_service_pb2,
)
from tidings_server.core.ids import inbox_log


async def test_a_message_reaches_every_device(server: Served) -> None:
    alice = server.caller("alice")
    log = await alice.group("bob", "carol")
    devices = [
        await server.device("alice"),
        await server.device("bob"),
        await server.device("bob", "tablet"),
        await server.device("carol"),
    ]
    stranger = await server.device("mallory")
    assert await devices[1].post(log, "hello") == 2
    assert await alice.post(log, "welcome") == 3
    for device in devices:
        await device.level(log, 3)
        assert device.texts(log) == ["hello", "welcome"]
    assert not stranger.of("entry")


async def test_many_senders_at_once(server: Served) -> None:
    users = [f"user-{i}" for i in range(6)]
    log = await server.caller(users[0]).group(*users[1:])
    devices = [await server.device(user) for user in users]
    sent: dict[str, list[str]] = {user: [] for user in users}
    for burst in range(10):
        for device in devices:
            commands = []
            for i in range(5):
                text = f"{device.user} {burst} {i}"
                sent[device.user].append(text)
                commands.append(device.message(log, text))
            await device.send(*commands)
    total = 1 + 6 * 50
    for device in devices:
        await device.level(log, total)
    # All agree, each sender's order is kept, and each sender was told the position that all see.
    texts = devices[0].texts(log)
    assert all(device.texts(log) == texts for device in devices)
    for device in devices:
        assert [t for t in texts if t.startswith(f"{device.user} ")] == sent[device.user]
        seqs = [r.send_message.seq for r in device.results() if r.HasField("send_message")]
        assert [texts[seq - 2] for seq in seqs] == sent[device.user]
    history = await server.caller(users[3]).history(log, size=7)
    assert [e.entry.message.text for e in history[1:]] == texts


async def test_order_over_predecessors_with_losses(server: Served) -> None:
    """A sender who names predecessors keeps the order, though half of what they send is refused at first."""
    log = await server.caller("alice").group("bob")
    alice = await server.device("alice")
    ids = [new_id() for _ in range(40)]
    rng = random.Random(1)
    left = list(range(40))
    while left:
        some = [i for i in left if rng.random() < 0.5]
        commands = [
            alice.message(log, str(i), change_id=ids[i], after=ids[i - 1] if i else "")
            for i in some
        ]
        if commands:
            await alice.send(*commands)
        for i, command in zip(some, commands, strict=True):
            result = await alice.result(command.command_id)
            if result.HasField("send_message"):
                assert result.send_message.seq == i + 2
                left.remove(i)
            else:
                assert result.error.field == "send_message.after_message_id"
    await alice.level(log, 41)
    assert alice.texts(log) == [str(i) for i in range(40)]


async def test_who_comes_back_skips_what_was_between(server: Served) -> None:
    owner = server.caller("alice")
    log = await owner.group("bob")
    bob = await server.device("bob")
    removed = await owner.remove(log, "bob")
    for i in range(5):
        await owner.post(log, f"hidden {i}")
    back = await owner.add(log, "bob")
    await owner.post(log, "shown")
    await bob.level(log, back + 1)
    (skipped,) = [e.skipped for e in bob.of("skipped")]
    assert (skipped.from_seq, skipped.to_seq) == (removed + 1, back - 1)
    assert bob.texts(log) == ["shown"]
    # A device that comes from anywhere is told the same.
    for start in (0, 1, removed, removed + 2, back):
        tablet = await server.device("bob", f"tablet-{start}", cursors={log: start})
        assert tablet.applied(log, start) == back + 1
        assert tablet.texts(log) == ["shown"]


async def test_a_client_that_says_all_it_has_to_say(server: Served) -> None:
    """As command line tools do: every command is answered, though the client has closed its side."""
    log = await server.caller("alice").group("bob")
    alice = server.connect("alice")
    alice.read_on()
    hello = Command(command_id=alice.number(), hello=chat_service_pb2.Hello())
    posts = [alice.message(log, str(i)) for i in range(50)]
    await alice.send(hello, *posts)
    await alice.done_writing()
    ended = await alice.over()
    assert ended.code is grpc.StatusCode.OK
    assert len(alice.results()) == 51
    assert all(r.HasField("send_message") for r in alice.results() if r.command_id != 1)
    assert alice.of("sync_complete")


async def test_a_client_that_says_nothing(server: Served) -> None:
    alice = server.connect("alice")
    alice.read_on()
    await alice.done_writing()
    assert (await alice.over()).code is grpc.StatusCode.OK
    assert not alice.events


async def test_a_client_that_vanishes_leaves_nothing(server: Served) -> None:
    log = await server.caller("alice").group("bob")
    bob = await server.device("bob")
    assert server.node.hub.joined(log)
    await bob.close()
    await until(lambda: not server.node.hub.joined(log))
    assert server.node.counters.sessions == 0


async def test_receipts_are_told_and_kept(server: Served) -> None:
    alice, bob = server.caller("alice"), server.caller("bob")
    log = await alice.direct("bob")
    phone = await server.device("alice")
    tablet = await server.device("bob", "tablet")
    seq = await alice.post(log, "read me")
    await tablet.level(log, seq)
    await tablet.send(acks=[(log, seq)])
    await phone.until(lambda: phone.of("receipt"))
    assert phone.of("receipt")[-1].receipt == event_pb2.ReceiptUpdate(
        conversation_id=log, user_id="bob", delivered_seq=seq
    )
    unread = await bob.receipts.GetUnread(
        receipt_service_pb2.GetUnreadRequest(), metadata=bob.metadata
    )
    assert unread.total == 1
    read = Command(command_id=tablet.number())
    read.mark_read.conversation_id, read.mark_read.seq = log, seq
    await tablet.send(read)
    answer = (await tablet.result(read.command_id)).mark_read
    assert (answer.read_seq, answer.unread_count) == (seq, 0)
    await phone.until(lambda: phone.of("receipt")[-1].receipt.read_seq == seq)
    listed = await alice.receipts.ListReceipts(
        receipt_service_pb2.ListReceiptsRequest(conversation_id=log), metadata=alice.metadata
    )
    assert [(r.user_id, r.delivered_seq, r.read_seq) for r in listed.receipts] == [
        ("bob", seq, seq)
    ]


async def test_presence(server: Served) -> None:
    alice = server.caller("alice")
    await alice.direct("bob")
    request = presence_service_pb2.GetPresenceRequest(user_ids=["bob", "mallory"])

    async def bobs() -> presence_service_pb2.Presence:
        answer = await alice.presence.GetPresence(request, metadata=alice.metadata)
        (presence,) = answer.presences
        assert isinstance(presence, presence_service_pb2.Presence)
        return presence

    assert not (await bobs()).online
    bob = await server.device("bob")
    assert (await bobs()).online
    status = Command(command_id=bob.number())
    status.set_status.status_text = "at work"
    status.set_status.availability = presence_service_pb2.AVAILABILITY_AWAY
    await bob.send(status)
    await bob.result(status.command_id)
    presence = await bobs()
    assert (presence.online, presence.status_text) == (True, "at work")
    assert presence.availability == presence_service_pb2.AVAILABILITY_AWAY


async def test_conversations_are_seen_alike_whichever_way(server: Served) -> None:
    """The result of a command on the stream is the response of the unary call."""
    caller = server.caller("alice")
    device = await server.device("alice")
    create = Command(command_id=device.number())
    create.create_conversation.kind = 2  # type: ignore[assignment]
    create.create_conversation.title = "Plan"
    create.create_conversation.request_id = new_id()
    create.create_conversation.user_ids.append("bob")
    await device.send(create)
    made = (await device.result(create.command_id)).create_conversation.conversation
    again = await caller.conversations.CreateConversation(
        create.create_conversation, metadata=caller.metadata
    )
    got = await caller.conversations.GetConversation(
        conversation_service_pb2.GetConversationRequest(conversation_id=made.conversation_id),
        metadata=caller.metadata,
    )
    assert made == again.conversation == got.conversation
    listed = await caller.conversations.ListConversations(
        conversation_service_pb2.ListConversationsRequest(), metadata=caller.metadata
    )
    assert list(listed.conversations) == [made]
    await device.level(made.conversation_id, 1)
    await device.level(inbox_log("alice"), 1)


async def test_state_and_events_agree_with_what_is_fetched(server: Served) -> None:
    """What a device was sent is what history tells, byte for byte, inbox included."""
    caller = server.caller("alice")
    logs = [await caller.group("bob", title=f"group {i}") for i in range(3)]
    bob = await server.device("bob")
    rng = random.Random(5)
    for i in range(60):
        log = rng.choice(logs)
        match rng.randrange(8):
            case 0:
                await caller.add(log, f"user-{i}")
            case 1 if log != logs[0]:
                await caller.remove(log, "bob")
                await caller.add(log, "bob")
            case _:
                await caller.post(log, f"text {i}")
    fetched = server.caller("bob")
    for log in (*logs, inbox_log("bob")):
        history = await fetched.history(log, size=9)
        await bob.level(log, history[-1].entry.seq)
        got = [e for e in bob.of("entry") if e.entry.conversation_id == log]
        assert got == history
        backwards = await fetched.history(log, size=4, ascending=False)
        assert backwards == history[::-1]


# Statuses


async def test_the_stream_ends_with_the_reason(server: Served) -> None:
    older = await server.device("alice")
    await server.device("alice")
    problem = await older.over()
    assert (problem.code, problem.reason) == (grpc.StatusCode.ABORTED, "SESSION_REPLACED")
    assert problem.details
    assert older.events[-1].WhichOneof("event") == "session_ended"


async def test_a_session_ends_with_its_token(server: Served) -> None:
    alice = server.connect("alice", bearer=token("alice", ttl_s=2))
    await alice.open()
    assert alice.of("token_expiring")
    problem = await alice.over()
    assert (problem.code, problem.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")


async def test_unary_errors_carry_details(server: Served) -> None:
    alice = server.caller("alice")
    log = await alice.group("bob")
    change = new_id()
    await alice.post(log, "one", change_id=change)
    call = alice.messages.SendMessage(message(log, "two", change), metadata=alice.metadata)
    problem = await refused(call)
    assert (problem.code, problem.reason, problem.field, problem.retry) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "ID_REUSED",
        "message_id",
        False,
    )
    call = alice.messages.ListHistory(
        message_service_pb2.ListHistoryRequest(conversation_id=new_id()), metadata=alice.metadata
    )
    problem = await refused(call)
    assert (problem.code, problem.reason, problem.field) == (
        grpc.StatusCode.NOT_FOUND,
        "CONVERSATION_NOT_FOUND",
        "conversation_id",
    )


@pytest.mark.parametrize("raw", [b"\xff", b"\x0a\x05ab", b"\x0a\x01\xff"])
async def test_garbage_in_a_unary_call(server: Served, raw: bytes) -> None:
    channel = server.caller("alice").channel
    send: Any = channel.unary_unary("/tidings.v1.MessageService/SendMessage")
    problem = await refused(send(raw, metadata=metadata("alice")))
    assert (problem.code, problem.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "MALFORMED_FRAME",
    )


async def test_a_caller_who_hangs_up_leaves_nothing_half_done(server: Served) -> None:
    alice = server.caller("alice")
    log = await alice.group("bob")
    for i in range(20):
        call = alice.messages.SendMessage(message(log, str(i)), metadata=alice.metadata)
        await asyncio.sleep(0)
        call.cancel()
    seq = await alice.post(log, "last")
    history = await alice.history(log)
    assert [e.entry.seq for e in history] == list(range(1, seq + 1))
    assert history[-1].entry.message.text == "last"


async def test_answers_that_nobody_reads_do_not_pile_up(serve: Serve) -> None:
    """Frames are read from the stream only while there is room for what they bring about."""
    server = await serve(limits={"outbox_bytes": 262_144})
    log = await server.caller("alice").group("bob")
    alice = await server.device("alice")
    (session,) = server.node.hub.sessions
    alice.stop_reading()
    frame = ChatRequest(commands=[Command(command_id=7)] * 1000).SerializeToString()
    before = server.node.counters.frames_in

    async def flood() -> None:
        for _ in range(100):
            await alice.write(frame)

    flooding = asyncio.get_running_loop().create_task(flood())
    await until(lambda: session.outbox.congested)
    # The transport takes what fits into its window; the rest is not even read.
    assert session.outbox.bytes < 2 * 262_144
    assert server.node.counters.frames_in < before + 100
    alice.read_on()
    await flooding
    await alice.until(lambda: len(alice.events) >= 100_000)
    assert await alice.post(log, "there is room again") == 2
