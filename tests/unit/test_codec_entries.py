"""Entries: the bytes made once are those of the generated code, and come back as they went."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.made import LOG, NOW_MS, bodies, content, positions, texts, times, user_ids, uuids
from tidings.v1 import chat_service_pb2, conversation_pb2, entry_pb2
from tidings_server.codec.entries import EntryEncoder, decode_entries
from tidings_server.core.entries import (
    Body,
    ConversationCreated,
    ConversationKind,
    Entry,
    MessagePosted,
    Role,
    UnknownBody,
)


def encode(entry: Entry) -> bytes:
    encoder = EntryEncoder(entry.log, entry.time_ms)
    return encoder.encode(entry.seq, entry.ordinal, entry.id, entry.user_id, entry.body)


def frame(entry: entry_pb2.Entry) -> bytes:
    response = chat_service_pb2.ChatResponse()
    response.events.add().entry.CopyFrom(entry)
    return response.SerializeToString()


entries = st.builds(
    Entry,
    st.one_of(uuids, user_ids.map("inbox:".__add__)),
    positions,
    st.integers(0, 2**62),
    uuids,
    user_ids,
    times,
    bodies,
)


@given(entries)
def test_the_bytes_are_those_of_the_generated_code(entry: Entry) -> None:
    body = encode(entry)
    parsed = chat_service_pb2.ChatResponse.FromString(body)
    assert parsed.SerializeToString(deterministic=True) == body
    (event,) = parsed.events
    decoded = event.entry
    assert (decoded.conversation_id, decoded.seq, decoded.ordinal) == (
        entry.log,
        entry.seq,
        entry.ordinal,
    )
    assert (decoded.id, decoded.user_id) == (entry.id, entry.user_id)
    assert decoded.create_time.ToMilliseconds() == entry.time_ms
    members = (*decoded.conversation_created.members, *decoded.members_added.members)
    assert all(member.join_seq == entry.seq for member in members)


@given(entries)
def test_entries_come_back(entry: Entry) -> None:
    assert decode_entries(encode(entry)) == [entry]


@given(st.lists(entries, max_size=4))
def test_joined_entries_come_back_in_order(several: list[Entry]) -> None:
    assert decode_entries(b"".join(map(encode, several))) == several


@given(texts, times)
def test_a_message_is_what_its_sender_made(text: str, time_ms: int) -> None:
    entry = Entry(LOG, 1, 1, LOG, "alice", time_ms, MessagePosted(content(text)))
    (event,) = chat_service_pb2.ChatResponse.FromString(encode(entry)).events
    assert event.entry.message.text == text


def test_a_kind_from_a_newer_version_is_unknown() -> None:
    entry = entry_pb2.Entry(conversation_id=LOG, seq=3, id=LOG, user_id="alice")
    entry.MergeFromString(b"\xaa\x03\x02\x08\x01")  # field 53, reserved for later
    (decoded,) = decode_entries(frame(entry))
    assert decoded.body == UnknownBody()
    assert decoded.seq == 3


def _unknown_role(entry: entry_pb2.Entry) -> None:
    entry.members_added.members.add(user_id="bob", role=9)


def _unknown_first_role(entry: entry_pb2.Entry) -> None:
    entry.conversation_created.kind = conversation_pb2.CONVERSATION_KIND_GROUP
    entry.conversation_created.members.add(user_id="bob", role=9)


def _unknown_kind(entry: entry_pb2.Entry) -> None:
    entry.conversation_created.kind = 9  # type: ignore[assignment]


def _unknown_joined_kind(entry: entry_pb2.Entry) -> None:
    entry.conversation_joined.kind = 9  # type: ignore[assignment]


@pytest.mark.parametrize(
    "change", [_unknown_role, _unknown_first_role, _unknown_kind, _unknown_joined_kind]
)
def test_a_value_from_a_newer_version_makes_its_entry_unknown(
    change: Callable[[entry_pb2.Entry], None],
) -> None:
    entry = entry_pb2.Entry(conversation_id=LOG, seq=3)
    change(entry)
    (decoded,) = decode_entries(frame(entry))
    assert (decoded.seq, decoded.body) == (3, UnknownBody())


def test_enumerations_are_those_of_the_contract() -> None:
    created = ConversationCreated(ConversationKind.GROUP, "", ())
    entry = Entry(LOG, 1, 0, LOG, "alice", NOW_MS, created)
    (event,) = chat_service_pb2.ChatResponse.FromString(encode(entry)).events
    assert event.entry.conversation_created.kind == 2
    assert {r.value for r in Role} == set(conversation_pb2.MemberRole.values()) - {0}


def test_time_has_milliseconds() -> None:
    entry = Entry(LOG, 1, 1, LOG, "alice", 1_750_000_000_123, MessagePosted(content("x")))
    (event,) = chat_service_pb2.ChatResponse.FromString(encode(entry)).events
    assert event.entry.create_time == Timestamp(seconds=1_750_000_000, nanos=123_000_000)


@pytest.mark.parametrize("body", [b"\x0a", b"\x0a\x05ab", b"\xff\xff"])
def test_other_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="not the bytes of entries"):
        decode_entries(body)


def test_what_is_not_known_is_not_encoded() -> None:
    unknown: Body = UnknownBody()
    with pytest.raises(TypeError, match="UnknownBody"):
        encode(Entry(LOG, 1, 1, LOG, "alice", NOW_MS, unknown))
