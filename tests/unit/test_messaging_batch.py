"""Batches: which proposals go into one commit, and what page they make."""

from __future__ import annotations

from collections import deque

import pytest

from tests.unit.made import LOG, NOW_MS, change_id, content, messages, page_of
from tidings_server.codec.entries import decode_entries
from tidings_server.core import state as folding
from tidings_server.core.commands import ChangeId
from tidings_server.core.entries import (
    ConversationCreated,
    ConversationJoined,
    ConversationKind,
    Entry,
    NewMember,
    Role,
    UnknownBody,
)
from tidings_server.core.ids import SKEW_MS
from tidings_server.core.memberships import Interval, Membership
from tidings_server.core.pages import MAX_PAGE_BYTES, MAX_PAGE_ENTRIES, PageFlag
from tidings_server.core.state import ConversationState
from tidings_server.errors import DomainError, Reason
from tidings_server.messaging.batch import MAX_PENDING, Batch, build
from tidings_server.messaging.log_state import LogState
from tidings_server.messaging.proposals import (
    Add,
    Committed,
    Create,
    NoteInInbox,
    PostMessage,
    Proposal,
    Remove,
)
from tidings_server.storage.base import Head

COMMIT = b"c" * 16


class Told:
    """The outcomes of proposals, in order."""

    def __init__(self) -> None:
        self.outcomes: list[Committed | DomainError] = []

    def __call__(self, outcome: Committed | DomainError) -> None:
        self.outcomes.append(outcome)

    def reasons(self) -> list[Reason]:
        return [o.reason for o in self.outcomes if isinstance(o, DomainError)]


def state_at(head: int, *, stamp: int = NOW_MS, users: tuple[str, ...] = ("alice",)) -> LogState:
    """A group whose members are known."""
    state = LogState(LOG, Head(head, head - 1, stamp, b"h" * 16) if head else None)
    state.conversation = ConversationState(
        seq=1, kind=ConversationKind.GROUP, creator="alice", member_count=len(users)
    )
    for user in users:
        role = Role.OWNER if user == "alice" else Role.MEMBER
        state.memberships[user] = Membership(user, role, 1, (Interval(1, 0),))
    state.recent.unseen_time = -1
    return state


def post(
    told: Told,
    text: str = "x",
    *,
    change: ChangeId | None = None,
    user: str = "alice",
    after: ChangeId | None = None,
) -> PostMessage:
    return PostMessage(LOG, change or change_id(), user, told, content(text), after)


def ready(proposal: Proposal) -> Proposal:
    proposal.ready = True
    return proposal


def build_all(state: LogState, *proposals: Proposal, now_ms: int = NOW_MS) -> tuple[Batch, int]:
    """The batch, and how many proposals are left."""
    queue = deque(proposals)
    batch = build(state, queue, now_ms, COMMIT)
    assert batch is not None
    return batch, len(queue)


def test_a_page_of_what_waits() -> None:
    told = Told()
    proposals = [post(told, f"text {i}") for i in range(5)]
    batch, left = build_all(state_at(7), *proposals)
    append, page = batch.append, batch.append.page
    assert left == 0
    assert (append.log, append.expected_head, append.pending) == (LOG, 7, ())
    assert append.snapshot is None
    assert (page.first_seq, page.count, page.ordinal) == (8, 5, 11)
    assert (page.stamp, page.commit_id, page.flags, page.rev) == (NOW_MS, COMMIT, 0, 0)
    assert page.ids == b"".join(p.id.raw for p in proposals)
    entries = decode_entries(page.body)
    assert [(e.seq, e.ordinal, e.id) for e in entries] == [
        (8 + i, 7 + i, p.id.text) for i, p in enumerate(proposals)
    ]
    assert {(e.log, e.user_id, e.time_ms) for e in entries} == {(LOG, "alice", NOW_MS)}
    assert [c for _, c in batch.accepted] == [Committed(8 + i, NOW_MS) for i in range(5)]
    assert not told.outcomes, "nobody is told before the page is durable"


def test_at_most_a_hundred_entries() -> None:
    told = Told()
    batch, left = build_all(state_at(1), *(post(told) for _ in range(MAX_PAGE_ENTRIES + 20)))
    assert batch.append.page.count == MAX_PAGE_ENTRIES
    assert left == 20


