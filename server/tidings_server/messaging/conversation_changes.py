"""Changes of conversations: proposals that are decided on the state and on the memberships of those concerned."""

from __future__ import annotations

from abc import abstractmethod

from ..core.commands import ChangeId
from ..core.entries import (
    Body,
    ConversationUpdated,
    MemberBanned,
    MemberMuted,
    MemberRemoved,
    MemberRoleSet,
    Role,
    RoleChange,
    Setting,
)
from ..core.memberships import Membership
from ..core.permissions import SETTING_RIGHTS, Right, check, check_owner_stays, check_rank
from ..core.state import ConversationState
from ..errors import invalid, member_not_found
from .proposals import Done, Proposal


class Update(Proposal):
    """Other values of settings."""

    __slots__ = ("changes",)

    def __init__(
        self, log: str, change_id: ChangeId, user_id: str, done: Done, changes: tuple[Setting, ...]
    ) -> None:
        super().__init__(log, change_id, user_id, done)
        self.changes = changes

    def asked(self) -> Body:
        """See `Proposal`."""
        return ConversationUpdated(self.changes)

    def decide(
        self, state: ConversationState, memberships: dict[str, Membership | None]
    ) -> Body | None:
        """See `Proposal`."""
        for name, _ in self.changes:
            check(state, memberships[self.user_id], SETTING_RIGHTS[name])
        new = tuple((name, value) for name, value in self.changes if getattr(state, name) != value)
        return ConversationUpdated(new) if new else None

    def same_as(self, body: Body) -> bool:
        """See `Proposal`. What was so already is not in the entry."""
        return isinstance(body, ConversationUpdated) and set(body.changes) <= set(self.changes)


class SetRoles(Proposal):
    """Other roles of members, each named once."""

    __slots__ = ("roles",)

    def __init__(
        self, log: str, change_id: ChangeId, user_id: str, done: Done, roles: dict[str, Role]
    ) -> None:
        super().__init__(log, change_id, user_id, done)
        self.roles = roles

    def asked(self) -> Body:
        """See `Proposal`."""
        return MemberRoleSet(tuple(RoleChange(user, role) for user, role in self.roles.items()))

    def users(self) -> tuple[str, ...]:
        """See `Proposal`."""
        return (self.user_id, *self.roles)

    def decide(
        self, state: ConversationState, memberships: dict[str, Membership | None]
    ) -> Body | None:
        """See `Proposal`."""
        caller = check(state, memberships[self.user_id], Right.SET_ROLES)
        changes = []
        for user, role in self.roles.items():
            known = memberships[user]
            if known is None or not known.current:
                raise member_not_found()
            if user != self.user_id:
                check_rank(caller, known.role)
            if known.role is role:
                continue
            check_rank(caller, role)
            changes.append(RoleChange(user, role, known.role))
        if Role.OWNER not in self.roles.values() and any(
            change.user_id == self.user_id for change in changes
        ):
            check_owner_stays(state, caller)
        return MemberRoleSet(tuple(changes)) if changes else None

    def same_as(self, body: Body) -> bool:
        """See `Proposal`. Who had the role already is not in the entry."""
        return isinstance(body, MemberRoleSet) and all(
            self.roles.get(change.user_id) is change.role for change in body.changes
        )


def transferred(caller: str, user: str) -> dict[str, Role]:
    """The roles that a transfer of ownership gives."""
    return {user: Role.OWNER, caller: Role.ADMIN}


class Restrict(Proposal):
    """Something that is kept from another member until a time; 0: no longer."""

    __slots__ = ("restricted", "until_ms")
    right: Right
    """What the caller must have the right to."""

    def __init__(
        self,
        log: str,
        change_id: ChangeId,
        user_id: str,
        done: Done,
        restricted: str,
        until_ms: int,
    ) -> None:
        super().__init__(log, change_id, user_id, done)
        self.restricted = restricted
        self.until_ms = until_ms

    def users(self) -> tuple[str, ...]:
        """See `Proposal`."""
        return (self.user_id, self.restricted)

    def decide(
        self, state: ConversationState, memberships: dict[str, Membership | None]
    ) -> Body | None:
        """See `Proposal`."""
        caller = check(state, memberships[self.user_id], self.right)
        known = memberships[self.restricted]
        if known is None:
            raise member_not_found()
        check_rank(caller, known.role)
        if 0 < self.until_ms <= self.stamp:
            raise invalid("expire_time", "must lie in the future")
        return self.restriction(known)

    @abstractmethod
    def restriction(self, known: Membership) -> Body | None:
        """What to append for a member or ex-member; see `decide`."""

    def _is_new(self, before_ms: int) -> bool:
        return self.until_ms != (before_ms if before_ms > self.stamp else 0)


class Mute(Restrict):
    """Posting, editing and reacting are kept from a member."""

    __slots__ = ()
    right = Right.MUTE

    def asked(self) -> Body:
        """See `Proposal`."""
        return MemberMuted(self.restricted, self.until_ms)

    def restriction(self, known: Membership) -> Body | None:
        """See `Restrict`."""
        if not known.current:
            raise member_not_found()
        return self.asked() if self._is_new(known.muted_until_ms) else None

    def same_as(self, body: Body) -> bool:
        """See `Proposal`."""
        return body == self.asked()


class Ban(Restrict):
    """A membership ends, and does not begin again for a while."""

    __slots__ = ()
    right = Right.BAN

    def asked(self) -> Body:
        """See `Proposal`."""
        return MemberBanned(self.restricted, self.until_ms)

    def restriction(self, known: Membership) -> Body | None:
        """See `Restrict`. The ban of a member is part of the removal, so that no moment lies between them."""
        if known.current and self.until_ms:
            return MemberRemoved(self.restricted, known.role, self.until_ms)
        return self.asked() if self._is_new(known.banned_until_ms) else None

    def same_as(self, body: Body) -> bool:
        """See `Proposal`."""
        if isinstance(body, MemberRemoved):
            return (body.user_id, body.banned_until_ms) == (self.restricted, self.until_ms)
        return body == self.asked()
