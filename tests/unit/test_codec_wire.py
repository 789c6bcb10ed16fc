"""The encodings made by hand give the bytes that the generated code gives."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import BytesValue, StringValue, UInt64Value
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.made import texts
from tidings_server.codec.wire import element, text, timestamp, varint

_BORDERS = [
    0,
    1,
    0x7F,
    0x80,
    0x3FFF,
    0x4000,
    0x1FFFFF,
    0x200000,
    2**28 - 1,
    2**28,
    2**63 - 1,
    2**64 - 1,
]


@given(st.one_of(st.integers(0, 2**64 - 1), st.sampled_from(_BORDERS)))
def test_varint(value: int) -> None:
    expected = UInt64Value(value=value).SerializeToString()
    assert (b"\x08" + varint(value) if value else b"") == expected


@given(st.one_of(st.binary(max_size=20), st.sampled_from([b"x" * 127, b"x" * 128, b"x" * 16_384])))
def test_element(body: bytes) -> None:
    expected = BytesValue(value=body).SerializeToString()
    # A singular field without presence is left out when it is empty; an element never is.
    assert element(0x0A, body) == (expected or b"\x0a\x00")


@given(texts)
def test_text(value: str) -> None:
    assert text(0x0A, value) == StringValue(value=value).SerializeToString()


@given(st.integers(0, 253_402_300_799_999))
@example(0)
@example(999)
@example(1000)
def test_timestamp(time_ms: int) -> None:
    expected = Timestamp()
    expected.FromMilliseconds(time_ms)
    assert timestamp(time_ms) == expected.SerializeToString()
