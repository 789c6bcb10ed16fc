"""Permissions: one table of who may do what in a conversation."""

from __future__ import annotations

from enum import Enum

from ..errors import DomainError, Reason, conversation_not_found
from .entries import ConversationKind, Role
from .memberships import Membership
from .state import ConversationState


class Right(Enum):
    """Something that a member may be allowed to do."""

    READ = "read"
    POST = "post"
    EDIT = "edit own messages"
    REACT = "react"
    DELETE = "delete own messages"
    DELETE_OTHERS = "delete messages of others"
    ADD_MEMBERS = "add members"
    REMOVE_MEMBERS = "remove members"
    LEAVE = "leave"


RIGHTS: dict[Role, frozenset[Right]] = {
    Role.MEMBER: frozenset(
        {Right.READ, Right.POST, Right.EDIT, Right.REACT, Right.DELETE, Right.LEAVE}
    ),
    Role.OWNER: frozenset(Right),
}

_GROUP_ONLY = frozenset({Right.ADD_MEMBERS, Right.REMOVE_MEMBERS, Right.LEAVE})


_FOR_OTHERS: dict[Right, Right | None] = {Right.EDIT: None, Right.DELETE: Right.DELETE_OTHERS}
"""Rights for one's own messages, each with the right that those of others need; None: nobody has it."""


def check(state: ConversationState, membership: Membership | None, right: Right) -> Membership:
    """The caller's membership, if it carries the right.

    Raises CONVERSATION_NOT_FOUND for whoever is no member (whether the conversation exists or not),
    DIRECT_FIXED for changes of who is in a direct conversation, RIGHT_MISSING for members without
    the right.
    """
    if state.kind is None or membership is None or not membership.current:
        raise conversation_not_found()
    if state.kind is ConversationKind.DIRECT and right in _GROUP_ONLY:
        raise DomainError(Reason.DIRECT_FIXED, "The members of a direct conversation are fixed.")
    if right not in RIGHTS[membership.role]:
        raise DomainError(Reason.RIGHT_MISSING, f"The caller has no right to {right.value}.")
    return membership


def check_message(membership: Membership, right: Right, author: str) -> None:
    """Whether a member with the right has it for a message of this author.

    Raises RIGHT_MISSING for messages of others, where that is a right of its own.
    """
    if author == membership.user_id or right not in _FOR_OTHERS:
        return
    if _FOR_OTHERS[right] not in RIGHTS[membership.role]:
        raise DomainError(Reason.RIGHT_MISSING, f"The caller has only the right to {right.value}.")
