from __future__ import annotations

import pytest

from tidings_chat.commands import Run, SendText, Typed, Wrong, matching, parse, user_id


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("hello", SendText("hello")),
        ("  indented\nlines  ", SendText("  indented\nlines  ")),
        ("\nhello\n", SendText("hello")),
        ("//dm bob", SendText("/dm bob")),
        ("/dm bob\nand more", SendText("/dm bob\nand more")),
        ("/dm bob", Run("dm", ("bob",))),
        ("/DM bob", Run("dm", ("bob",))),
        ('/group "Summer trip" bob carol', Run("group", ("Summer trip", "bob", "carol"))),
        ("/group “Summer trip” bob", Run("group", ("Summer trip", "bob"))),
        ("/group Bob's bob carol", Run("group", ("Bob's", "bob", "carol"))),
        ("/leave", Run("leave")),
        ("   \n ", Wrong("")),
        ("/dm", Wrong("Usage: /dm user")),
        ("/leave now", Wrong("Usage: /leave")),
        ("/usr/bin", Wrong("There is no command /usr/bin. Begin with // to send it as text.")),
    ],
)
def test_what_was_typed_is_understood(typed: str, expected: Typed) -> None:
    assert parse(typed) == expected


def test_commands_that_fit_are_proposed() -> None:
    assert [spec.name for spec in matching("/re")] == ["remove", "react", "retry"]
    assert [spec.name for spec in matching("/dm bo")] == ["dm"]
    assert matching("//re") == matching("re") == matching("/no such") == ()


def test_a_user_may_be_written_with_an_at() -> None:
    assert user_id(" @bob ") == user_id("bob") == "bob"