def test_a_page_ends_when_it_is_large() -> None:
    told = Told()
    batch, left = build_all(state_at(1), *(post(told, "x" * 16_000) for _ in range(20)))
    assert batch.append.page.count + left == 20
    assert MAX_PAGE_BYTES <= len(batch.append.page.body) < MAX_PAGE_BYTES + 17_000


@pytest.mark.parametrize(("head", "count"), [(9_990, 10), (9_999, 1), (10_000, 30), (10_001, 30)])
def test_a_page_lies_in_one_bucket(head: int, count: int) -> None:
    told = Told()
    state = state_at(head)
    batch, left = build_all(state, *(post(told) for _ in range(30)))
    assert batch.append.page.count == count
    assert left == 30 - count
    expected = folding.dump(state.conversation) if head == 10_000 else None
    assert batch.append.snapshot == expected


def test_the_first_page_of_a_log_carries_a_snapshot() -> None:
    told = Told()
    body = ConversationCreated(ConversationKind.GROUP, "", (NewMember("alice", Role.OWNER),))
    state = LogState(LOG, None)
    state.memberships["alice"] = None
    batch, _ = build_all(state, ready(Create(LOG, change_id(), "alice", told, body)))
    assert batch.append.snapshot == folding.dump(folding.EMPTY)
    assert batch.append.page.flags == PageFlag.STATE
    assert batch.append.page.ordinal == 0
    assert batch.append.pending == (1,)


def test_stamps_never_go_back() -> None:
    told = Told()
    batch, _ = build_all(state_at(3, stamp=NOW_MS + 5000), post(told), now_ms=NOW_MS)
    assert batch.append.page.stamp == NOW_MS + 5000
    batch, _ = build_all(state_at(3, stamp=NOW_MS - 5000), post(told), now_ms=NOW_MS)
    assert batch.append.page.stamp == NOW_MS


@pytest.mark.parametrize(("ahead", "taken"), [(SKEW_MS, True), (SKEW_MS + 1, False)])
def test_an_id_lies_at_most_five_minutes_ahead(ahead: int, taken: bool) -> None:
    told = Told()
    queue: deque[Proposal] = deque([post(told, change=change_id(NOW_MS + ahead))])
    batch = build(state_at(3), queue, NOW_MS, COMMIT)
    assert (batch is not None) == taken
    assert told.reasons() == ([] if taken else [Reason.ID_AHEAD])
    if not taken:
        (problem,) = told.outcomes
        assert isinstance(problem, DomainError)
        assert problem.field == "message_id"
        assert problem.metadata == {"server_time_ms": str(NOW_MS)}


def test_the_field_of_a_change_that_lies_ahead_is_its_own() -> None:
    told = Told()
    add = Add(LOG, change_id(NOW_MS + 2 * SKEW_MS), "alice", told, (NewMember("bob"),), 10)
    state = state_at(3)
    state.memberships["bob"] = None
    assert build(state, deque([ready(add)]), NOW_MS, COMMIT) is None
    (problem,) = told.outcomes
    assert isinstance(problem, DomainError)
    assert (problem.reason, problem.field) == (Reason.ID_AHEAD, "request_id")


def test_the_same_id_goes_into_another_commit() -> None:
    """By then the first is known, and the second is answered with its position."""
    told = Told()
    change = change_id()
    batch, left = build_all(
        state_at(3), post(told), post(told, change=change), post(told, change=change)
    )
    assert batch.append.page.count == 2
    assert left == 1


def test_an_id_that_is_known_is_looked_at_first() -> None:
    told = Told()
    state = state_at(3)
    change = change_id()
    state.recent.add(change.raw, 2, NOW_MS)
    queue: deque[Proposal] = deque([post(told, change=change)])
    assert build(state, queue, NOW_MS, COMMIT) is None
    assert len(queue) == 1
    assert not told.outcomes


def test_an_id_of_another_sender_is_no_duplicate() -> None:
    told = Told()
    state = state_at(3)
    change = change_id()
    state.recent.add(change.raw, 2, NOW_MS)
    state.recent.add(change.raw, 3, NOW_MS)
    proposal = post(told, change=change)
    proposal.cleared = frozenset({2})
    assert build(state, deque([proposal]), NOW_MS, COMMIT) is None, "one of them was not looked at"
    proposal.cleared = frozenset({2, 3})
    batch, _ = build_all(state, proposal)
    assert batch.append.page.count == 1


