"""Sessions over real streams: tokens, devices, windows, removal and return, resuming, draining."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import grpc
import pytest

from tests.integration.streams.raw import (
    CHAT,
    Device,
    Server,
    Stream,
    bearer,
    new_id,
    server_on,
    token,
)
from tidings.v1 import (
    chat_service_pb2,
    conversation_pb2,
    conversation_service_pb2,
    event_pb2,
    message_service_pb2,
    receipt_service_pb2,
)
from tidings_server.codec.events import digest_of


def ending(device: Device) -> event_pb2.SessionEnded:
    (ended,) = [e.session_ended for e in device.events if e.HasField("session_ended")]
    assert device.events[-1].HasField("session_ended")
    return ended


async def remove(server: Server, owner: str, conversation: str, user: str) -> int:
    request = conversation_service_pb2.RemoveMemberRequest(
        conversation_id=conversation, request_id=new_id(), user_id=user
    )
    done = await server.conversations.RemoveMember(request, metadata=bearer(token(owner)))
    return int(done.seq)


async def add(server: Server, owner: str, conversation: str, *users: str) -> int:
    request = conversation_service_pb2.AddMembersRequest(
        conversation_id=conversation,
        request_id=new_id(),
        members=[conversation_pb2.Member(user_id=user) for user in users],
    )
    done = await server.conversations.AddMembers(request, metadata=bearer(token(owner)))
    return int(done.seq)


async def history(server: Server, user: str, conversation: str, **fields: object) -> list[int]:
    """The positions of the whole listing, page by page."""
    found: list[int] = []
    page_token = ""
    while True:
        page = await server.messages.ListHistory(
            message_service_pb2.ListHistoryRequest(
                conversation_id=conversation,
                page_token=page_token,
                **fields,  # type: ignore[arg-type]
            ),
            metadata=bearer(token(user)),
        )
        found += [e.entry.seq for e in page.events]
        page_token = page.next_page_token
        if not page_token:
            return found


async def test_a_session_ends_with_its_token(server: Server) -> None:
    device = server.open("alice", ttl_s=2)
    await device.hello()
    await device.synced()
    assert await device.ended() == grpc.StatusCode.UNAUTHENTICATED
    assert any(e.HasField("token_expiring") for e in device.events)
    ended = ending(device)
    assert ended.reconnect
    assert ended.error.reason == 7


async def test_a_token_is_refreshed_in_the_stream(server: Server) -> None:
    device = server.open("alice", ttl_s=3)
    await device.hello()
    await device.synced()
    for wrong in (token("bob"), token("alice", "tablet"), token("alice", issuer="other"), "x"):
        refused = await device.ask(refresh_token=chat_service_pb2.RefreshToken(token=wrong))
        assert refused.error.code == grpc.StatusCode.UNAUTHENTICATED.value[0]
    fresh = chat_service_pb2.RefreshToken(token=token("alice"))
    done = await device.ask(refresh_token=fresh)
    assert done.refresh_token.HasField("token_expire_time")
    short = await server.connect("bob")
    conversation = await server.direct("bob", "alice")
    # Beyond the life of the first token.
    other = server.open("carol", ttl_s=3)
    await other.hello()
    await other.ended()
    await short.send(conversation, "are you there?")
    await device.until(lambda: "are you there?" in device.texts(conversation))


async def test_a_newer_session_of_a_device_ends_the_older(server: Server) -> None:
    older = await server.connect("alice")
    newer = await server.connect("alice")
    assert await older.ended() == grpc.StatusCode.ABORTED
    assert not ending(older).reconnect
    tablet = await server.connect("alice", "tablet")
    conversation = await server.direct("alice", "bob")
    await newer.has(conversation, 1)
    await tablet.has(conversation, 1)


async def test_nothing_past_a_removal(server: Server) -> None:
    conversation = await server.group("alice", "bob", "carol")
    alice, bob = await server.connect("alice"), await server.connect("bob")
    await alice.send(conversation, "hello")
    removed = await remove(server, "alice", conversation, "bob")
    await alice.send(conversation, "between us")
    await bob.until(lambda: any(e.entry.HasField("conversation_left") for e in bob.events))
    refused = await bob.send(conversation, "me too")
    assert refused.error.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert bob.seqs(conversation) == list(range(1, removed + 1))
    returned = await add(server, "alice", conversation, "bob")
    await bob.has(conversation, returned)
    (skipped,) = [e.skipped for e in bob.events if e.HasField("skipped")]
    assert (skipped.from_seq, skipped.to_seq) == (removed + 1, returned - 1)
    assert bob.texts(conversation) == ["hello"]
    assert await history(server, "bob", conversation) == [
        *range(returned, returned - 1, -1),
        *range(removed, 0, -1),
    ]
    again = await server.connect("bob", "tablet")
    assert "between us" not in again.texts(conversation)


async def test_a_device_that_lags_gets_nothing_past_a_removal(server: Server) -> None:
    conversation = await server.group("alice", "bob")
    alice, bob = await server.connect("alice"), await server.connect("bob", window=3)
    for i in range(10):
        await alice.send(conversation, f"message {i}")
    removed = await remove(server, "alice", conversation, "bob")
    await alice.send(conversation, "between us")
    while removed not in bob.seqs(conversation):
        newest = max(bob.seqs(conversation))
        await bob.ack(conversation, newest)
        await bob.ack("inbox:bob", max(bob.seqs("inbox:bob")))
        await bob.until(lambda newest=newest: max(bob.seqs(conversation)) > newest)  # type: ignore[misc]
    await bob.ack(conversation, removed)
    await bob.until(lambda: any(e.entry.HasField("conversation_left") for e in bob.events))
    assert bob.seqs(conversation) == list(range(1, removed + 1))


async def test_the_window_bounds_what_is_sent(server: Server) -> None:
    conversation = await server.direct("alice", "bob")
    alice, bob = await server.connect("alice"), await server.connect("bob", window=10)
    for i in range(50):
        await alice.send(conversation, f"message {i}")
    # The inbox's entry is one of the ten.
    assert len(bob.seqs(conversation)) == 9
    await bob.ack(conversation, 9)
    await bob.has(conversation, 18)
    await bob.ack(conversation, 10**9)
    await bob.ack("inbox:bob", 1)
    await bob.ack("inbox:alice", 5)
    await bob.has(conversation, 28)
    assert bob.seqs(conversation) == list(range(1, len(bob.seqs(conversation)) + 1))


async def test_a_device_that_does_not_read_holds_little(server: Server) -> None:
    conversation = await server.direct("alice", "bob")
    alice = await server.connect("alice")
    chat: Stream = server.channel.stream_stream(CHAT)
    deaf = chat(metadata=bearer(token("bob")))
    hello = chat_service_pb2.Command(command_id=1, hello=chat_service_pb2.Hello(window=8192))
    await deaf.write(chat_service_pb2.ChatRequest(commands=[hello]).SerializeToString())
    text = "x" * 16_000
    for _ in range(10):
        await asyncio.gather(*(alice.send(conversation, text) for _ in range(100)))
        await alice.ack(conversation, max(alice.seqs(conversation)))
    (session,) = [s for s in server.node.hub.sessions if s.principal.user_id == "bob"]
    assert session.outbox.bytes <= server.node.limits.outbox_bytes + (256 << 10)
    assert server.node.counters.outbox_overflows > 0
    deaf.cancel()
    cursor = chat_service_pb2.Cursor(conversation_id=conversation, seq=0)
    bob = await server.connect("bob", window=8192, cursors=[cursor])
    await bob.has(conversation, 1001)
    assert bob.seqs(conversation) == list(range(1, 1002))


async def test_a_device_comes_back_to_what_it_missed(server: Server) -> None:
    conversation = await server.direct("alice", "bob")
    alice, bob = await server.connect("alice"), await server.connect("bob")
    await alice.send(conversation, "one")
    await bob.has(conversation, 2)
    await bob.close()
    for text in ("two", "three"):
        await alice.send(conversation, text)
    later = await server.group("alice", "bob")
    cursor = chat_service_pb2.Cursor
    back = await server.connect(
        "bob",
        cursors=[
            cursor(conversation_id=conversation, seq=2),
            cursor(conversation_id="inbox:bob", seq=1),
        ],
    )
    assert back.texts(conversation) == ["two", "three"]
    assert back.seqs(later) == [1]
    assert back.seqs("inbox:bob") == [2]


async def test_remembered_cursors_serve_a_device_that_names_none(server: Server) -> None:
    conversation = await server.direct("alice", "bob")
    alice, bob = await server.connect("alice"), await server.connect("bob")
    await alice.send(conversation, "one")
    await bob.has(conversation, 2)
    await bob.ack(conversation, 2)
    await bob.ack("inbox:bob", 1)
    await alice.until(lambda: any(e.receipt.delivered_seq == 2 for e in alice.events))
    await bob.close()
    await alice.send(conversation, "two")
    back = await server.connect("bob")
    assert back.texts(conversation) == ["two"]
    gaps = {
        e.gap.conversation_id: (e.gap.from_seq, e.gap.to_seq)
        for e in back.events
        if e.HasField("gap")
    }
    assert gaps == {conversation: (1, 2), "inbox:bob": (1, 1)}


async def test_a_new_device_gets_the_newest(server: Server) -> None:
    conversation = await server.direct("alice", "bob")
    alice = await server.connect("alice")
    for i in range(120):
        await alice.send(conversation, f"message {i}")
    bob = await server.connect("bob", "new")
    (gap,) = [e.gap for e in bob.events if e.HasField("gap")]
    assert (gap.from_seq, gap.to_seq) == (1, 71)
    assert bob.seqs(conversation) == list(range(72, 122))
    limited = server.open("bob", "limited")
    await limited.hello(
        cursors=[chat_service_pb2.Cursor(conversation_id=conversation, seq=1)], catch_up_limit=5
    )
    await limited.synced()
    assert limited.seqs(conversation) == list(range(117, 122))
    gaps = [e.gap for e in limited.events if e.gap.conversation_id == conversation]
    assert [(g.from_seq, g.to_seq) for g in gaps] == [(2, 116)]


async def test_history_from_any_position_with_any_page_size(server: Server) -> None:
    conversation = await server.direct("alice", "bob")
    alice = await server.connect("alice")
    total = 40
    for i in range(total - 1):
        await alice.send(conversation, f"message {i}")
    rng = random.Random(3)
    for page_size in (1, 2, 7, 40, 41, 5000):
        for start in (0, 1, total, total + 5, rng.randint(2, total - 1)):
            up = await history(
                server, "bob", conversation, from_seq=start, order=1, page_size=page_size
            )
            assert up == list(range(max(start, 1), total + 1))
            down = await history(
                server, "bob", conversation, from_seq=start, order=2, page_size=page_size
            )
            assert down == list(range(min(start or total, total), 0, -1))


async def test_pipelined_messages_keep_their_order(server: Server) -> None:
    conversation = await server.direct("alice", "bob")
    alice, bob = await server.connect("alice"), await server.connect("bob")
    ids = [new_id() for _ in range(50)]
    missing = await alice.send(conversation, "no", after_message_id=new_id())
    assert missing.error.reason == 14
    results = await asyncio.gather(
        *(
            alice.send(conversation, str(i), message_id=m, after_message_id=ids[i - 1] if i else "")
            for i, m in enumerate(ids)
        )
    )
    assert [r.send_message.seq for r in results] == list(range(2, 52))
    await bob.has(conversation, 51)
    assert bob.texts(conversation) == [str(i) for i in range(50)]


async def test_unread_is_a_difference_of_ordinals(server: Server) -> None:
    conversation = await server.group("alice", "bob")
    alice = await server.connect("alice")
    for i in range(5):
        await alice.send(conversation, f"message {i}")
    await add(server, "alice", conversation, "carol")
    await alice.send(conversation, "welcome")

    async def unread(user: str) -> int:
        got = await server.receipts.GetUnread(
            receipt_service_pb2.GetUnreadRequest(), metadata=bearer(token(user))
        )
        return int(got.total)

    assert (await unread("bob"), await unread("carol")) == (6, 1)
    read = receipt_service_pb2.MarkReadRequest(conversation_id=conversation, seq=4)
    done = await server.receipts.MarkRead(read, metadata=bearer(token("bob")))
    assert (done.read_seq, done.unread_count) == (4, 3)
    back = receipt_service_pb2.MarkReadRequest(conversation_id=conversation, seq=2)
    done = await server.receipts.MarkRead(back, metadata=bearer(token("bob")))
    assert (done.read_seq, done.unread_count) == (4, 3)
    beyond = receipt_service_pb2.MarkReadRequest(conversation_id=conversation, seq=999)
    done = await server.receipts.MarkRead(beyond, metadata=bearer(token("bob")))
    assert (done.read_seq, done.unread_count) == (8, 0)
    await alice.until(lambda: any(e.receipt.read_seq == 8 for e in alice.events))
    assert (await unread("bob"), await unread("carol")) == (0, 1)


async def test_beacons_carry_the_digest_of_the_positions(tmp_path: Path) -> None:
    async with server_on(tmp_path, limits={"beacon_interval_ms": 200}) as server:
        conversation = await server.direct("alice", "bob")
        alice = await server.connect("alice")
        await alice.send(conversation, "hello")
        await alice.has(conversation, 2)
        expected = digest_of([("inbox:alice", 1), (conversation, 2)])
        await alice.until(
            lambda: any(
                (e.beacon.digest, e.beacon.conversations) == expected and e.beacon.level
                for e in alice.events
            )
        )


async def test_a_drain_sends_everybody_away_and_finishes_what_was_begun(tmp_path: Path) -> None:
    async with server_on(tmp_path) as server:
        conversation = await server.direct("alice", "bob")
        alice = await server.connect("alice")
        sending = [asyncio.create_task(alice.send(conversation, f"{i}")) for i in range(50)]
        await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
        node, port = server.node, server.running.port
        node.announce_drain(100)
        refused = server.open("carol")
        result = await refused.hello()
        assert result.error.reason == 17
        await node.stop()
        results = await asyncio.gather(*sending)
        assert all(r.HasField("send_message") for r in results)
        assert await alice.ended() == grpc.StatusCode.UNAVAILABLE
        assert any(e.HasField("going_away") for e in alice.events)
        assert ending(alice).reconnect
        assert port
    async with server_on(tmp_path) as server:
        assert await history(server, "bob", conversation) == list(range(51, 0, -1))


@pytest.mark.parametrize("size", [600])
async def test_a_large_group_is_posted_to_without_listing_it(
    server: Server, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = await server.group("alice", "bob")
    users = [f"user{i}" for i in range(size)]
    for first in range(0, size, 200):
        await add(server, "alice", conversation, *users[first : first + 200])
    alice, last = await server.connect("alice"), await server.connect(users[-1])
    read: list[int] = []
    memberships = server.node.store.memberships

    async def counting(log: str, asked: list[str]) -> object:
        read.append(len(asked))
        return await memberships(log, asked)

    async def never(*_: object, **__: object) -> None:
        raise AssertionError("the member list was read")

    monkeypatch.setattr(server.node.store, "memberships", counting)
    monkeypatch.setattr(server.node.store, "list_memberships", never)
    sent = await alice.send(conversation, "hello, all")
    await last.has(conversation, sent.send_message.seq)
    answered = await last.send(conversation, "hello, alice")
    await alice.has(conversation, answered.send_message.seq)
    assert all(count <= 1 for count in read)
