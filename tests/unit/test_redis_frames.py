"""Frames of the bus: what goes in comes out, what is not understood is refused and nothing else happens."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.contract.samples import LOG, page
from tidings_server.bus.base import (
    HeadPublished,
    NoticePublished,
    PagePublished,
    Publication,
)
from tidings_server.bus.redis.frames import (
    LARGE_BYTES,
    RESYNC,
    UnknownFrame,
    decode,
    encode,
    encode_resync,
    origin_of,
)
from tidings_server.core.pages import Page

ORIGIN = b"12345678"
_long = st.integers(0, 2**63 - 1)
_int = st.integers(0, 2**31 - 1)
_pages = st.builds(
    Page,
    first_seq=_long,
    count=_int,
    stamp=_long,
    ordinal=_long,
    commit_id=st.binary(min_size=16, max_size=16),
    ids=st.binary(max_size=100),
    flags=_int,
    body=st.binary(max_size=300),
    rev=_int,
)
_publications: st.SearchStrategy[Publication] = st.one_of(
    st.builds(PagePublished, st.just(LOG), _pages),
    st.builds(NoticePublished, st.just(LOG), st.binary()),
    st.builds(HeadPublished, st.just(LOG), _long),
)


@given(_publications)
def test_round_trip(publication: Publication) -> None:
    frame = encode(publication, ORIGIN)
    assert origin_of(frame) == ORIGIN
    assert decode(frame, LOG) == publication


@given(_publications, st.binary(max_size=9))
def test_a_head_may_grow(publication: Publication, more: bytes) -> None:
    frame = encode(publication, ORIGIN)
    length = int.from_bytes(frame[2:4], "big")
    grown = frame[:2] + (length + len(more)).to_bytes(2, "big") + frame[4:length] + more
    assert decode(grown + frame[length:], LOG) == publication


@given(st.binary(max_size=80))
@example(b"")
@example(encode(HeadPublished(LOG, 1), ORIGIN)[:-1])
@example(encode(PagePublished(LOG, page(1)), ORIGIN)[:40])
def test_anything_is_understood_or_refused(frame: bytes) -> None:
    try:
        decode(frame, LOG)
    except UnknownFrame:
        return
    assert frame[0] == 1


@given(_publications, st.integers(0, 200))
def test_what_is_cut_off_in_its_head_is_refused(publication: Publication, at: int) -> None:
    frame = encode(publication, ORIGIN)
    length = int.from_bytes(frame[2:4], "big")
    if at < length:
        with pytest.raises(UnknownFrame):
            decode(frame[:at], LOG)


def test_other_versions_and_kinds() -> None:
    frame = encode(HeadPublished(LOG, 1), ORIGIN)
    for strange in (b"\x02" + frame[1:], frame[:1] + b"\x09" + frame[2:]):
        with pytest.raises(UnknownFrame):
            decode(strange, LOG)
    assert decode(encode_resync(ORIGIN), LOG) is RESYNC


def test_a_large_page_becomes_a_pointer() -> None:
    large = page(5, 3, body=b"x" * (LARGE_BYTES + 1))
    assert decode(encode(PagePublished(LOG, large), ORIGIN), LOG) == HeadPublished(LOG, 7)
