"""Mentions: the parts of a text that name somebody, as places in a str."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .errors import InvalidArgument
from .v1 import message_pb2

__all__ = ["Mention", "mentions_in"]


@dataclass(frozen=True, slots=True)
class Mention:
    """A part of a text names somebody.

    Attributes:
        start: Where it begins in the text, a str.
        end: Where it ends: the first character behind it.
        user_id: Who is mentioned; None for everybody.
    """

    start: int
    end: int
    user_id: str | None


def mentions_in(
    text: str, user_ids: Iterable[str], *, everybody: str | None = None
) -> list[Mention]:
    """The mentions that a text has when it says "@" and a user id, which no letter or digit precedes or follows.

    Args:
        text: The text.
        user_ids: Those who may be mentioned; of two that fit the longer one is.
        everybody: The word that, after "@", stands for everybody; None for no such word.
    """
    words: dict[str, str | None] = {user: user for user in user_ids if user}
    if everybody is not None:
        words[everybody] = None
    if not words:
        return []
    longest_first = sorted(words, key=len, reverse=True)
    pattern = rf"(?<!\w)@({'|'.join(map(re.escape, longest_first))})(?!\w)"
    return [Mention(m.start(), m.end(), words[m[1]]) for m in re.finditer(pattern, text)]


def to_wire(text: str, mentions: Sequence[Mention]) -> list[message_pb2.Mention]:
    """Mentions in bytes of UTF-8. Raises InvalidArgument for one that doesn't lie in the text."""
    found = []
    for mention in mentions:
        if not 0 <= mention.start < mention.end <= len(text):
            raise InvalidArgument("a mention lies outside the text", field="mentions")
        start = len(text[: mention.start].encode())
        end = start + len(text[mention.start : mention.end].encode())
        one = message_pb2.Mention(start=start, end=end)
        if mention.user_id is None:
            one.everybody = True
        else:
            one.user_id = mention.user_id
        found.append(one)
    return found


def from_wire(content: message_pb2.MessageContent) -> tuple[Mention, ...]:
    """The mentions of a content; those that this version doesn't understand are left out."""
    if not content.mentions:
        return ()
    raw = content.text.encode()
    return tuple(
        Mention(
            len(raw[: one.start].decode(errors="ignore")),
            len(raw[: one.end].decode(errors="ignore")),
            one.user_id or None,
        )
        for one in content.mentions
        if one.user_id or one.everybody
    )
