"""Permissions: the whole table, row by row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tidings.v1.conversation_pb2 import ConversationRight
from tidings_server.core.entries import ConversationKind, Role
from tidings_server.core.memberships import Interval, Membership
from tidings_server.core.permissions import (
    FIRST_ROLE,
    SPEAKING,
    Right,
    check,
    check_message,
    check_rank,
)
from tidings_server.core.state import EMPTY, ConversationState
from tidings_server.errors import DomainError, Reason

GROUP = ConversationState(seq=1, kind=ConversationKind.GROUP, member_count=3)
DIRECT = ConversationState(seq=1, kind=ConversationKind.DIRECT, peers=("alice", "bob"))
MEMBER = Membership("bob", Role.MEMBER, 1, (Interval(1, 0),))
OWNER = Membership("alice", Role.OWNER, 1, (Interval(1, 0),))
LEFT = Membership("carol", Role.OWNER, 5, (Interval(1, 0, 5),))

ADMIN = Membership("ada", Role.ADMIN, 1, (Interval(1, 0),))
MODERATOR = Membership("mona", Role.MODERATOR, 1, (Interval(1, 0),))
GUEST = Membership("gus", Role.GUEST, 1, (Interval(1, 0),))

# What each role may do besides what those before it may.
MORE = {
    Role.GUEST: {Right.READ, Right.REACT, Right.DELETE, Right.LEAVE},
    Role.MEMBER: {Right.POST, Right.EDIT, Right.PIN},
    Role.MODERATOR: {Right.DELETE_OTHERS, Right.REMOVE_MEMBERS, Right.MUTE, Right.BAN},
    Role.ADMIN: {
        Right.ADD_MEMBERS,
        Right.UPDATE,
        Right.SET_ROLES,
        Right.FREEZE,
        Right.POST_FROZEN,
        Right.INVITE,
    },
    Role.OWNER: {Right.SET_RIGHTS, Right.MENTION_ALL},
}
FIXED = {
    Right.ADD_MEMBERS,
    Right.REMOVE_MEMBERS,
    Right.LEAVE,
    Right.UPDATE,
    Right.SET_ROLES,
    Right.MUTE,
    Right.BAN,
    Right.FREEZE,
    Right.SET_RIGHTS,
    Right.INVITE,
}


def allowed(role: Role) -> set[Right]:
    roles = list(MORE)
    return set().union(*(MORE[r] for r in roles[: roles.index(role) + 1]))


def test_an_owner_has_every_right() -> None:
    assert allowed(Role.OWNER) == set(Right)


@pytest.mark.parametrize("right", Right)
@pytest.mark.parametrize("membership", [GUEST, MEMBER, MODERATOR, ADMIN, OWNER])
def test_members_of_a_group(membership: Membership, right: Right) -> None:
    if right in allowed(membership.role):
        assert check(GROUP, membership, right) is membership
        return
    with pytest.raises(DomainError) as caught:
        check(GROUP, membership, right)
    assert caught.value.reason is Reason.RIGHT_MISSING
    assert right.words in caught.value.message


@pytest.mark.parametrize("right", Right)
def test_members_of_a_direct_conversation(right: Right) -> None:
    if right in allowed(Role.MEMBER) - FIXED:
        assert check(DIRECT, MEMBER, right) is MEMBER
        return
    with pytest.raises(DomainError) as caught:
        check(DIRECT, MEMBER, right)
    fixed = right in FIXED
    assert caught.value.reason is (Reason.DIRECT_FIXED if fixed else Reason.RIGHT_MISSING)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("membership", [GUEST, MEMBER, MODERATOR, ADMIN, OWNER])
def test_nobody_acts_on_their_own_rank_or_above_but_owners(
    membership: Membership, role: Role
) -> None:
    ranks = list(MORE)
    if membership is OWNER or ranks.index(role) < ranks.index(membership.role):
        check_rank(membership, role)
        return
    with pytest.raises(DomainError) as caught:
        check_rank(membership, role)
    assert caught.value.reason is Reason.RIGHT_MISSING


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
    check_message(GROUP, membership, Right.EDIT, membership.user_id)
    with pytest.raises(DomainError) as caught:
        check_message(GROUP, membership, Right.EDIT, "dora")
    assert caught.value.reason is Reason.RIGHT_MISSING


def test_the_sender_deletes_and_a_moderator() -> None:
    check_message(GROUP, MEMBER, Right.DELETE, MEMBER.user_id)
    check_message(GROUP, OWNER, Right.DELETE, OWNER.user_id)
    check_message(GROUP, OWNER, Right.DELETE, "dora")
    check_message(GROUP, MODERATOR, Right.DELETE, "dora")
    with pytest.raises(DomainError) as caught:
        check_message(GROUP, MEMBER, Right.DELETE, "dora")
    assert caught.value.reason is Reason.RIGHT_MISSING


def test_rights_are_those_of_the_contract() -> None:
    assert {right.name: right.value for right in Right} == {
        name.removeprefix("CONVERSATION_RIGHT_"): number
        for name, number in ConversationRight.items()
        if number
    }
    assert set(FIRST_ROLE) == set(Right)


def test_a_conversation_says_otherwise() -> None:
    quiet = replace(
        GROUP, rights=((Role.MEMBER, Right.POST, False), (Role.GUEST, Right.POST, True))
    )
    check(quiet, GUEST, Right.POST)
    check(quiet, MODERATOR, Right.POST)
    check(quiet, MEMBER, Right.EDIT)
    with pytest.raises(DomainError) as caught:
        check(quiet, MEMBER, Right.POST)
    assert caught.value.reason is Reason.RIGHT_MISSING
    trusting = replace(GROUP, rights=((Role.MEMBER, Right.DELETE_OTHERS, True),))
    check_message(trusting, MEMBER, Right.DELETE, "dora")


def test_few_speak_in_a_frozen_conversation() -> None:
    frozen = replace(GROUP, frozen=True)
    for right in SPEAKING:
        for membership in (ADMIN, OWNER):
            check(frozen, membership, right)
        with pytest.raises(DomainError) as caught:
            check(frozen, MODERATOR, right)
        assert caught.value.reason is Reason.FROZEN
    check(frozen, MEMBER, Right.DELETE)
    spoken = replace(frozen, rights=((Role.MODERATOR, Right.POST_FROZEN, True),))
    check(spoken, MODERATOR, Right.POST)
