"""The few protobuf encodings that are made by hand on the hot path: varints, lengths, time stamps.

A test holds each against the generated code.
"""

from __future__ import annotations

from functools import lru_cache


def _encode(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# Lengths, positions of young logs, numbers of commands: nearly all that is encoded.
_SMALL = [_encode(i) for i in range(1 << 14)]
_SMALL_END = len(_SMALL)
_MEDIUM_END = 1 << 28


def varint(value: int) -> bytes:
    """A non-negative integer as a varint."""
    if value < _SMALL_END:
        return _SMALL[value]
    if value < _MEDIUM_END:
        # Two bytes that say that more follows, and what is left.
        two = value & 0x7F | (value & 0x3F80) << 1 | 0x8080
        return two.to_bytes(2, "little") + _SMALL[value >> 14]
    return _encode(value)


def element(tag: int, body: bytes) -> bytes:
    """A length-delimited field with a one-byte tag."""
    size = len(body)
    return _SMALL[tag] + (_SMALL[size] if size < _SMALL_END else _encode(size)) + body


def text(tag: int, value: str) -> bytes:
    """A string field with a one-byte tag; nothing when it is empty."""
    return element(tag, value.encode()) if value else b""


@lru_cache(maxsize=256)
def timestamp(time_ms: int) -> bytes:
    """The body of a `google.protobuf.Timestamp`. Those of one commit are all alike."""
    seconds, ms = divmod(time_ms, 1000)
    body = b"\x08" + varint(seconds) if seconds else b""
    return body + b"\x10" + varint(ms * 1_000_000) if ms else body