def test_an_old_id_is_looked_up_first() -> None:
    told = Told()
    state = state_at(3)
    state.recent.unseen_time = NOW_MS
    proposal = post(told, change=change_id(NOW_MS))
    assert build(state, deque([proposal]), NOW_MS, COMMIT) is None
    proposal.absent_upto = NOW_MS - 1
    assert build(state, deque([proposal]), NOW_MS, COMMIT) is None
    proposal.absent_upto = NOW_MS
    assert build(state, deque([proposal]), NOW_MS, COMMIT) is not None


def test_a_stranger_is_refused_without_any_look_up() -> None:
    told = Told()
    state = state_at(3)
    state.recent.unseen_time = NOW_MS
    state.memberships["mallory"] = None
    queue: deque[Proposal] = deque([post(told, user="mallory")])
    assert build(state, queue, NOW_MS, COMMIT) is None
    assert not queue
    assert told.reasons() == [Reason.CONVERSATION_NOT_FOUND]


def test_who_is_refused_does_not_hold_up_the_others() -> None:
    told, refused = Told(), Told()
    state = state_at(3)
    state.memberships["mallory"] = None
    batch, left = build_all(state, post(told), post(refused, user="mallory"), post(told))
    assert batch.append.page.count == 2
    assert left == 0
    assert refused.reasons() == [Reason.CONVERSATION_NOT_FOUND]


def test_a_member_that_is_not_known_is_read_first() -> None:
    told = Told()
    batch, left = build_all(state_at(3), post(told), post(told, user="bob"), post(told))
    assert batch.append.page.count == 1
    assert left == 2


# Predecessors


def test_a_predecessor_in_the_same_commit() -> None:
    told = Told()
    first = post(told)
    batch, left = build_all(state_at(3), first, post(told, after=first.id))
    assert (batch.append.page.count, left) == (2, 0)


def test_a_predecessor_that_is_there() -> None:
    told = Told()
    state = state_at(3)
    before = change_id()
    state.recent.add(before.raw, 2, NOW_MS)
    batch, _ = build_all(state, post(told, after=before))
    assert batch.append.page.count == 1


def test_a_predecessor_that_is_not_there() -> None:
    told = Told()
    assert build(state_at(3), deque([post(told, after=change_id())]), NOW_MS, COMMIT) is None
    (problem,) = told.outcomes
    assert isinstance(problem, DomainError)
    assert (problem.reason, problem.field) == (Reason.PREDECESSOR_MISSING, "after_message_id")


def test_a_predecessor_that_was_refused_takes_those_after_it_along() -> None:
    told = Told()
    first = post(told, change=change_id(NOW_MS + 2 * SKEW_MS))
    second = post(told, after=first.id)
    third = post(told, after=second.id)
    assert build(state_at(3), deque([first, second, third]), NOW_MS, COMMIT) is None
    assert told.reasons() == [
        Reason.ID_AHEAD,
        Reason.PREDECESSOR_MISSING,
        Reason.PREDECESSOR_MISSING,
    ]


def test_an_old_predecessor_is_looked_up_first() -> None:
    told = Told()
    state = state_at(3)
    before = change_id(NOW_MS - 10)
    state.recent.unseen_time = NOW_MS - 5
    proposal = post(told, after=before)
    assert build(state, deque([proposal]), NOW_MS, COMMIT) is None
    assert not told.outcomes
    proposal.after_found = True
    assert build(state, deque([proposal]), NOW_MS, COMMIT) is not None


# Changes of the state


def test_a_change_of_the_state_ends_its_page() -> None:
    told = Told()
    state = state_at(3, users=("alice", "bob"))
    remove = ready(Remove(LOG, change_id(), "alice", told, "bob"))
    batch, left = build_all(state, post(told), remove, post(told, user="bob"))
    page = batch.append.page
    assert (page.count, left) == (2, 1)
    assert page.flags == PageFlag.STATE | PageFlag.REMOVAL
    assert batch.append.pending == (5,)
    assert [change.seq for change in batch.changes] == [5]


def test_a_change_waits_until_everything_is_ready_for_it() -> None:
    told = Told()
    state = state_at(3, users=("alice", "bob"))
    remove = Remove(LOG, change_id(), "alice", told, "bob")
    batch, left = build_all(state, post(told), remove)
    assert (batch.append.page.count, left) == (1, 1)


