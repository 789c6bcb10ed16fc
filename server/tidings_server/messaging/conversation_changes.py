"""Changes of conversations: proposals that are decided on the state and on the memberships of those concerned."""

from __future__ import annotations

from ..core.commands import ChangeId
from ..core.entries import Body, ConversationUpdated, Setting
from ..core.memberships import Membership
from ..core.permissions import SETTING_RIGHTS, check
from ..core.state import ConversationState
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
