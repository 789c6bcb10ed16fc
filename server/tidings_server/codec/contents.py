"""Contents as bytes: what the server looks at in what a message says."""

from __future__ import annotations

from tidings.v1 import message_pb2

from ..core.commands import ChangeId
from ..core.contents import MAX_MENTIONS, PLAIN, Content
from ..core.ids import id_bytes, uuid7_time
from ..errors import invalid
from . import fields

_TEXT = b"\x0a"
_MOST_LENGTH_BYTES = 3


def read_content(raw: bytes) -> Content:
    """What a serialised `MessageContent` refers to. An id that is none refers to nothing."""
    if _is_text(raw):
        return PLAIN
    content = message_pb2.MessageContent.FromString(raw)
    users = dict.fromkeys(m.user_id for m in content.mentions if m.user_id)
    return Content(
        _reply_to(content.reply_to_message_id),
        tuple(users),
        any(m.everybody for m in content.mentions),
    )


def check_mentions(content: message_pb2.MessageContent) -> None:
    """Raises DomainError (INVALID_FIELD) for mentions that are none."""
    if not content.mentions:
        return
    if len(content.mentions) > MAX_MENTIONS:
        raise invalid("content.mentions", f"at most {MAX_MENTIONS}")
    text = content.text.encode()
    end = 0
    for i, mention in enumerate(content.mentions):
        field = f"content.mentions[{i}]"
        if mention.start < end:
            raise invalid(f"{field}.start", "must not lie before the end of the mention before")
        if not mention.start < mention.end <= len(text):
            raise invalid(f"{field}.end", "must lie behind start, and within the text")
        end = mention.end
        for name, at in (("start", mention.start), ("end", end)):
            if at < len(text) and text[at] & 0xC0 == 0x80:
                raise invalid(f"{field}.{name}", "must lie between characters")
        match mention.WhichOneof("target"):
            case "user_id":
                fields.user(f"{field}.user_id", mention.user_id)
            case "everybody" if mention.everybody:
                pass
            case _:
                raise invalid(f"{field}.target", "must be a user_id, or everybody")


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