def test_changes_wait_while_the_effects_of_many_are_pending() -> None:
    told = Told()
    state = state_at(30, users=("alice", "bob"))
    state.pending = tuple(range(1, MAX_PENDING + 1))
    remove = ready(Remove(LOG, change_id(), "alice", told, "bob"))
    assert build(state, deque([remove]), NOW_MS, COMMIT) is None
    assert not told.outcomes
    batch, _ = build_all(state, post(told))
    assert batch.append.pending == state.pending


def test_nothing_to_change_is_no_entry() -> None:
    told = Told()
    state = state_at(3)
    state.memberships["bob"] = None
    remove = ready(Remove(LOG, change_id(), "alice", told, "bob"))
    add = ready(Add(LOG, change_id(), "alice", told, (NewMember("alice"),), 10))
    assert build(state, deque([remove, add]), NOW_MS, COMMIT) is None
    assert told.outcomes == [Committed(0, NOW_MS), Committed(0, NOW_MS)]


def test_only_those_who_are_no_members_are_added() -> None:
    told = Told()
    state = state_at(3, users=("alice", "bob"))
    state.memberships["carol"] = None
    state.memberships["dave"] = Membership("dave", Role.OWNER, 3, (Interval(1, 0, 3),))
    members = (NewMember("bob", Role.OWNER), NewMember("carol"), NewMember("dave"))
    batch, _ = build_all(state, ready(Add(LOG, change_id(), "alice", told, members, 10)))
    (entry,) = decode_entries(batch.append.page.body)
    assert entry.body == batch.changes[0].body
    assert [m.user_id for m in getattr(entry.body, "members", ())] == ["carol", "dave"]


@pytest.mark.parametrize(("most", "taken"), [(4, True), (3, False)])
def test_a_group_has_a_largest_number_of_members(most: int, taken: bool) -> None:
    told = Told()
    state = state_at(3, users=("alice", "bob"))
    state.memberships.update(carol=None, dave=None)
    members = (NewMember("carol"), NewMember("dave"))
    add = ready(Add(LOG, change_id(), "alice", told, members, most))
    assert (build(state, deque([add]), NOW_MS, COMMIT) is not None) == taken
    assert told.reasons() == ([] if taken else [Reason.MEMBER_LIMIT])


def test_notes_of_an_inbox_go_together() -> None:
    told = Told()
    state = LogState("inbox:alice", None)
    notes = [
        NoteInInbox(
            "inbox:alice",
            change_id(),
            "bob",
            told,
            ConversationJoined(LOG, ConversationKind.GROUP, "", i + 1, Role.MEMBER),
        )
        for i in range(3)
    ]
    batch, left = build_all(state, *notes)
    assert (batch.append.page.count, left) == (3, 0)
    assert batch.append.page.flags == PageFlag.STATE
    assert batch.append.page.ordinal == 0
    assert batch.append.pending == ()
    assert not batch.changes


def test_a_note_is_written_though_the_clock_went_back() -> None:
    """The change that it notes is durable: its time is that of a log whose stamps stay ahead."""
    told = Told()
    change = change_id(NOW_MS + 3_600_000)
    joined = ConversationJoined(LOG, ConversationKind.GROUP, "", 1, Role.MEMBER)
    note = NoteInInbox("inbox:alice", change, "bob", told, joined)
    batch, _ = build_all(LogState("inbox:alice", None), note)
    assert not told.outcomes
    # A look-up of this id reads back to five minutes before its time.
    assert batch.append.page.stamp >= change.time_ms - SKEW_MS


def test_a_log_of_a_newer_version_is_not_appended_to() -> None:
    told = Told()
    state = state_at(3)
    state.conversation = folding.fold(
        state.conversation, Entry(LOG, 3, 2, LOG, "alice", NOW_MS, UnknownBody())
    )
    assert build(state, deque([post(told), post(told)]), NOW_MS, COMMIT) is None
    assert told.reasons() == [Reason.STORE_UNAVAILABLE] * 2


# The state after a page


def test_a_state_moves_by_pages() -> None:
    state = state_at(3)
    entries = messages(4, 3)
    page = page_of(entries)
    state.apply(page, ())
    assert (state.head, state.ordinal, state.stamp) == (6, 6, NOW_MS)
    assert [state.recent.find(p) for p in (page.ids[:16], page.ids[16:32], page.ids[32:])] == [
        4,
        5,
        6,
    ]
    with pytest.raises(AssertionError):
        state.apply(page, ())
