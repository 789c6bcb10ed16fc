from __future__ import annotations

from tidings import Member, MemberRole, Receipt
from tidings_chat.model import Marks, Progress


def three() -> Marks:
    marks = Marks()
    members = [
        Member(user, MemberRole.MEMBER, joined)
        for user, joined in (("me", 1), ("bob", 1), ("carol", 1), ("dave", 10))
    ]
    marks.load("me", members, [Receipt("bob", 9, 7), Receipt("me", 9, 9)])
    return marks


def test_what_not_all_have_got_is_sent() -> None:
    assert three().progress(5) is Progress.SENT


def test_what_the_slowest_has_counts() -> None:
    marks = three()
    marks.move("carol", 6, 3)
    assert [marks.progress(seq) for seq in (3, 5, 7)] == [
        Progress.READ,
        Progress.DELIVERED,
        Progress.SENT,
    ]


def test_who_joined_later_is_not_waited_for() -> None:
    marks = three()
    marks.move("carol", 20, 20)
    marks.move("bob", 20, 20)
    assert marks.progress(9) is Progress.READ
    assert marks.progress(11) is Progress.SENT
    marks.leave("dave")
    assert marks.progress(11) is Progress.READ


def test_marks_never_go_back() -> None:
    marks = three()
    marks.move("bob", 2, 2)
    assert (marks.delivered["bob"], marks.read["bob"]) == (9, 7)


def test_what_was_read_was_delivered() -> None:
    marks = three()
    marks.move("bob", 0, 12)
    assert marks.delivered["bob"] == 12


def test_nothing_is_claimed_while_the_members_are_unknown_or_nobody_else_is_there() -> None:
    marks = Marks()
    marks.move("bob", 5, 5)
    assert marks.progress(3) is Progress.SENT
    marks.load("me", [Member("me")], [])
    assert marks.progress(3) is Progress.SENT


def test_who_has_read_and_who_has_only_got_it() -> None:
    marks = three()
    marks.move("carol", 8, 0)
    assert (marks.readers(7), marks.receivers(7)) == (["bob"], ["carol"])
