"""What the server reads in contents."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.made import texts
from tidings.v1 import message_pb2
from tidings_server.codec.contents import check_mentions, read_content
from tidings_server.core.contents import MAX_MENTIONS, PLAIN, Content
from tidings_server.errors import DomainError, Reason

ID = "0198c1f4-2a3b-7c4d-8e5f-60718293a4b5"


@given(st.one_of(texts, st.sampled_from(["a" * n for n in (1, 127, 128, 129, 16_384, 70_000)])))
def test_a_text_alone_refers_to_nothing(text: str) -> None:
    raw = message_pb2.MessageContent(text=text).SerializeToString()
    assert read_content(raw) is PLAIN or read_content(raw) == PLAIN


@given(st.one_of(texts, st.sampled_from(["a" * n for n in (1, 127, 128, 129, 16_384, 70_000)])))
def test_what_a_message_replies_to_is_found_behind_any_text(text: str) -> None:
    raw = message_pb2.MessageContent(text=text, reply_to_message_id=ID).SerializeToString()
    found = read_content(raw).reply_to
    assert found is not None
    assert found.text == ID


def test_an_id_that_is_none_refers_to_nothing() -> None:
    raw = message_pb2.MessageContent(text="x", reply_to_message_id="y").SerializeToString()
    assert read_content(raw) == PLAIN


def mentioning(*spans: tuple[int, int], text: str = "@bob ä 👩 x") -> message_pb2.MessageContent:
    content = message_pb2.MessageContent(text=text)
    for start, end in spans:
        content.mentions.add(start=start, end=end, user_id="bob")
    return content


# Bytes: "@bob ä 👩 x" has ä at 5..7, 👩 at 8..12, and 14 in all.
@pytest.mark.parametrize(
    "spans", [[(0, 4)], [(5, 7), (8, 12)], [(0, 5), (5, 7)], [(13, 14)], [(0, 14)], []]
)
def test_spans_of_whole_characters_are_mentions(spans: list[tuple[int, int]]) -> None:
    check_mentions(mentioning(*spans))


@pytest.mark.parametrize(
    ("spans", "field"),
    [
        ([(-1, 4)], "[0].start"),
        ([(4, 4)], "[0].end"),
        ([(4, 3)], "[0].end"),
        ([(13, 15)], "[0].end"),
        ([(14, 15)], "[0].end"),
        ([(6, 7)], "[0].start"),
        ([(5, 6)], "[0].end"),
        ([(0, 9)], "[0].end"),
        ([(0, 4), (3, 7)], "[1].start"),
        ([(5, 7), (0, 4)], "[1].start"),
    ],
)
def test_other_spans_are_refused(spans: list[tuple[int, int]], field: str) -> None:
    with pytest.raises(DomainError) as caught:
        check_mentions(mentioning(*spans))
    assert caught.value.reason is Reason.INVALID_FIELD
    assert caught.value.field == f"content.mentions{field}"


def test_a_mention_is_of_a_user_or_of_everybody() -> None:
    content = message_pb2.MessageContent(text="x")
    mention = content.mentions.add(start=0, end=1)
    for wrong in (message_pb2.Mention(), message_pb2.Mention(everybody=False)):
        mention.CopyFrom(wrong)
        mention.end = 1
        with pytest.raises(DomainError) as caught:
            check_mentions(content)
        assert caught.value.field == "content.mentions[0].target"
    mention.user_id = "a\x00b"
    with pytest.raises(DomainError) as caught:
        check_mentions(content)
    assert caught.value.field == "content.mentions[0].user_id"
    mention.everybody = True
    check_mentions(content)
    assert read_content(content.SerializeToString()) == Content(everybody=True)


def test_a_message_has_so_many_mentions_at_most() -> None:
    spans = [(at, at + 1) for at in range(MAX_MENTIONS + 1)]
    check_mentions(mentioning(*spans[:-1], text="x" * 100))
    with pytest.raises(DomainError) as caught:
        check_mentions(mentioning(*spans, text="x" * 100))
    assert caught.value.field == "content.mentions"


def test_a_user_is_mentioned_once_however_often() -> None:
    raw = mentioning((0, 4), (5, 7)).SerializeToString()
    assert read_content(raw) == Content(mentioned=("bob",))
