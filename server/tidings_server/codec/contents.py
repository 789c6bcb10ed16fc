"""Contents as bytes: what the server looks at in what a message says."""

from __future__ import annotations

from tidings.v1 import message_pb2

from ..core.commands import ChangeId
from ..core.contents import PLAIN, Content
from ..core.ids import id_bytes, uuid7_time

_TEXT = b"\x0a"
_MOST_LENGTH_BYTES = 3


def read_content(raw: bytes) -> Content:
    """What a serialised `MessageContent` refers to. An id that is none refers to nothing."""
    if _is_text(raw):
        return PLAIN
    content = message_pb2.MessageContent.FromString(raw)
    return Content(_reply_to(content.reply_to_message_id))


def _is_text(raw: bytes) -> bool:
    """Whether there is nothing but a text, as in most messages, which need no parsing then."""
    size = length = shift = 0
    for at in range(1, min(len(raw), 1 + _MOST_LENGTH_BYTES)):
        length |= (raw[at] & 0x7F) << shift
        if raw[at] < 0x80:
            size = 1 + at + length
            break
        shift += 7
    return raw[:1] == _TEXT and size == len(raw)


def _reply_to(value: str) -> ChangeId | None:
    if not value:
        return None
    try:
        found = id_bytes(value)
        return ChangeId(value, found, uuid7_time(found))
    except ValueError:
        return None
