"""What an operator asks of a running server from the command line."""

from __future__ import annotations

import re
from collections.abc import Callable

import grpc
import pytest

from tests.unit.test_cli import DEADLINE_S, Run, Server, found, run, serve
from tidings.v1.conversation_service_pb2 import ListConversationsRequest
from tidings.v1.conversation_service_pb2_grpc import ConversationServiceStub

__all__ = ["run", "serve"]


@pytest.fixture
def demo(serve: Callable[..., Server]) -> tuple[str, str]:
    """The address of a server with demo people, and the id of a conversation of alice and bob."""
    welcome = serve("--demo").welcome()
    address = found(r"^    API +(\S+)", welcome)
    token = found(r"^    alice +(eyJ\S+)$", welcome)
    with grpc.insecure_channel(address) as channel:
        answer = ConversationServiceStub(channel).ListConversations(
            ListConversationsRequest(page_size=200),
            metadata=(("authorization", f"Bearer {token}"),),
            timeout=DEADLINE_S,
        )
    (log,) = [c.conversation_id for c in answer.conversations if c.peer_user_id == "bob"]
    return address, log


def test_an_operator_asks(demo: tuple[str, str], run: Run) -> None:
    address, log = demo
    code, out, err = run("nodes", "--server", address)
    assert (code, err) == (0, "")
    assert re.search(r"^\S+  \S+  \S+  serving, answering: 0 sessions of 0 users, 0 logs", out)
    assert run("sessions", "--server", address) == (0, "", "")
    assert run("sessions", "bob", "--server", address) == (0, "", "")
    code, out, err = run("explain", log, "2", "bob", "--device", "desk", "--server", address)
    assert (code, err) == (0, "")
    first, *facts = out.splitlines()
    assert re.match(r"OFFLINE: message \S+ of \S+ at 2 \(head \d+; asked of node \S+\)$", first)
    assert any(re.match(r"  yes     committed: It was committed at 2 by node ", f) for f in facts)
    assert any(f.startswith("  no      written [desk]: ") for f in facts)
    message_id = first.split()[2]
    code, out, _ = run("explain", log, message_id, "mallory", "--server", address)
    assert (code, out.splitlines()[0].split(":")[0]) == (0, "NOT_FOR_USER")
    assert "  no      visible: The user never was a member.\n" in out


def test_what_goes_wrong_is_one_line(
    demo: tuple[str, str],
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, log = demo
    _, token, _ = run("token", "alice")
    code, out, err = run("nodes", "--server", address, "--token", token.strip())
    assert (code, out) == (1, "")
    assert err.startswith(f"tidings-server: {address}: PERMISSION_DENIED: ")
    assert err.count("\n") == 1
    _, token, _ = run("token", "somebody", "--admin")
    monkeypatch.setenv("TIDINGS_ADMIN_TOKEN", token.strip())
    monkeypatch.setenv("TIDINGS_SERVER", address)
    assert run("nodes")[0] == 0
    code, out, err = run("explain", log, "no id", "bob")
    assert (code, out) == (1, "")
    assert err.startswith(f"tidings-server: {address}: INVALID_ARGUMENT: message_id")
    code, out, err = run("nodes", "--server", "127.0.0.1:1")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("tidings-server: 127.0.0.1:1: UNAVAILABLE: ")


def test_without_a_secret_a_token_must_be_given(run: Run) -> None:
    code, out, err = run("nodes")
    assert (code, out) == (2, "")
    assert "auth.hs256_secret is not set" in err
