"""What the list says of one conversation: unread, last message, membership."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings import (
    Availability,
    ConnectionState,
    ConnectionStatus,
    MemberRole,
    Presence,
    ReceiptUpdate,
    ScaleClass,
)
from tidings_chat.model import Chat, Model, Progress

from .made import ME, TALK, added, created, group, message, pending, removed, told, updated


def model_with(conversation: object = None) -> tuple[Model, Chat]:
    model = Model(ME)
    return model, model.tell(conversation or told())  # type: ignore[arg-type]


def receipt(user: str, delivered: int, read: int) -> ReceiptUpdate:
    return ReceiptUpdate(conversation_id=TALK, user_id=user, delivered_seq=delivered, read_seq=read)


def test_messages_after_what_the_server_counted_are_unread() -> None:
    model, chat = model_with(told(10, unread=3, read=7))
    model.fold(message(9))
    assert chat.unread == 3
    model.fold(message(11))
    model.fold(added(12, "dave"))
    assert chat.unread == 4


def test_an_answer_older_than_what_was_seen_does_not_count_it_away() -> None:
    model, chat = model_with(told(10, unread=3, read=7))
    model.fold(message(11))
    model.tell(told(10, unread=3, read=7))
    assert chat.unread == 4
    model.tell(told(11, unread=4, read=7))
    assert chat.unread == 4


def test_reading_to_the_end_leaves_nothing() -> None:
    model, chat = model_with(told(10, unread=3, read=7))
    model.fold(message(11))
    model.read(chat, 11)
    assert (chat.unread, chat.read_seq) == (0, 11)
    # The server has not heard of it yet.
    model.tell(told(11, unread=4, read=7))
    assert (chat.unread, chat.read_seq) == (0, 11)


def test_reading_a_part_asks_the_server_how_much_is_left() -> None:
    model, chat = model_with(told(10, unread=3, read=7))
    model.read(chat, 8)
    assert model.stale() == [chat]
    model.tell(told(10, unread=2, read=8))
    assert (chat.unread, model.stale()) == (2, [])


def test_what_another_device_has_read_before_it_comes_is_not_unread() -> None:
    model, chat = model_with(told(10, read=10))
    model.fold(receipt(ME, 12, 11))
    model.fold(message(11))
    model.fold(message(12))
    assert chat.unread == 1


def test_the_own_mark_of_another_device_counts() -> None:
    model, chat = model_with(told(10, unread=3, read=7))
    model.fold(receipt(ME, 10, 10))
    assert chat.unread == 0


@given(
    heads=st.lists(st.integers(0, 12), max_size=6),
    reads=st.lists(st.integers(0, 12), max_size=6),
)
def test_once_all_is_told_unread_is_what_the_server_says(
    heads: list[int], reads: list[int]
) -> None:
    """Entries come in order; answers and marks at any moment, as they were when the server gave them."""
    model, chat = model_with(told(0))
    read = 0
    for seq in range(1, 13):
        model.fold(message(seq))
        for _ in range(heads.count(seq)):
            model.tell(told(seq, unread=seq - min(read, seq), read=min(read, seq)))
        for _ in range(reads.count(seq)):
            read = seq
            model.read(chat, seq)
    assert chat.unread == 12 - read
    model.tell(told(12, unread=12 - read, read=read))
    assert chat.unread == 12 - read


def test_the_latest_active_is_first_and_the_own_message_that_waits_counts() -> None:
    model = Model(ME)
    other = "0190c1d2-0000-7000-8000-00000000000b"
    model.tell(told(5))
    model.tell(told(6, talk=other, peer_user_id="carol"))
    assert [chat.name for chat in model.listed()] == ["carol", "bob"]
    model.fold(message(7))
    assert [chat.name for chat in model.listed()] == ["bob", "carol"]
    model.fold(message(9, talk=other))
    model.fold(pending("own"))
    assert [chat.name for chat in model.listed()] == ["bob", "carol"]


@pytest.mark.parametrize(
    ("search", "names"),
    [
        ("TRI", ["Summer Trip"]),
        ("bo", ["bob"]),
        ("trip sum", ["Summer Trip"]),
        ("sum bo", []),
        (" ", ["Summer Trip", "bob"]),
    ],
)
def test_a_search_finds_names_with_every_word(search: str, names: list[str]) -> None:
    model = Model(ME)
    model.tell(told(1))
    model.tell(group(2, talk="0190c1d2-0000-7000-8000-00000000000b", title="Summer Trip"))
    assert [chat.name for chat in model.listed(search)] == names


def test_members_come_and_go() -> None:
    model, chat = model_with(group(1))
    model.fold(added(2, "dave", "erin"))
    assert chat.member_count == 5
    model.fold(removed(3, "dave"))
    assert (chat.member_count, chat.left) == (4, False)
    model.fold(removed(4, ME))
    left = [chat.left]
    for role in (MemberRole.MEMBER, MemberRole.UNSPECIFIED):
        model.tell(group(6, role=role))
        left.append(chat.left)
    assert left == [True, False, True]


def test_a_first_entry_does_not_count_its_members_twice() -> None:
    model, chat = model_with(group(2))
    model.fold(created("bob", ME, "carol"))
    model.fold(added(2, "dave"))
    assert chat.member_count == 3


def test_progress_is_told_for_small_conversations_only() -> None:
    model, chat = model_with(told(5))
    model.fold(receipt("bob", 5, 4))
    assert [chat.progress(seq) for seq in (4, 5, 6)] == [
        Progress.READ,
        Progress.DELIVERED,
        Progress.SENT,
    ]
    model.tell(group(5, scale_class=ScaleClass.GROUP))
    assert chat.progress(4) is Progress.SENT


def test_presence_is_unknown_while_there_is_no_connection() -> None:
    model, chat = model_with(told(1))
    online = Presence(
        user_id="bob",
        online=True,
        last_seen_time=None,
        availability=Availability.AVAILABLE,
        status_text="",
    )
    model.fold(ConnectionState(status=ConnectionStatus.ONLINE))
    model.set_presence({"bob": online})
    assert chat.presence == online
    model.fold(ConnectionState(status=ConnectionStatus.OFFLINE, retry_in=1.0))
    assert chat.presence is None


def test_a_title_is_changed() -> None:
    model, chat = model_with(group(5, title="Plan"))
    model.fold(updated(6, title="Trip"))
    model.fold(updated(7, description="far away"))
    assert chat.name == "Trip"
    # An answer from before it.
    model.tell(group(5, title="Plan"))
    assert chat.name == "Trip"
    model.tell(group(9, title="Journey"))
    assert chat.name == "Journey"


def test_a_title_stays_when_its_changes_are_none_of_ours_any_more() -> None:
    model, chat = model_with(group(5, title="Plan"))
    model.tell(group(6, title="", role=MemberRole.UNSPECIFIED))
    assert (chat.left, chat.name) == (True, "Plan")
