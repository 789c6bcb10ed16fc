"""Permissions: the whole table, row by row."""

from __future__ import annotations

import pytest

from tidings_server.core.entries import ConversationKind, Role
from tidings_server.core.memberships import Interval, Membership
from tidings_server.core.permissions import Right, check, check_message
from tidings_server.core.state import EMPTY, ConversationState
from tidings_server.errors import DomainError, Reason

GROUP = ConversationState(seq=1, kind=ConversationKind.GROUP, member_count=3)
DIRECT = ConversationState(seq=1, kind=ConversationKind.DIRECT, peers=("alice", "bob"))
MEMBER = Membership("bob", Role.MEMBER, 1, (Interval(1, 0),))
OWNER = Membership("alice", Role.OWNER, 1, (Interval(1, 0),))
LEFT = Membership("carol", Role.OWNER, 5, (Interval(1, 0, 5),))

ALLOWED = {
    (ConversationKind.GROUP, Role.MEMBER): {
        Right.READ,
        Right.POST,
        Right.EDIT,
        Right.REACT,
        Right.DELETE,
        Right.LEAVE,
    },
    (ConversationKind.GROUP, Role.OWNER): set(Right),
    (ConversationKind.DIRECT, Role.MEMBER): {
        Right.READ,
        Right.POST,
        Right.EDIT,
        Right.REACT,
        Right.DELETE,
    },
}


@pytest.mark.parametrize("right", Right)
@pytest.mark.parametrize(
    ("state", "membership"), [(GROUP, MEMBER), (GROUP, OWNER), (DIRECT, MEMBER)]
)
def test_members(state: ConversationState, membership: Membership, right: Right) -> None:
    assert state.kind is not None
    if right in ALLOWED[state.kind, membership.role]:
        assert check(state, membership, right) is membership
        return
    with pytest.raises(DomainError) as caught:
        check(state, membership, right)
    direct = state.kind is ConversationKind.DIRECT and right is not Right.DELETE_OTHERS
    assert caught.value.reason is (Reason.DIRECT_FIXED if direct else Reason.RIGHT_MISSING)


@pytest.mark.parametrize("right", Right)
@pytest.mark.parametrize(
    ("state", "membership"),
    [(GROUP, None), (GROUP, LEFT), (DIRECT, None), (EMPTY, None), (EMPTY, MEMBER)],
)
def test_others_learn_nothing(
    state: ConversationState, membership: Membership | None, right: Right
) -> None:
    with pytest.raises(DomainError) as caught:
        check(state, membership, right)
    with pytest.raises(DomainError) as absent:
        check(EMPTY, None, right)
    assert caught.value.reason is Reason.CONVERSATION_NOT_FOUND
    assert repr(caught.value) == repr(absent.value)


@pytest.mark.parametrize("membership", [MEMBER, OWNER])
def test_only_the_sender_edits(membership: Membership) -> None:
    check_message(membership, Right.EDIT, membership.user_id)
    with pytest.raises(DomainError) as caught:
        check_message(membership, Right.EDIT, "dora")
    assert caught.value.reason is Reason.RIGHT_MISSING


def test_the_sender_deletes_and_an_owner() -> None:
    check_message(MEMBER, Right.DELETE, MEMBER.user_id)
    check_message(OWNER, Right.DELETE, OWNER.user_id)
    check_message(OWNER, Right.DELETE, "dora")
    with pytest.raises(DomainError) as caught:
        check_message(MEMBER, Right.DELETE, "dora")
    assert caught.value.reason is Reason.RIGHT_MISSING
