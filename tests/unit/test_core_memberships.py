"""Memberships and the state of a conversation as folds: order, repetition, what may be seen."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.made import LOG, NOW_MS, content
from tidings_server.core import state as folding
from tidings_server.core.entries import (
    Body,
    ConversationCreated,
    ConversationJoined,
    ConversationKind,
    Entry,
    MemberRemoved,
    MembersAdded,
    MessagePosted,
    NewMember,
    Role,
    UnknownBody,
)
from tidings_server.core.memberships import (
    Interval,
    Membership,
    affected_users,
    fold_membership,
)

USERS = ["alice", "bob", "carol", "dave"]


def _history(first: int, steps: list[int]) -> list[Entry]:
    """What happened in a group, as decisions allow it: only members post and are removed, only others are added.

    Numbers stand for choices: drawing each by itself would take most of the time.
    """

    def some(users: list[str], bits: int) -> list[str]:
        return [u for i, u in enumerate(users) if bits >> i & 1] or users[:1]

    def new(users: list[str]) -> tuple[NewMember, ...]:
        return tuple(NewMember(u, Role(1 + len(u) % 2)) for u in users)

    inside = some(USERS, first)
    bodies: list[tuple[str, Body]] = [
        ("alice", ConversationCreated(ConversationKind.GROUP, "Plan", new(inside)))
    ]
    for number in steps:
        step, choice = number % 3, number // 3
        outside = [u for u in USERS if u not in inside]
        if step == 0 and inside:
            bodies.append((inside[choice % len(inside)], MessagePosted(content("x"))))
        elif step == 1 and outside:
            joining = some(outside, choice)
            bodies.append(("alice", MembersAdded(new(joining))))
            inside += joining
        elif step == 2 and inside:
            gone = inside.pop(choice % len(inside))
            bodies.append((gone, MemberRemoved(gone)))
    ordinal = 0
    entries = []
    for seq, (user, body) in enumerate(bodies, 1):
        ordinal += isinstance(body, MessagePosted)
        entries.append(Entry(LOG, seq, ordinal, LOG, user, NOW_MS + seq, body))
    return entries


def histories() -> st.SearchStrategy[list[Entry]]:
    return st.builds(_history, st.integers(0, 15), st.lists(st.integers(0, 47), max_size=20))


def fold_user(entries: list[Entry], user: str) -> Membership | None:
    membership: Membership | None = None
    for entry in entries:
        membership = fold_membership(membership, entry, user)
    return membership


@given(histories(), st.sampled_from(USERS))
def test_what_a_user_may_see(entries: list[Entry], user: str) -> None:
    """An entry is visible when the user is a member before it or after it."""
    seen = set()
    inside = False
    for entry in entries:
        before = inside
        if user in affected_users(entry.body):
            inside = not isinstance(entry.body, MemberRemoved)
        if before or inside:
            seen.add(entry.seq)
    membership = fold_user(entries, user)
    if membership is None:
        assert not seen
        return
    head = entries[-1].seq
    assert {seq for seq in range(1, head + 1) if membership.visible(seq)} == seen
    ranges = membership.ranges(1, head)
    assert [seq for low, high in ranges for seq in range(low, high + 1)] == sorted(seen)
    assert membership.current == inside
    assert membership.last_visible == (None if inside else max(seen))
    assert membership.join_seq == ranges[-1][0]


@given(histories(), st.sampled_from(USERS), st.data())
def test_ranges_are_cut_to_what_is_asked(
    entries: list[Entry], user: str, data: st.DataObject
) -> None:
    membership = fold_user(entries, user)
    if membership is None:
        return
    head = entries[-1].seq
    first = data.draw(st.integers(1, head))
    last = data.draw(st.integers(1, head))
    positions = [s for low, high in membership.ranges(first, last) for s in range(low, high + 1)]
    assert positions == [s for s in range(first, last + 1) if membership.visible(s)]


@given(histories(), st.sampled_from(USERS))
def test_a_stay_begins_with_the_messages_before_it(entries: list[Entry], user: str) -> None:
    membership = fold_user(entries, user)
    for interval in membership.intervals if membership is not None else ():
        before = [e for e in entries if e.seq < interval.join_seq]
        assert interval.join_ordinal == (before[-1].ordinal if before else 0)


@given(histories(), st.sampled_from(USERS), st.data())
def test_folding_an_entry_again_changes_nothing(
    entries: list[Entry], user: str, data: st.DataObject
) -> None:
    again = data.draw(
        st.lists(st.integers(1, len(entries)), min_size=len(entries), max_size=len(entries))
    )
    repeated: list[Entry] = []
    for entry, earlier in zip(entries, again, strict=True):
        repeated.append(entry)
        repeated.extend(e for e in entries if e.seq <= entry.seq and e.seq in (earlier, entry.seq))
    assert fold_user(repeated, user) == fold_user(entries, user)


@given(histories())
def test_entries_that_do_not_affect_a_user_may_be_left_out(entries: list[Entry]) -> None:
    for user in USERS:
        concerned = [e for e in entries if user in affected_users(e.body)]
        assert fold_user(concerned, user) == fold_user(entries, user)


def test_a_member_who_is_added_again_stays_as_they_are() -> None:
    before = Membership("bob", Role.OWNER, 1, (Interval(1, 0),))
    entry = Entry(LOG, 5, 3, LOG, "alice", NOW_MS, MembersAdded((NewMember("bob"),)))
    after = fold_membership(before, entry, "bob")
    assert after == replace(before, as_of=5)


def test_a_stranger_who_is_removed_stays_one() -> None:
    entry = Entry(LOG, 5, 3, LOG, "alice", NOW_MS, MemberRemoved("bob"))
    assert fold_membership(None, entry, "bob") is None


def test_nobody_is_affected_by_messages_and_inbox_entries() -> None:
    joined = ConversationJoined(LOG, ConversationKind.GROUP, "", 1, Role.MEMBER)
    for body in (MessagePosted(b""), joined, UnknownBody()):
        assert affected_users(body) == []


# The state


def fold_all(
    entries: list[Entry], state: folding.ConversationState = folding.EMPTY
) -> folding.ConversationState:
    for entry in entries:
        state = folding.fold(state, entry)
    return state


@given(histories())
def test_the_state_counts_those_inside(entries: list[Entry]) -> None:
    state = fold_all(entries)
    inside = [u for u in USERS if (m := fold_user(entries, u)) is not None and m.current]
    assert state.member_count == len(inside)
    assert (state.kind, state.title, state.creator) == (ConversationKind.GROUP, "Plan", "alice")
    assert state.create_ms == entries[0].time_ms
    assert not state.readable_only


@given(histories(), st.data())
def test_the_state_is_folded_from_any_snapshot(entries: list[Entry], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(entries)))
    snapshot = folding.dump(fold_all(entries[:at]))
    again = data.draw(st.integers(0, at))
    assert fold_all(entries[again:], folding.load(snapshot)) == fold_all(entries)


@given(histories())
def test_messages_may_be_left_out_of_the_state(entries: list[Entry]) -> None:
    without = [e for e in entries if not isinstance(e.body, MessagePosted)]
    assert fold_all(without) == fold_all(entries)


def test_a_direct_conversation_knows_its_peers() -> None:
    body = ConversationCreated(ConversationKind.DIRECT, "", (NewMember("bob"), NewMember("alice")))
    state = fold_all([Entry(LOG, 1, 0, LOG, "alice", NOW_MS, body)])
    assert state.peers == ("alice", "bob")
    assert state.peer_of("alice") == "bob"
    assert state.peer_of("bob") == "alice"
    assert folding.load(folding.dump(state)) == state


def test_a_group_has_no_peers() -> None:
    body = ConversationCreated(ConversationKind.GROUP, "", (NewMember("bob"), NewMember("alice")))
    assert fold_all([Entry(LOG, 1, 0, LOG, "alice", NOW_MS, body)]).peer_of("alice") == ""


def test_what_is_not_known_makes_a_log_readable_only() -> None:
    entries = [
        Entry(
            LOG,
            1,
            0,
            LOG,
            "alice",
            NOW_MS,
            ConversationCreated(ConversationKind.GROUP, "", (NewMember("alice"),)),
        ),
        Entry(LOG, 2, 0, LOG, "alice", NOW_MS, UnknownBody()),
        Entry(LOG, 3, 0, LOG, "alice", NOW_MS, MembersAdded((NewMember("bob"),))),
    ]
    state = fold_all(entries)
    assert state.readable_only
    assert state.member_count == 2
    assert folding.load(folding.dump(state)) == state


def test_snapshots_of_other_versions() -> None:
    assert folding.load(b"") == folding.EMPTY
    assert folding.load(b'{"seq":4}') == folding.ConversationState(seq=4)
    newer = folding.load(b'{"seq":4,"kind":2,"title":"x","pinned":[3]}')
    assert (newer.seq, newer.title) == (4, "x")
    assert newer.readable_only, "what a newer version keeps would be lost by the next snapshot"
