"""The parts of the bridge that need no socket: close codes, origins, rates, subprotocols."""

from __future__ import annotations

import pytest
from google.protobuf import json_format

from tidings.v1 import bridge_pb2, chat_service_pb2, event_pb2
from tidings_server.bridge.closing import Close, close_for, close_of
from tidings_server.bridge.gate import Origins, Rates
from tidings_server.bridge.messages import SUBPROTOCOLS, Json, Proto
from tidings_server.errors import CODES, DomainError, Reason

STOPS = {
    Reason.INVALID_FIELD,
    Reason.UNKNOWN_FIELD,
    Reason.MALFORMED_FRAME,
    Reason.TOKEN_INVALID,
    Reason.CONVERSATION_NOT_FOUND,
    Reason.MESSAGE_NOT_FOUND,
    Reason.RIGHT_MISSING,
    Reason.DENIED,
    Reason.ID_REUSED,
    Reason.ID_AHEAD,
    Reason.POSITION_AHEAD,
    Reason.SESSION_REPLACED,
    Reason.MEMBER_NOT_FOUND,
    Reason.MUTED,
}


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_has_a_code(reason: Reason) -> None:
    base = 4100 if reason in STOPS else 4000
    assert close_of(DomainError(reason, "why")) == Close(base + CODES[reason], reason.name)


def test_a_token_that_could_not_be_checked_may_be_shown_again() -> None:
    problem = DomainError(Reason.TOKEN_INVALID, "why", retry_after_ms=5000)
    assert close_of(problem) == Close(4016, "TOKEN_INVALID")


def test_a_status_without_a_reason_may_be_tried_again() -> None:
    for status in range(1, 17):
        assert close_for(status, "UNKNOWN", "") == Close(4000 + status, "UNKNOWN")
    # What a newer server says is judged by its status.
    assert close_for(3, "INVALID_ARGUMENT", "SOMETHING_NEW") == Close(4103, "SOMETHING_NEW")
    assert close_for(8, "RESOURCE_EXHAUSTED", "SOMETHING_NEW") == Close(4008, "SOMETHING_NEW")
    assert len(close_for(14, "UNAVAILABLE", "x" * 1000).reason) == 123


def test_origins() -> None:
    origins = Origins(("https://chat.example.com", "http://localhost:5173"))
    for origin, host, allowed in (
        (None, None, True),
        (None, "chat.example.com", True),
        ("https://chat.example.com", "other", True),
        ("http://localhost:5173", "localhost:8080", True),
        ("http://localhost:8080", "localhost:8080", True),
        ("http://LOCALHOST:8080", "localhost:8080", True),
        ("http://localhost", "localhost:8080", False),
        ("http://chat.example.com", "other", False),
        ("https://chat.example.com.evil.org", "other", False),
        ("https://evil.org", "chat.example.com", False),
        ("null", "chat.example.com", False),
        ("", "chat.example.com", False),
        ("", "", False),
        ("https://evil.org", None, False),
    ):
        assert origins.allows(origin, host) is allowed, (origin, host)
    assert Origins(("*",)).allows("https://evil.org", "chat.example.com")


def test_rates() -> None:
    now = 0.0
    rates = Rates(2, 3, lambda: now)
    assert [rates.take("a") for _ in range(5)] == [True, True, True, False, False]
    assert rates.take("b")
    now = 0.5
    assert [rates.take("a") for _ in range(2)] == [True, False]
    now = 1000.0
    assert [rates.take("a") for _ in range(4)] == [True, True, True, False]
    for i in range(20_000):
        rates.take(f"{i}")
    # Forgotten, like whoever came long ago.
    assert rates.take("a")
    assert len(rates._left) <= 10_000


@pytest.mark.parametrize("subprotocol", [Proto(), Json()])
def test_frames_go_through(subprotocol: Proto | Json) -> None:
    assert subprotocol.name in SUBPROTOCOLS
    events = [event_pb2.Event(entry={"conversation_id": "ü", "seq": 1 << 60})] * 50  # type: ignore[arg-type]
    frame = chat_service_pb2.ChatResponse(events=events).SerializeToString()
    back = chat_service_pb2.ChatResponse()
    for message in subprotocol.write(frame):
        if isinstance(subprotocol, Proto):
            back.MergeFromString(message)
        else:
            back.MergeFrom(_response(message))
    assert back.SerializeToString() == frame


def _response(message: bytes) -> chat_service_pb2.ChatResponse:
    return json_format.Parse(message, chat_service_pb2.ChatResponse())


def test_openings() -> None:
    opening = bridge_pb2.Opening(token="t", traceparent="00-x")
    assert Proto().opening(opening.SerializeToString()) == ("t", "00-x")
    assert Json().opening(b'{"token": "t", "traceparent": "00-x"}') == ("t", "00-x")
    for bad in (b"", b"{", b'{"token": 7}', b'{"tokens": ""}', b"null", b'"t"'):
        with pytest.raises(DomainError) as refused:
            Json().opening(bad)
        assert refused.value.reason is Reason.MALFORMED_FRAME
    with pytest.raises(DomainError):
        Proto().opening(b"\x0a\xff")
