"""The held stretch of a conversation, whatever comes in whatever order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tidings import (
    Gap,
    IncarnationChanged,
    Message,
    MessageDeleted,
    MessageEdited,
    MessageFailed,
    MessageSent,
    MessageState,
    NotFound,
    PositionLost,
    Unavailable,
)
from tidings_chat.model import Chat, Loading, Model

from .made import ME, TALK, at, common, loaded, message, pending, told


def open_model(head: int = 10) -> tuple[Model, Chat]:
    model = Model(ME)
    return model, model.tell(told(head))


def seqs(chat: Chat) -> list[int]:
    return [entry.seq for entry in chat.timeline.entries]


def sent(message_id: str, seq: int) -> MessageSent:
    return MessageSent(conversation_id=TALK, message_id=message_id, seq=seq, time=at(seq))


def test_entries_are_not_kept_before_somebody_looks() -> None:
    model, chat = open_model()
    model.fold(message(11))
    assert (seqs(chat), chat.last and chat.last.seq) == ([], 11)


def test_what_comes_while_the_newest_page_is_fetched_is_joined_to_it() -> None:
    model, chat = open_model()
    generation = chat.timeline.begin()
    model.fold(message(11))
    model.fold(message(12))
    page = [message(seq) for seq in (11, 10, 9)]
    assert model.load(chat, generation, page, at_top=False)
    assert (seqs(chat), chat.timeline.low) == ([9, 10, 11, 12], 9)


def test_older_pages_are_put_before() -> None:
    model, _ = open_model()
    chat = loaded(model, message(9), message(10), at_top=False)
    generation = chat.timeline.generation
    assert model.load(chat, generation, [message(8), message(7)], at_top=True)
    assert (seqs(chat), chat.timeline.low, chat.timeline.at_top) == ([7, 8, 9, 10], 7, True)


def test_after_a_gap_only_what_follows_it_is_held() -> None:
    model, _ = open_model()
    chat = loaded(model, message(9), message(10))
    before = chat.timeline.generation
    model.fold(Gap(conversation_id=TALK, from_seq=11, to_seq=500))
    model.fold(message(501))
    assert (seqs(chat), chat.timeline.low, chat.timeline.at_top) == ([501], 501, False)
    assert not model.load(chat, before, [message(8)], at_top=True)
    assert seqs(chat) == [501]
    assert model.load(chat, chat.timeline.generation, [message(500), message(499)], at_top=False)
    assert seqs(chat) == [499, 500, 501]


def test_a_gap_while_the_newest_page_is_fetched() -> None:
    model, chat = open_model()
    generation = chat.timeline.begin()
    model.fold(Gap(conversation_id=TALK, from_seq=1, to_seq=500))
    model.fold(message(501))
    assert not model.load(chat, generation, [message(10)], at_top=False)
    assert (seqs(chat), chat.timeline.loading) == ([501], Loading.LOADED)


def test_a_gap_of_the_inbox_puts_every_conversation_in_doubt() -> None:
    model, chat = open_model()
    model.fold(Gap(conversation_id=f"inbox:{ME}", from_seq=1, to_seq=5))
    assert model.stale() == [chat]


def test_trimming_keeps_the_newest() -> None:
    model, _ = open_model()
    chat = loaded(model, *(message(seq) for seq in range(1, 11)))
    assert chat.timeline.trim(4)
    assert (seqs(chat), chat.timeline.low, chat.timeline.at_top) == ([7, 8, 9, 10], 7, False)
    assert chat.timeline.find("id-3") is None
    assert not chat.timeline.trim(4)


def test_a_page_that_could_not_be_had_can_be_asked_for_again() -> None:
    _, chat = open_model()
    chat.timeline.fail(chat.timeline.begin(), Unavailable("no"))
    assert isinstance(chat.timeline.problem, Unavailable)
    assert chat.timeline.loading is Loading.NOTHING
    chat.timeline.begin()
    assert chat.timeline.problem is None


def test_an_own_message_is_shown_once_from_the_outbox_to_the_log() -> None:
    model, _ = open_model()
    chat = loaded(model, message(10))
    model.fold(pending("own"))
    assert (model.queued, list(chat.timeline.outgoing)) == (1, ["own"])
    model.fold(sent("own", 11))
    assert (model.queued, chat.timeline.outgoing["own"].seq) == (0, 11)
    model.fold(message(11, user=ME, message_id="own"))
    assert (list(chat.timeline.outgoing), seqs(chat)) == ([], [10, 11])


def test_the_entry_may_come_before_the_answer() -> None:
    model, _ = open_model()
    chat = loaded(model, message(10))
    model.fold(pending("own"))
    model.fold(message(11, user=ME, message_id="own"))
    model.fold(sent("own", 11))
    assert (list(chat.timeline.outgoing), seqs(chat)) == ([], [10, 11])


def test_a_restored_message_that_the_server_has_is_not_shown_twice() -> None:
    model, chat = open_model(11)
    model.fold(pending("own", restored=True))
    loaded(model, message(10), message(11, user=ME, message_id="own"))
    assert (list(chat.timeline.outgoing), seqs(chat)) == ([], [10, 11])
    # It stands in a page that isn't held.
    model.fold(pending("old", restored=True))
    model.fold(sent("old", 3))
    assert list(chat.timeline.outgoing) == []


def test_a_renamed_message_keeps_its_place() -> None:
    model, chat = open_model()
    for name in ("a", "b", "c"):
        model.fold(pending(name))
    model.fold(pending("b2", replaces="b"))
    assert list(chat.timeline.outgoing) == ["a", "b2", "c"]


def test_a_failed_message_stays_with_its_reason_until_it_is_dealt_with() -> None:
    model, chat = open_model()
    model.fold(pending("own"))
    model.fold(
        MessageFailed(
            conversation_id=TALK,
            message_id="own",
            text="out",
            reply_to=None,
            error=NotFound("gone", reason="CONVERSATION_NOT_FOUND"),
        )
    )
    assert isinstance(chat.timeline.outgoing["own"].error, NotFound)
    assert model.queued == 0
    assert chat.timeline.forget("own") is not None
    assert not chat.timeline.outgoing


def test_a_failure_of_an_earlier_process_is_dated_by_its_id() -> None:
    model, chat = open_model()
    failed = MessageFailed(
        conversation_id=TALK,
        message_id="01985d90-e000-7000-8000-000000000000",
        text="out",
        reply_to=None,
        error=NotFound("gone"),
    )
    model.fold(failed)
    (own,) = chat.timeline.outgoing.values()
    assert own.time.timestamp() * 1000 == 0x01985D90E000


def test_a_lost_position_drops_what_is_held() -> None:
    model, _ = open_model()
    chat = loaded(model, message(9), message(10))
    model.fold(PositionLost(conversation_id=TALK, seq=9))
    assert (seqs(chat), chat.timeline.loading, chat.head_seq) == ([], Loading.NOTHING, 9)
    model.fold(message(10, "another"))
    assert (chat.head_seq, chat.unread) == (10, 1)


def test_after_a_restore_what_does_not_hold_is_dropped() -> None:
    model, _ = open_model()
    chat = loaded(model, message(9), message(10))
    model.fold(IncarnationChanged(incarnation="new", positions={TALK: 8}))
    assert (seqs(chat), chat.head_seq, model.stale()) == ([], 8, [chat])


def test_quotes_that_are_not_held_are_missing_until_they_are_known() -> None:
    model, _ = open_model()
    chat = loaded(model, message(9), message(10, reply_to="id-9"), message(11, reply_to="id-2"))
    assert chat.timeline.missing_quotes() == ["id-2"]
    chat.timeline.quote("id-2", message(2))
    assert chat.timeline.missing_quotes() == []
    quoted = chat.timeline.find("id-2")
    assert quoted is not None
    assert quoted.text == "text 2"


@pytest.mark.parametrize("change", ["edit", "deletion", "state", "gap"])
def test_a_quote_is_fetched_anew_when_something_became_of_it(change: str) -> None:
    model, _ = open_model()
    chat = loaded(model, message(9), message(10, reply_to="id-2"))
    chat.timeline.quote("id-2", message(2))
    if change == "edit":
        model.fold(edited(11, 2, "changed"))
    elif change == "deletion":
        model.fold(deleted(11, 2))
    elif change == "state":
        model.fold(MessageState(conversation_id=TALK, seq=2, as_of=12, deleted=True))
    else:
        model.fold(Gap(conversation_id=TALK, from_seq=11, to_seq=12))
        chat = loaded(model, message(13, reply_to="id-2"))
    assert chat.timeline.missing_quotes() == ["id-2"]


def test_a_quote_says_what_the_message_says_now() -> None:
    model, _ = open_model()
    chat = loaded(model, message(10, reply_to="id-2"))
    now = MessageState(conversation_id=TALK, seq=2, as_of=8, text="changed", edit_seqs=(8,))
    chat.timeline.quote("id-2", replace(message(2), state=now))
    quoted = chat.timeline.find("id-2")
    assert quoted is not None
    assert quoted.text == "changed"


# What becomes of messages


def edited(seq: int, about: int, text: str) -> MessageEdited:
    return MessageEdited(**common(seq, "bob"), message_seq=about, text=text, reply_to=None)


def deleted(seq: int, about: int) -> MessageDeleted:
    return MessageDeleted(**common(seq, "bob"), message_seq=about)


def texts(chat: Chat) -> list[str]:
    return [e.text for e in chat.timeline.entries if isinstance(e, Message)]


def test_messages_are_shown_as_they_are_now() -> None:
    model, _ = open_model()
    chat = loaded(model, message(9), message(10))
    model.fold(edited(11, 9, "better"))
    assert (seqs(chat), texts(chat)) == ([9, 10], ["better", "text 10"])
    model.fold(deleted(12, 10))
    assert texts(chat) == ["better", ""]
    model.fold(edited(13, 3, "not held yet"))
    generation = chat.timeline.generation
    assert model.load(chat, generation, [edited(5, 3, "in between"), message(3)], at_top=True)
    assert texts(chat) == ["not held yet", "better", ""]
    state = MessageState(conversation_id=TALK, seq=9, as_of=14, text="best", edit_seqs=(11, 14))
    model.fold(state)
    assert texts(chat) == ["not held yet", "best", ""]
    assert chat.unread == model.tell(told(10)).unread, "no change is a message"


def test_the_list_shows_what_the_last_message_says_now() -> None:
    model, chat = open_model()
    model.fold(message(11, "last"))
    model.fold(edited(12, 11, "last but better"))
    assert isinstance(chat.last, Message)
    assert (chat.last.seq, chat.last.text, chat.head_seq) == (11, "last but better", 12)
    model.fold(edited(13, 5, "another"))
    assert (chat.last.seq, chat.last.text) == (11, "last but better")
    model.fold(deleted(14, 11))
    assert chat.last.erased
