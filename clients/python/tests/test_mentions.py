"""Mentions: places in a str here, bytes of UTF-8 on the wire."""

from __future__ import annotations

import pytest

from tidings import InvalidArgument, Mention, mentions_in
from tidings.mentions import from_wire, to_wire
from tidings.v1 import message_pb2

TEXT = "ä @böb 👩 @all"
MENTIONS = (Mention(2, 6, "böb"), Mention(9, 13, None))


def test_places_become_bytes_and_places_again() -> None:
    wire = to_wire(TEXT, MENTIONS)
    raw = TEXT.encode()
    assert [raw[m.start : m.end].decode() for m in wire] == ["@böb", "@all"]
    assert [(m.user_id, m.everybody) for m in wire] == [("böb", False), ("", True)]
    assert from_wire(message_pb2.MessageContent(text=TEXT, mentions=wire)) == MENTIONS


def test_mentions_of_a_kind_that_is_not_known_are_left_out() -> None:
    wire = [*to_wire(TEXT, MENTIONS), message_pb2.Mention(start=0, end=1)]
    assert from_wire(message_pb2.MessageContent(text=TEXT, mentions=wire)) == MENTIONS


@pytest.mark.parametrize("place", [(-1, 2), (2, 2), (3, 2), (0, 99)])
def test_mentions_outside_the_text_are_refused(place: tuple[int, int]) -> None:
    with pytest.raises(InvalidArgument):
        to_wire(TEXT, [Mention(*place, "bob")])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (TEXT, MENTIONS),
        ("@bob", (Mention(0, 4, "bob"),)),
        ("(@bob), @bobby!", (Mention(1, 5, "bob"), Mention(8, 14, "bobby"))),
        ("mail@bob @bobx @carl bob", ()),
        ("@b.o @b", (Mention(0, 4, "b.o"), Mention(5, 7, "b"))),
        ("", ()),
    ],
)
def test_who_is_named_behind_an_at_is_mentioned(text: str, found: tuple[Mention, ...]) -> None:
    users = ["bob", "bobby", "böb", "b", "b.o"]
    assert tuple(mentions_in(text, users, everybody="all")) == found


def test_nobody_is_mentioned_where_nobody_may_be() -> None:
    assert mentions_in("@all @bob", []) == []
    assert mentions_in("@all @bob", ["bob"]) == [Mention(5, 9, "bob")]
