"""Nodes ask each other over real gRPC: who is let in, what breaks, and what a client can't reach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from tests.integration.certificates import Authority
from tests.integration.processes import ServerProcess
from tests.integration.wire import until
from tidings_server.codec.forwarding import change_element, read_outcomes
from tidings_server.core.entries import MessagePosted
from tidings_server.errors import Reason
from tidings_server.messaging.hosting import Host
from tidings_server.messaging.proposals import Committed, Proposal
from tidings_server.presence.base import NodeInfo
from tidings_server.rpc.nodes import NodeLinks, NodeSecurity, NodeServer
from tidings_server.telemetry.counters import Counters
from tidings_server.telemetry.tracing import NO_TRACER

LOG = "0198c1f4-2a3b-8c4d-8e5f-60718293a4b5"
ID = "0198c1f4-2a3b-7c4d-8e5f-60718293a4b5"
KEY = "a key that all nodes share, and nobody else has"


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.cause: str | None = None

    def heard(self, frame: bytes) -> None:
        self.frames.append(frame)

    def broken(self, cause: str) -> None:
        self.cause = cause


def ask(number: int, text: bytes = b"") -> bytes:
    return change_element(number, LOG, ID, "alice", MessagePosted(text), "", "")


@asynccontextmanager
async def server(
    security: NodeSecurity, decide: Callable[[Proposal], None]
) -> AsyncIterator[NodeInfo]:
    listening = NodeServer("127.0.0.1:0", security)
    await listening.start(Host(decide, 500, Counters(), NO_TRACER))
    try:
        yield NodeInfo("there", f"127.0.0.1:{listening.port}")
    finally:
        await listening.stop()


def commit(proposal: Proposal) -> None:
    proposal.done(Committed(7, 1_750_000_000_000))


async def test_changes_go_there_and_outcomes_come_back() -> None:
    async with server(NodeSecurity(KEY), commit) as node:
        heard = Heard()
        link = NodeLinks(NodeSecurity(KEY))(node, heard)
        await until(lambda: heard.frames == [b""])
        for number in range(1, 101):
            link.send(ask(number, b"x" * 10_000))
        link.send(b"")
        await until(lambda: b"" in heard.frames[1:])
        outcomes = [o for frame in heard.frames for o in read_outcomes(frame)]
        await until(lambda: len([o for f in heard.frames for o in read_outcomes(f)]) == 100)
        outcomes = [o for frame in heard.frames for o in read_outcomes(frame)]
        assert [o.number for o in outcomes] == list(range(1, 101))
        assert {(o.seq, o.time_ms, o.problem) for o in outcomes} == {(7, 1_750_000_000_000, None)}
        link.close()
    assert heard.cause is None


@pytest.mark.parametrize("key", ["", KEY[:-1], KEY + "x"])
async def test_who_does_not_know_the_key_is_not_heard(key: str) -> None:
    asked: list[Proposal] = []
    async with server(NodeSecurity(KEY), asked.append) as node:
        heard = Heard()
        link = NodeLinks(NodeSecurity(key))(node, heard)
        link.send(ask(1))
        await until(lambda: heard.cause is not None)
        assert heard.cause is not None
        assert heard.cause.startswith("UNAUTHENTICATED")
    assert heard.frames == []
    assert asked == []


async def test_a_question_is_answered_to_who_knows_the_key() -> None:
    async def witness(frame: bytes) -> bytes:
        if frame == b"wrong":
            raise ValueError("no question")
        return b"told " + frame

    listening = NodeServer("127.0.0.1:0", NodeSecurity(KEY))
    await listening.start(Host(commit, 500, Counters(), NO_TRACER), witness)
    try:
        node = NodeInfo("there", f"127.0.0.1:{listening.port}")
        links = NodeLinks(NodeSecurity(KEY))
        assert await links.ask(node, b"what") == b"told what"
        with pytest.raises(ConnectionError, match="UNAVAILABLE"):
            await links.ask(node, b"wrong")
        for key in ("", KEY + "x"):
            with pytest.raises(ConnectionError, match="UNAUTHENTICATED"):
                await NodeLinks(NodeSecurity(key)).ask(node, b"what")
    finally:
        await listening.stop()
    with pytest.raises(ConnectionError):
        await links.ask(node, b"what")


async def test_a_node_that_is_not_there() -> None:
    async with server(NodeSecurity(KEY), commit) as node:
        pass
    heard = Heard()
    NodeLinks(NodeSecurity(KEY))(node, heard)
    await until(lambda: heard.cause is not None)


async def test_a_node_that_ends() -> None:
    heard = Heard()
    asked: list[Proposal] = []
    async with server(NodeSecurity(KEY), asked.append) as node:
        link = NodeLinks(NodeSecurity(KEY))(node, heard)
        link.send(ask(1))
        await until(lambda: asked)
    await until(lambda: heard.cause is not None)
    # It answers nobody any more, and does not mind.
    asked[0].done(Committed(1, 1))
    await asyncio.sleep(0)
    link.send(ask(2))


async def test_garbage_ends_the_stream() -> None:
    async with server(NodeSecurity(KEY), commit) as node:
        heard = Heard()
        link = NodeLinks(NodeSecurity(KEY))(node, heard)
        link.send(b"\x0a\xff")
        await until(lambda: heard.cause is not None)
        assert heard.cause is not None
        assert heard.cause.startswith("INVALID_ARGUMENT")


def security(authority: Authority, name: str, key: str = "") -> NodeSecurity:
    certificate, private = authority.issue(name)
    return NodeSecurity(key, authority.path, certificate, private)


async def test_certificates(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    asked: list[Proposal] = []
    async with server(security(ours, "one"), asked.append) as node:
        heard = Heard()
        link = NodeLinks(security(ours, "two"))(node, heard)
        await until(lambda: heard.frames == [b""])
        link.close()
        # A stranger's certificate, a certificate of ours that does not believe theirs, and none.
        certificate, private = theirs.issue("stranger")
        for wrong in (
            NodeSecurity("", ours.path, certificate, private),
            security(theirs, "other"),
            NodeSecurity(KEY),
        ):
            heard = Heard()
            NodeLinks(wrong)(node, heard).send(ask(1))
            await until(lambda heard=heard: heard.cause is not None)  # type: ignore[misc]
            assert heard.frames == []
    assert asked == []


async def test_clients_do_not_reach_it(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path, prefix=())
    await process.start()
    try:
        async with grpc.aio.insecure_channel(process.address) as channel:
            append: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
                "/tidings.v1.NodeService/Append"
            )
            call = append(metadata=(("tidings-node-key", KEY),))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert Reason.DENIED.name in str(caught.value.trailing_metadata())
    finally:
        await process.close()


async def test_a_fault_of_who_listens_is_told_to_them() -> None:
    """Or they would wait for this link for ever, and make no other."""

    class Broken(Heard):
        def heard(self, frame: bytes) -> None:
            raise RuntimeError("a bug")

    async with server(NodeSecurity(KEY), commit) as node:
        heard = Broken()
        NodeLinks(NodeSecurity(KEY))(node, heard)
        await until(lambda: heard.cause is not None)
    assert heard.cause == "RuntimeError"
