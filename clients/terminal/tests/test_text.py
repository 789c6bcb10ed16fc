"""Text in cells."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings_chat.text import cell_len, clean, fit, one_line, steady, truncate, wrap

texts = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("ab  \n你好，。שלום👍🏽👨‍👩‍👧🇫🇷e\u0301नमस्ते한국어"),
    ),
    max_size=60,
)


def lines(text: str, width: int) -> list[str]:
    return [text[start:end] for start, end in wrap(text, width)]


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("hello wide world", 11, ["hello wide", "world"]),
        ("hello wide world", 5, ["hello", "wide", "world"]),
        ("a\n\nb", 5, ["a", "", "b"]),
        ("", 5, [""]),
        ("incomprehensibilities", 8, ["incompre", "hensibil", "ities"]),
        ("    indented code that is long", 14, ["    indented", "code that is", "long"]),
        ("hi 今天天气怎么样", 8, ["hi 今天", "天气怎么", "样"]),
        ("今天天气，好吗", 8, ["今天天", "气，好吗"]),
        ("（今天）天气", 8, ["（今天）", "天气"]),
        ("한국어 문장입니다", 10, ["한국어", "문장입니다"]),
        ("שלום עולם טוב", 9, ["שלום עולם", "טוב"]),
        ("👨‍👩‍👧👨‍👩‍👧👨‍👩‍👧", 5, ["👨‍👩‍👧👨‍👩‍👧", "👨‍👩‍👧"]),
        ("🇫🇷🇩🇪🇮🇹", 4, ["🇫🇷🇩🇪", "🇮🇹"]),
        ("e\u0301e\u0301e\u0301", 2, ["e\u0301e\u0301", "e\u0301"]),
    ],
)
def test_lines_are_broken_where_readers_expect_it(
    text: str, width: int, expected: list[str]
) -> None:
    assert lines(text, width) == expected


@given(texts, st.integers(2, 30))
def test_wrapping_loses_nothing_but_spaces_and_fits(text: str, width: int) -> None:
    text = clean(text)
    wrapped = lines(text, width)
    assert "".join("".join(wrapped).split()) == "".join(text.split())
    for line in wrapped:
        # A single grapheme wider than the line can't be broken.
        assert cell_len(line) <= width or len(lines(line, 2)) == 1


@given(texts)
def test_cleaned_text_has_nothing_that_steers_a_terminal(text: str) -> None:
    cleaned = clean(text)
    assert not any(
        (ord(character) < 0x20 and character != "\n") or 0x7F <= ord(character) < 0xA0
        for character in cleaned
    )
    assert clean(cleaned) == cleaned


@given(texts, st.integers(1, 20))
def test_fitted_text_has_its_width(text: str, width: int) -> None:
    assert cell_len(fit(one_line(text), width)) == width


def test_what_is_cut_ends_in_an_ellipsis() -> None:
    assert truncate("hello world", 8) == "hello w…"
    assert truncate("你好世界", 6) == "你好…"
    assert truncate("hello", 5) == "hello"
    assert truncate("hello", 0) == ""


def test_right_to_left_text_is_followed_by_a_mark() -> None:
    assert steady("שלום") == "שלום\u200e"
    assert steady("hello") == "hello"
    assert cell_len(steady("مرحبا")) == cell_len("مرحبا")
