"""Invitations: proposals to make them, and to join by them."""

from __future__ import annotations

from ..core.commands import ChangeId
from ..core.entries import Body, ConversationKind, InvitationSet, MembersAdded, NewMember
from ..core.memberships import Membership
from ..core.permissions import Right, check
from ..core.state import ConversationState
from ..errors import DomainError, Reason, conversation_not_found, invalid
from .proposals import Done, Proposal, check_member_limit

MAX_INVITATIONS = 20


class Invite(Proposal):
    """An invitation, or its end."""

    __slots__ = ("change",)

    def __init__(
        self, log: str, change_id: ChangeId, user_id: str, done: Done, change: InvitationSet
    ) -> None:
        super().__init__(log, change_id, user_id, done)
        self.change = change

    def asked(self) -> Body:
        """See `Proposal`."""
        return self.change

    def decide(
        self, state: ConversationState, memberships: dict[str, Membership | None]
    ) -> Body | None:
        """See `Proposal`."""
        check(state, memberships[self.user_id], Right.INVITE)
        change = self.change
        if change.uses and change.until_ms <= self.stamp:
            raise invalid("expire_time", "must lie in the future")
        known = next((i for i in state.invitations if i[0] == change.invitation), None)
        if known == (change.invitation, change.uses, change.until_ms) or not (known or change.uses):
            return None
        if known is None and len(state.invitations) >= MAX_INVITATIONS:
            raise DomainError(
                Reason.INVITATION_LIMIT, f"A group has at most {MAX_INVITATIONS} invitations."
            )
        return change

    def same_as(self, body: Body) -> bool:
        """See `Proposal`."""
        return body == self.change


class Join(Proposal):
    """A membership that whoever asks for it has an invitation to."""

    __slots__ = ("invitation", "max_members")

    def __init__(
        self,
        log: str,
        change_id: ChangeId,
        user_id: str,
        done: Done,
        invitation: str,
        max_members: int,
    ) -> None:
        super().__init__(log, change_id, user_id, done)
        self.invitation = invitation
        self.max_members = max_members

    def asked(self) -> Body:
        """See `Proposal`."""
        return MembersAdded((NewMember(self.user_id),), invitation=self.invitation)

    def joining(self) -> tuple[str, ...]:
        """See `Proposal`."""
        return (self.user_id,)

    def decide(
        self, state: ConversationState, memberships: dict[str, Membership | None]
    ) -> Body | None:
        """See `Proposal`. Whoever may not join learns nothing."""
        known = memberships[self.user_id]
        if known is not None and known.current:
            return None
        holds = any(
            invitation == self.invitation and until_ms > self.stamp
            for invitation, _, until_ms in state.invitations
        )
        banned = known is not None and known.banned_until_ms > self.stamp
        # Where all have left nobody could be an owner.
        over = state.kind is not ConversationKind.GROUP or not state.member_count
        if over or not holds or banned:
            raise conversation_not_found()
        check_member_limit(state, 1, self.max_members)
        members = (NewMember(self.user_id),)
        return MembersAdded(members, state.history_for_newcomers, self.invitation)

    def same_as(self, body: Body) -> bool:
        """See `Proposal`."""
        return isinstance(body, MembersAdded) and body.invitation == self.invitation
