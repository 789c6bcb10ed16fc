"""A whole server: one traced message from its command to its delivery, and what was counted on the way."""

from __future__ import annotations

import asyncio
import random
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from tests.unit.otlp_sink import OtlpSink, otlp_sink
from tests.unit.tokens import SECRET
from tidings.v1 import chat_service_pb2, conversation_service_pb2, message_service_pb2_grpc
from tidings.v1.chat_service_pb2_grpc import ChatServiceStub
from tidings.v1.conversation_pb2 import CONVERSATION_KIND_DIRECT
from tidings.v1.conversation_service_pb2_grpc import ConversationServiceStub
from tidings.v1.message_pb2 import MessageContent, SendMessageRequest
from tidings_server.app import serving
from tidings_server.auth import TokenPolicy, mint
from tidings_server.config import Settings
from tidings_server.core.clock import SystemClock
from tidings_server.core.ids import uuid7

TRACE = "0af7651916cd43dd8448eb211c80319c"


def metadata(user: str, **more: str) -> tuple[tuple[str, str], ...]:
    policy = TokenPolicy(hs256_secret=SECRET)
    token = mint(policy, SystemClock(), user, "phone", ttl_s=600)
    return (("authorization", f"Bearer {token}"), *more.items())


def settings(folder: Path, sink: OtlpSink, ratio: float) -> Settings:
    made: Any = {
        "grpc": {"listen": "127.0.0.1:0"},
        "bridge": {"enabled": False},
        "metrics": {"listen": "127.0.0.1:0"},
        "store": {"path": folder / "tidings.db"},
        "auth": {"hs256_secret": SECRET.decode()},
        "drain": {"delay_spread_s": 0, "grace_s": 1},
        "otel": {"otlp_endpoint": sink.endpoint, "trace_sample_ratio": ratio},
    }
    return Settings(**made)


async def scrape(port: int) -> str:
    def get() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(get)


async def test_a_message_is_traced_and_counted(tmp_path: Path) -> None:
    with otlp_sink() as sink:
        async with (
            serving(settings(tmp_path, sink, 0.0)) as running,
            grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel,
        ):
            chat = ChatServiceStub(channel).Chat(metadata=metadata("bob"))
            hello = chat_service_pb2.Command(command_id=1, hello=chat_service_pb2.Hello())
            await chat.write(chat_service_pb2.ChatRequest(commands=[hello]))
            async for frame in chat:
                if any(e.HasField("sync_complete") for e in frame.events):
                    break
            created = await ConversationServiceStub(channel).CreateConversation(
                conversation_service_pb2.CreateConversationRequest(
                    kind=CONVERSATION_KIND_DIRECT, user_ids=["bob"]
                ),
                metadata=metadata("alice"),
            )
            now = SystemClock().now_ms()
            await message_service_pb2_grpc.MessageServiceStub(channel).SendMessage(
                SendMessageRequest(
                    conversation_id=created.conversation.conversation_id,
                    message_id=uuid7(now, random.Random(now)),
                    content=MessageContent(text="hello, bob"),
                ),
                metadata=metadata("alice", traceparent=f"00-{TRACE}-b7ad6b7169203331-01"),
            )
            async for frame in chat:
                if any(e.entry.message.text == "hello, bob" for e in frame.events):
                    break
            assert running.metrics_port is not None
            text = await scrape(running.metrics_port)
            chat.cancel()
        spans = {s.name: s for s in sink.spans if s.trace_id.hex() == TRACE}
        exported = sink.metrics

    (command,) = (s for s in spans.values() if s.parent_span_id.hex() == "b7ad6b7169203331")
    commit, publish, delivery = spans["commit"], spans["publish"], spans["delivery"]
    assert commit.parent_span_id == command.span_id
    above = {s.span_id for s in spans.values()}
    assert publish.parent_span_id in above
    assert delivery.parent_span_id in above
    assert "hello, bob" not in repr(sink.spans)
    assert "alice" not in repr(sink.spans)

    assert 'tidings_commands_total{code="OK",command="send_message"} 1.0' in text
    assert "tidings_sessions 1.0" in text
    assert "tidings_sessions_opened_total 1.0" in text
    for histogram in ("commit_duration_seconds", "delivery_duration_seconds", "commit_entries"):
        assert f"tidings_{histogram}_count 0.0" not in text
    assert "tidings_delivered_entries_total 0.0" not in text
    assert 'tidings_frames_total{direction="out"} 0.0' not in text
    assert "tidings_store_" in text
    assert exported["tidings.commits"].sum.data_points[0].as_int >= 3


async def test_commands_of_a_stream_are_linked_to_its_opening(tmp_path: Path) -> None:
    with otlp_sink() as sink:
        async with (
            serving(settings(tmp_path, sink, 1.0)) as running,
            grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel,
        ):
            opening = f"00-{TRACE}-b7ad6b7169203331-01"
            chat = ChatServiceStub(channel).Chat(metadata=metadata("bob", traceparent=opening))
            commands = [
                chat_service_pb2.Command(command_id=1, hello=chat_service_pb2.Hello()),
                chat_service_pb2.Command(
                    command_id=2,
                    create_conversation=conversation_service_pb2.CreateConversationRequest(
                        kind=CONVERSATION_KIND_DIRECT, user_ids=["alice"]
                    ),
                ),
            ]
            await chat.write(chat_service_pb2.ChatRequest(commands=commands))
            async for frame in chat:
                if any(e.result.command_id == 2 for e in frame.events):
                    break
            chat.cancel()
        (span,) = (s for s in sink.spans if s.name == "create_conversation")
    assert not span.parent_span_id
    assert span.trace_id.hex() != TRACE
    assert [link.trace_id.hex() for link in span.links] == [TRACE]
