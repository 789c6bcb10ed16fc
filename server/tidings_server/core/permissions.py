"""Permissions: one table of who may do what in a conversation."""

from __future__ import annotations

from enum import IntEnum

from ..errors import DomainError, Reason, conversation_not_found
from .contents import Content
from .entries import ConversationKind, Role
from .memberships import Membership
from .state import ConversationState


class Right(IntEnum):
    """Something that a member may be allowed to do. Every operation in a conversation needs one of them."""

    READ = 1
    POST = 2
    EDIT = 3
    REACT = 4
    DELETE = 5
    DELETE_OTHERS = 6
    ADD_MEMBERS = 7
    REMOVE_MEMBERS = 8
    LEAVE = 9
    UPDATE = 10
    SET_ROLES = 11
    MUTE = 12
    BAN = 13
    FREEZE = 14
    POST_FROZEN = 15
    SET_RIGHTS = 16
    INVITE = 17
    PIN = 20
    MENTION_ALL = 21

    @property
    def words(self) -> str:
        """What it is a right to, for texts."""
        return _WORDS.get(self, self.name.lower().replace("_", " "))


_WORDS = {
    Right.EDIT: "edit own messages",
    Right.DELETE: "delete own messages",
    Right.DELETE_OTHERS: "delete messages of others",
    Right.UPDATE: "change what is said of the conversation",
    Right.FREEZE: "freeze the conversation",
    Right.SET_RIGHTS: "change rights",
    Right.PIN: "pin messages",
    Right.MENTION_ALL: "mention everybody",
}

RANKS = (Role.GUEST, Role.MEMBER, Role.MODERATOR, Role.ADMIN, Role.OWNER)
"""The roles, each above those before it. Nobody but an owner acts on members of their own rank or above, or gives such
a role.
"""

FIRST_ROLE: dict[Right, Role] = {
    Right.READ: Role.GUEST,
    Right.REACT: Role.GUEST,
    Right.DELETE: Role.GUEST,
    Right.LEAVE: Role.GUEST,
    Right.POST: Role.MEMBER,
    Right.EDIT: Role.MEMBER,
    Right.PIN: Role.MEMBER,
    Right.DELETE_OTHERS: Role.MODERATOR,
    Right.REMOVE_MEMBERS: Role.MODERATOR,
    Right.MUTE: Role.MODERATOR,
    Right.BAN: Role.MODERATOR,
    Right.ADD_MEMBERS: Role.ADMIN,
    Right.UPDATE: Role.ADMIN,
    Right.SET_ROLES: Role.ADMIN,
    Right.FREEZE: Role.ADMIN,
    Right.POST_FROZEN: Role.ADMIN,
    Right.SET_RIGHTS: Role.OWNER,
    Right.INVITE: Role.ADMIN,
    Right.MENTION_ALL: Role.OWNER,
}
"""The lowest role that has a right, where a conversation says nothing else; those above it have it too."""

FIXED_RIGHTS = frozenset({Right.READ, Right.LEAVE, Right.SET_RIGHTS})
"""Rights about which a conversation can't say anything else."""

RIGHTS: dict[Role, frozenset[Right]] = {
    role: frozenset(
        right for right, first in FIRST_ROLE.items() if RANKS.index(first) <= RANKS.index(role)
    )
    for role in RANKS
}

GROUP_ONLY = frozenset(
    {
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
)
"""What nobody does in a direct conversation: nothing of it but its messages changes."""

SETTING_RIGHTS: dict[str, Right] = {
    **dict.fromkeys(("title", "description", "picture", "custom_data"), Right.UPDATE),
    "frozen": Right.FREEZE,
    "rights": Right.SET_RIGHTS,
    "history_for_newcomers": Right.UPDATE,
}
"""The right that a change of each setting needs."""

SPEAKING = frozenset({Right.POST, Right.EDIT, Right.REACT, Right.PIN})
"""What a muted member may not do, and few may do in a frozen conversation."""

_FOR_OTHERS: dict[Right, Right | None] = {Right.EDIT: None, Right.DELETE: Right.DELETE_OTHERS}
"""Rights for one's own messages, each with the right that those of others need; None: nobody has it."""


def check(
    state: ConversationState, membership: Membership | None, right: Right, now_ms: int = 0
) -> Membership:
    """The caller's membership, if it carries the right at a time, which is needed for `SPEAKING`.

    Raises CONVERSATION_NOT_FOUND for whoever is no member (whether the conversation exists or not),
    DIRECT_FIXED for changes of a direct conversation and of who is in it, RIGHT_MISSING for members
    without the right, MUTED for those who have it, and may not use it for a while,
    FROZEN for those who may not while the conversation is frozen.
    """
    if state.kind is None or membership is None or not membership.current:
        raise conversation_not_found()
    if state.kind is ConversationKind.DIRECT and right in GROUP_ONLY:
        raise DomainError(Reason.DIRECT_FIXED, "A direct conversation and its members are fixed.")
    if not has(state, membership, right):
        raise _missing(f"The caller has no right to {right.words}.")
    if membership.muted_until_ms > now_ms and right in SPEAKING:
        raise DomainError(
            Reason.MUTED,
            "The caller is muted.",
            metadata={"expire_time_ms": str(membership.muted_until_ms)},
        )
    if state.frozen and right in SPEAKING and not has(state, membership, Right.POST_FROZEN):
        raise DomainError(Reason.FROZEN, "The conversation is frozen.")
    return membership


def has(state: ConversationState, membership: Membership, right: Right) -> bool:
    """Whether a member of a conversation has a right in it."""
    for role, number, allowed in state.rights:
        if (role, number) == (membership.role, right):
            return allowed
    return right in RIGHTS[membership.role]


def check_message(
    state: ConversationState, membership: Membership, right: Right, author: str
) -> None:
    """Whether a member with the right has it for a message of this author.

    Raises RIGHT_MISSING for messages of others, where that is a right of its own.
    """
    if author == membership.user_id or right not in _FOR_OTHERS:
        return
    other = _FOR_OTHERS[right]
    if other is None or not has(state, membership, other):
        raise _missing(f"The caller has only the right to {right.words}.")


def check_content(state: ConversationState, membership: Membership, content: Content) -> None:
    """Whether a member who may write may say this. Raises RIGHT_MISSING."""
    if content.everybody and not has(state, membership, Right.MENTION_ALL):
        raise _missing(f"The caller has no right to {Right.MENTION_ALL.words}.")


def check_rank(membership: Membership, role: Role) -> None:
    """Whether a member may act on members of a role, and give it: an owner with every role, others with those below
    their own. Raises RIGHT_MISSING.
    """
    if membership.role is not Role.OWNER and RANKS.index(role) >= RANKS.index(membership.role):
        raise _missing("The caller may do this only with roles below the own one.")


def check_owner_stays(state: ConversationState, membership: Membership) -> None:
    """Whether a member may be no owner any more, by their own doing. Raises LAST_OWNER when they are the only one."""
    if membership.role is Role.OWNER and state.owner_count <= 1:
        raise DomainError(
            Reason.LAST_OWNER, "The caller is the only owner; transfer the ownership first."
        )


def _missing(text: str) -> DomainError:
    return DomainError(Reason.RIGHT_MISSING, text)
