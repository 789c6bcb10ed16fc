"""Pages: cut without decoding, against the generated code; buckets."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.made import NOW_MS, RNG, bodies, page_of
from tidings.v1 import chat_service_pb2
from tidings_server.codec.entries import decode_entries
from tidings_server.core.entries import Entry
from tidings_server.core.ids import uuid7
from tidings_server.core.pages import (
    BUCKET_SIZE,
    Page,
    bucket_of,
    cut,
    join,
    page_ids,
    pieces,
    rewritten,
    room_in_bucket,
)


@st.composite
def entries_in_a_row(draw: st.DrawFn) -> list[Entry]:
    first = draw(st.integers(1, 2**40))
    made = draw(st.lists(bodies, min_size=1, max_size=5))
    return [
        Entry("a log", first + i, 7 + i, uuid7(NOW_MS, RNG), "alice", NOW_MS, body)
        for i, body in enumerate(made)
    ]


@given(entries_in_a_row(), st.data())
def test_a_cut_holds_the_entries_asked_for(entries: list[Entry], data: st.DataObject) -> None:
    page = page_of(entries)
    first = data.draw(st.integers(page.first_seq - 2, page.last_seq + 2))
    last = data.draw(st.integers(page.first_seq - 2, page.last_seq + 2))
    expected = [e for e in entries if first <= e.seq <= last]
    body = cut(page, first, last)
    assert decode_entries(body) == expected
    assert (body == b"") == (not expected)


@given(entries_in_a_row(), st.data())
def test_cuts_join_to_the_page(entries: list[Entry], data: st.DataObject) -> None:
    page = page_of(entries)
    at = data.draw(st.integers(page.first_seq, page.last_seq))
    assert join([cut(page, 0, at), cut(page, at + 1, page.last_seq)]) == page.body


@given(entries_in_a_row())
def test_pieces_are_the_elements(entries: list[Entry]) -> None:
    page = page_of(entries)
    parsed = chat_service_pb2.ChatResponse.FromString(page.body).events
    found = [page.body[begin:end] for begin, end in pieces(page.body)]
    assert found == [
        chat_service_pb2.ChatResponse(events=[event]).SerializeToString() for event in parsed
    ]


@given(entries_in_a_row())
def test_ids_are_those_of_the_entries(entries: list[Entry]) -> None:
    assert [raw.hex() for raw in page_ids(page_of(entries))] == [
        e.id.replace("-", "") for e in entries
    ]


@given(st.binary(max_size=60))
def test_pieces_of_any_bytes_lie_side_by_side_or_are_refused(body: bytes) -> None:
    try:
        found = pieces(body)
    except ValueError:
        return
    assert [begin for begin, _ in found] == [0, *(end for _, end in found)][: len(found)]
    assert (found[-1][1] if found else 0) == len(body)


@given(entries_in_a_row(), st.data())
def test_a_page_that_was_cut_off_is_refused(entries: list[Entry], data: st.DataObject) -> None:
    page = page_of(entries)
    ends = {end for _, end in pieces(page.body)}
    at = data.draw(st.integers(1, len(page.body) - 1).filter(lambda n: n not in ends))
    with pytest.raises(ValueError, match="cut off"):
        pieces(page.body[:at])
    with pytest.raises(DecodeError):
        chat_service_pb2.ChatResponse.FromString(page.body[:at])


def test_pieces_of_elements_with_long_lengths() -> None:
    element = chat_service_pb2.ChatResponse()
    element.events.add().entry.message.text = "x" * 300_000
    body = element.SerializeToString()
    assert pieces(body + body) == [(0, len(body)), (len(body), 2 * len(body))]


def test_other_wire_types_are_no_pieces() -> None:
    with pytest.raises(ValueError, match="no tag"):
        pieces(b"\x08\x01")


@pytest.mark.parametrize(
    ("head", "room"),
    [(0, BUCKET_SIZE), (1, BUCKET_SIZE - 1), (BUCKET_SIZE - 1, 1), (BUCKET_SIZE, BUCKET_SIZE)],
)
def test_room_at_the_border_of_a_bucket(head: int, room: int) -> None:
    assert room_in_bucket(head) == room


@given(st.integers(0, 10**7))
def test_what_fits_into_a_bucket_lies_in_it(head: int) -> None:
    room = room_in_bucket(head)
    assert 1 <= room <= BUCKET_SIZE
    assert bucket_of(head + 1) == bucket_of(head + room)
    assert bucket_of(head + room + 1) == bucket_of(head + 1) + 1


def test_a_rewritten_page_keeps_its_positions() -> None:
    page = Page(5, 2, NOW_MS, 2, b"c" * 16, b"i" * 32, 0, b"body", 3)
    changed = rewritten(page, b"", 4)
    assert (changed.rev, changed.body, changed.flags) == (4, b"", 4)
    assert (changed.first_seq, changed.last_seq, changed.ids) == (5, 6, page.ids)
