"""Requests in frames: unknown fields, kinds that are not known, sizes, and cursors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.made import LOG
from tests.unit.test_codec_requests import FOREVER, GOOD, READER, ChatRequest, refusal, send, text
from tidings.v1 import (
    chat_service_pb2,
)
from tidings_server.codec.requests import MAX_COMMANDS_IN_FRAME, RequestReader, cursor_problem
from tidings_server.core import commands as c
from tidings_server.core.limits import Limits
from tidings_server.errors import Code, DomainError, Reason

# Unknown fields

UNKNOWN = b"\xa0\x06\x01"  # field 100


def with_unknown_fields(message: Message) -> Iterator[tuple[Message, str]]:
    """Copies of a message with an unknown field in it, or in one message within it, and the path of that field."""

    def paths(
        part: Message, path: tuple[tuple[str, int], ...]
    ) -> Iterator[tuple[tuple[str, int], ...]]:
        yield path
        for field, value in part.ListFields():
            if field.message_type is not None:
                for i, nested in enumerate(value if field.is_repeated else [value]):
                    yield from paths(nested, (*path, (field.name, i if field.is_repeated else -1)))

    for path in paths(message, ()):
        copy = type(message)()
        copy.CopyFrom(message)
        part = copy
        for name, at in path:
            part = getattr(part, name) if at < 0 else getattr(part, name)[at]
        part.MergeFromString(UNKNOWN)
        yield copy, ".".join([*(name for name, _ in path), "100"])


@pytest.mark.parametrize("request_", [request for request, _ in GOOD])
def test_unknown_fields_at_every_level(request_: Message) -> None:
    for changed, path in with_unknown_fields(request_):
        assert refusal(changed) == (Reason.UNKNOWN_FIELD, path)


def on_stream(request: Message) -> chat_service_pb2.Command | None:
    """The command of the stream with this body, if there is one of its kind."""
    for field in chat_service_pb2.Command.DESCRIPTOR.oneofs_by_name["command"].fields:
        if field.message_type is request.DESCRIPTOR:
            command = chat_service_pb2.Command(command_id=5)
            getattr(command, field.name).CopyFrom(request)
            return command
    return None


def frame_of(*commands: chat_service_pb2.Command | None) -> bytes:
    return ChatRequest(commands=[c for c in commands if c is not None]).SerializeToString()


def read_frame(*commands: chat_service_pb2.Command) -> list[tuple[int, str, object]]:
    return [*READER.read_frame(frame_of(*commands)).commands]


def frame_refusal(frame: bytes, reader: RequestReader = READER) -> tuple[Reason, Code]:
    with pytest.raises(DomainError) as caught:
        reader.read_frame(frame)
    return caught.value.reason, caught.value.code


@pytest.mark.parametrize(("request_", "taken"), GOOD)
def test_commands_of_a_frame(request_: Message, taken: c.Command) -> None:
    command = on_stream(request_)
    if command is not None:
        assert read_frame(command) == [(5, command.WhichOneof("command"), taken)]


@pytest.mark.parametrize("request_", [request for request, _ in GOOD])
def test_an_unknown_field_spoils_its_command_only(request_: Message) -> None:
    good = on_stream(request_)
    if good is None:
        return
    for changed, path in with_unknown_fields(good):
        assert isinstance(changed, chat_service_pb2.Command)
        (_, _, first), (number, _, spoilt), (_, _, last) = read_frame(good, changed, good)
        assert not isinstance(first, DomainError)
        assert not isinstance(last, DomainError)
        assert number == 5
        assert isinstance(spoilt, DomainError)
        assert (spoilt.reason, spoilt.field) == (Reason.UNKNOWN_FIELD, path)


def test_a_kind_of_command_that_is_not_known() -> None:
    command = chat_service_pb2.Command(command_id=3)
    command.MergeFromString(b"\xc2\x02\x00")  # field 40, reserved
    ((number, name, problem),) = read_frame(command)
    assert (number, name) == (3, "")
    assert isinstance(problem, DomainError)
    assert (problem.reason, problem.field) == (Reason.UNKNOWN_FIELD, "40")


def test_a_command_that_says_nothing() -> None:
    ((number, _, problem),) = read_frame(chat_service_pb2.Command(command_id=3))
    assert number == 3
    assert isinstance(problem, DomainError)
    assert problem.reason is Reason.UNKNOWN_FIELD


def test_a_frame_from_a_newer_client_is_taken() -> None:
    frame = chat_service_pb2.ChatRequest(
        acks=[chat_service_pb2.Ack(conversation_id=LOG, seq=3)]
    ).SerializeToString()
    assert READER.read_frame(frame + UNKNOWN).acks == [(LOG, 3)]


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_numbers_and_acknowledgements_of_a_frame(number: int, seq: int) -> None:
    frame = chat_service_pb2.ChatRequest(
        commands=[
            chat_service_pb2.Command(
                command_id=number, refresh_token=chat_service_pb2.RefreshToken(token="t")
            )
        ],
        acks=[chat_service_pb2.Ack(conversation_id="anything", seq=seq)],
    )
    read = READER.read_frame(frame.SerializeToString())
    assert read.commands == [(number, "refresh_token", c.RefreshToken("t"))]
    assert read.acks == [("anything", seq)]


# Frames


def test_frames_that_merge_are_one() -> None:
    one = frame_of(on_stream(GOOD[0][0]))
    assert len(READER.read_frame(one + one).commands) == 2


@pytest.mark.parametrize(
    "frame",
    [b"\xff", b"\x0a\x05", b"not protobuf at all", b"\x0a\x04\x22\x02\x0a\xff", b"\x0b"],
)
def test_garbage_is_no_frame(frame: bytes) -> None:
    assert frame_refusal(frame) == (Reason.MALFORMED_FRAME, Code.INVALID_ARGUMENT)


@given(st.binary(max_size=200))
def test_whatever_comes_is_taken_or_refused(frame: bytes) -> None:
    try:
        ChatRequest.FromString(frame)
    except DecodeError:
        assert frame_refusal(frame) == (Reason.MALFORMED_FRAME, Code.INVALID_ARGUMENT)
    else:
        READER.read_frame(frame)


def test_text_that_is_no_utf_8_spoils_the_frame() -> None:
    frame = frame_of(on_stream(send()))
    spoilt = frame.replace(b"\x0a\x01x", b"\x0a\x01\xff")
    assert spoilt != frame
    assert frame_refusal(spoilt) == (Reason.MALFORMED_FRAME, Code.INVALID_ARGUMENT)


def test_the_largest_frame() -> None:
    reader = RequestReader(Limits(max_frame_bytes=200_000))
    frame = frame_of(on_stream(send(content=text(text="x" * 199_900))))
    # Empty acknowledgements fill it up to the byte.
    filled = frame + b"\x12\x00" * ((200_000 - len(frame)) // 2)
    assert len(filled) in (199_999, 200_000)
    assert reader.read_frame(filled).commands
    too_large = (Reason.TOO_LARGE, Code.RESOURCE_EXHAUSTED)
    assert frame_refusal(filled + b"\x12\x00", reader) == too_large


def test_the_most_commands_in_a_frame() -> None:
    most = frame_of(*[on_stream(GOOD[0][0])] * MAX_COMMANDS_IN_FRAME)
    assert len(READER.read_frame(most).commands) == MAX_COMMANDS_IN_FRAME
    assert frame_refusal(most + b"\x0a\x00") == (Reason.TOO_LARGE, Code.RESOURCE_EXHAUSTED)


# Cursors


@pytest.mark.parametrize(
    ("log", "seq", "field"),
    [
        (LOG, 0, None),
        (LOG, 2**62, None),
        ("inbox:alice", 3, None),
        (LOG, -1, "seq"),
        (LOG, FOREVER, "seq"),
        ("inbox:bob", 3, "conversation_id"),
        ("", 3, "conversation_id"),
        (LOG.upper(), 3, "conversation_id"),
    ],
)
def test_cursors(log: str, seq: int, field: str | None) -> None:
    problem = cursor_problem(log, seq, "alice")
    assert (problem.field if problem is not None else None) == field
