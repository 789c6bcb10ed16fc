"""The few protobuf encodings that are made by hand on the hot path: varints, lengths, time stamps.

A test holds each against the generated code.
"""

from __future__ import annotations

_SHORT = [bytes((i,)) for i in range(128)]


def varint(value: int) -> bytes:
    """A non-negative integer as a varint."""
    if value < 0x80:
        return _SHORT[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def element(tag: int, body: bytes) -> bytes:
    """A length-delimited field with a one-byte tag."""
    return _SHORT[tag] + varint(len(body)) + body


def text(tag: int, value: str) -> bytes:
    """A string field with a one-byte tag; nothing when it is empty."""
    return element(tag, value.encode()) if value else b""


def timestamp(time_ms: int) -> bytes:
    """The body of a `google.protobuf.Timestamp`."""
    seconds, ms = divmod(time_ms, 1000)
    body = b"\x08" + varint(seconds) if seconds else b""
    return body + b"\x10" + varint(ms * 1_000_000) if ms else body
