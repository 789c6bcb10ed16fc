"""What a conversation looks like, from top to bottom."""

from __future__ import annotations

from datetime import UTC, date, timedelta
from typing import Any

from tidings import (
    MemberBanned,
    MemberMuted,
    MemberRemoved,
    MemberRole,
    MemberRoleSet,
    MessageFailed,
    NotFound,
)
from tidings_chat.model import Model, Progress
from tidings_chat.transcript import Bubble, DayLine, Item, NewLine, Note, transcript

from .made import (
    ME,
    START,
    TALK,
    added,
    common,
    created,
    group,
    loaded,
    message,
    pending,
    removed,
    told,
    updated,
)

TODAY = date(2026, 6, 3)
DAY = 24 * 60


def items(*entries: Any, conversation: Any = None, new_after: int | None = None) -> list[Item]:
    model = Model(ME)
    model.tell(conversation or told(50))
    chat = loaded(model, *entries)
    return transcript(chat, ME, UTC, TODAY, new_after)


def bubbles(found: list[Item]) -> list[Bubble]:
    return [item for item in found if isinstance(item, Bubble)]


def test_days_are_divided() -> None:
    found = items(
        message(1, minutes=-400 * DAY),
        message(2, minutes=-8 * DAY),
        message(3, minutes=-DAY),
        message(4, minutes=-DAY + 1),
        message(5, minutes=0),
    )
    days = [item.text for item in found if isinstance(item, DayLine)]
    assert days == ["Tuesday 29 April 2025", "Tuesday 26 May", "Yesterday", "Today"]


def test_a_run_of_one_sender_is_headed_once() -> None:
    found = bubbles(
        items(
            message(1, user="bob"),
            message(2, user="bob"),
            message(3, user="carol"),
            message(4, user="bob"),
            message(5, user="bob", minutes=30),
            message(6, user=ME, minutes=31),
            conversation=group(50),
        )
    )
    assert [bubble.named for bubble in found] == [True, False, True, True, True, False]
    assert [bubble.begins_run for bubble in found] == [True, False, True, True, True, True]


def test_names_are_not_shown_where_there_are_only_two() -> None:
    assert not any(bubble.named for bubble in bubbles(items(message(1), message(2, user=ME))))


def test_what_is_new_begins_at_the_first_unread_message_of_others() -> None:
    found = items(message(1), message(2, user=ME), message(3), message(4), new_after=1)
    index = next(i for i, item in enumerate(found) if isinstance(item, NewLine))
    after = found[index + 1]
    assert isinstance(after, Bubble)
    assert (after.seq, after.begins_run) == (3, True)
    assert not any(isinstance(item, NewLine) for item in items(message(1), message(2)))


def test_changes_of_a_group_are_told() -> None:
    found = items(
        created("bob", ME, "carol"),
        added(2, "dave"),
        added(3, "e1", "e2", "e3", "e4", "e5"),
        removed(4, "dave"),
        removed(5, "carol", by="carol"),
        updated(6, title="Journey\x1b"),
        updated(7, ME, title=""),
        updated(8, description="far\naway"),
        updated(9, picture="p"),
        removed(10, ME),
        conversation=group(50),
    )
    assert [item.text for item in found if isinstance(item, Note)][1:] == [
        "bob made the group “Trip” with you and carol",
        "bob added dave",
        "bob added e1, e2, e3 and 2 others",
        "bob removed dave",
        "carol left",
        "bob named the group “Journey␛”",
        "You took the name of the group away",
        "bob described the group: far away",
        "bob changed what is said of the group",
        "bob removed you",
    ]


def test_own_messages_tell_how_far_they_are() -> None:
    model = Model(ME)
    chat = model.tell(told(50))
    loaded(model, message(7, user=ME), message(8, user=ME), message(9))
    chat.marks.move("bob", 8, 7)
    model.fold(pending("waits"))
    model.fold(pending("fails"))
    model.fold(
        MessageFailed(
            conversation_id=TALK,
            message_id="fails",
            text="",
            reply_to=None,
            error=NotFound("", reason="CONVERSATION_NOT_FOUND"),
        )
    )
    found = bubbles(transcript(chat, ME, UTC, TODAY))
    assert [bubble.progress for bubble in found] == [
        Progress.READ,
        Progress.DELIVERED,
        None,
        Progress.QUEUED,
        Progress.FAILED,
    ]
    assert found[-1].problem == "you are not a member of this conversation"


def test_a_message_keeps_its_key_from_the_outbox_to_the_log() -> None:
    model = Model(ME)
    chat = model.tell(told(1))
    loaded(model, message(1))
    model.fold(pending("own"))
    (waiting,) = bubbles(transcript(chat, ME, UTC, TODAY))[1:]
    model.fold(message(2, "out", ME, message_id="own"))
    (sent,) = bubbles(transcript(chat, ME, UTC, TODAY))[1:]
    assert waiting.key == sent.key


def test_replies_quote() -> None:
    found = bubbles(
        items(
            message(1, "first\nline"),
            message(2, reply_to="id-1"),
            message(3, reply_to="unknown"),
        )
    )
    assert found[1].quote is not None
    assert (found[1].quote.sender, found[1].quote.text) == ("bob", "first line")
    assert found[2].quote is not None
    assert (found[2].quote.sender, found[2].quote.text) == ("", "…")


def test_text_is_made_harmless() -> None:
    (found,) = bubbles(items(message(1, "a\x1b[31mb\x07\tc\r\nd\u202ee")))
    assert found.text == "a␛[31mb␇    c\nde"


def test_what_is_kept_from_members_is_told() -> None:
    later = START + timedelta(hours=1)
    found = items(
        created("bob", ME, "carol"),
        MemberRoleSet(**common(2, "bob"), roles={ME: MemberRole.OWNER, "bob": MemberRole.ADMIN}),
        MemberMuted(**common(3, ME), muted_user_id="carol", expire_time=later),
        MemberMuted(**common(4, ME), muted_user_id="carol", expire_time=None),
        MemberRemoved(**common(5, ME), removed_user_id="carol", ban_expire_time=later),
        MemberBanned(**common(6, "bob"), banned_user_id="carol", expire_time=None),
        conversation=group(50),
    )
    assert [item.text for item in found if isinstance(item, Note)][2:] == [
        "bob made you an owner and bob an admin",
        "You muted carol",
        "You unmuted carol",
        "You banned carol",
        "bob lifted the ban of carol",
    ]
