"""Cutting answers of the server into events without decoding them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def cut(answer: bytes) -> tuple[list[bytes], bytes]:
    """The elements of field 1 of a message, in order, and the last value of field 2.

    It serves ChatResponse (events) and ListHistoryResponse (events, next_page_token). Raises ValueError for other
    fields, and for bytes that end too early.
    """
    elements: list[bytes] = []
    token = b""
    at, end = 0, len(answer)
    while at < end:
        tag = answer[at]
        size, at = _varint(answer, at + 1)
        payload = answer[at : at + size]
        at += size
        if at > end:
            raise ValueError("an answer ends within an element")
        if tag == 0x0A:
            elements.append(payload)
        elif tag == 0x12:
            token = payload
        else:
            raise ValueError(f"an answer has the unexpected tag {tag:#x}")
    return elements, token


def joined(elements: Iterable[bytes]) -> bytes:
    """A frame of elements: the opposite of `cut`."""
    return b"".join(b"".join(_element(element)) for element in elements)


def is_entry(element: bytes) -> bool:
    """Whether an event is an entry, which is its field 1."""
    return element[:1] == b"\x0a"


def _element(payload: bytes) -> Iterator[bytes]:
    yield b"\x0a"
    size = len(payload)
    while size > 0x7F:
        yield bytes((size & 0x7F | 0x80,))
        size >>= 7
    yield bytes((size,))
    yield payload


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
    except IndexError:
        raise ValueError("an answer ends within a length") from None
