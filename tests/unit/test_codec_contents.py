"""What the server reads in contents."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.made import texts
from tidings.v1 import message_pb2
from tidings_server.codec.contents import read_content
from tidings_server.core.contents import PLAIN

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
