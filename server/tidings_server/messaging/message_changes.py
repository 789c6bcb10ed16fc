"""Changes of messages: proposals that are decided on what the message is by then."""

from __future__ import annotations

from abc import abstractmethod

from ..codec.contents import read_content
from ..codec.overlays import load_overlay
from ..core.commands import ChangeId
from ..core.entries import (
    Body,
    Entry,
    MessageDeleted,
    MessageEdited,
    MessagePinned,
    MessagePosted,
    ReactionSet,
)
from ..core.memberships import Membership
from ..core.overlays import MAX_EDITS, MAX_REACTIONS, Overlay
from ..core.permissions import Right, check, check_content, check_message
from ..core.records import record
from ..core.state import MAX_PINS, ConversationState
from ..errors import DomainError, Reason, message_not_found
from ..storage.base import Store
from .lookup import read_entry
from .proposals import Done, Proposal


@record(frozen=True, slots=True)
class Target:
    """What a change is about: the entry at the position, or None, and what became of it by then."""

    entry: Entry | None
    overlay: Overlay | None


class ChangeMessage(Proposal):
    """A change of the message at `seq`."""

    __slots__ = ("_target", "seq")

    reads = True
    right: Right
    """What the caller must have the right to."""

    def __init__(self, log: str, change_id: ChangeId, user_id: str, done: Done, seq: int) -> None:
        super().__init__(log, change_id, user_id, done)
        self.seq = seq
        self._target: Target | None = None

    async def read(self, store: Store) -> None:
        """See `Proposal`."""
        entry = await read_entry(store, self.log, self.seq)
        rows = await store.overlays(self.log, self.seq, self.seq)
        self._target = Target(entry, load_overlay(rows[0].body) if rows else None)

    def forget(self) -> None:
        """See `Proposal`."""
        super().forget()
        self.ready, self._target = False, None

    def decide(
        self, state: ConversationState, memberships: dict[str, Membership | None]
    ) -> Body | None:
        """See `Proposal`."""
        membership = check(state, memberships[self.user_id], self.right, self.stamp)
        target = self._target
        assert target is not None, "it was read"
        entry = target.entry
        if (
            entry is None
            or not isinstance(entry.body, MessagePosted)
            or not membership.visible(self.seq)
        ):
            raise message_not_found("seq")
        check_message(state, membership, self.right, entry.user_id)
        check_content(state, membership, self.says)
        return self.changed(target.overlay or Overlay(self.seq, 0))

    @abstractmethod
    def changed(self, overlay: Overlay) -> Body | None:
        """What to append for a message that has come to this; see `decide`."""


class React(ChangeMessage):
    """A reaction to a message, or its end."""

    __slots__ = ("_own", "reaction")
    right = Right.REACT

    def __init__(
        self,
        log: str,
        change_id: ChangeId,
        user_id: str,
        done: Done,
        seq: int,
        reaction: str,
    ) -> None:
        super().__init__(log, change_id, user_id, done, seq)
        self.reaction = reaction
        self._own = ""

    async def read(self, store: Store) -> None:
        """See `Proposal`."""
        await super().read(store)
        rows = await store.reactions_of(self.log, self.user_id, [self.seq])
        self._own = rows[self.seq].reaction if rows else ""

    def asked(self) -> Body:
        """See `Proposal`."""
        return ReactionSet(self.seq, self.reaction)

    def changed(self, overlay: Overlay) -> Body | None:
        """See `ChangeMessage`."""
        if overlay.deleted:
            raise message_not_found("seq")
        if self.reaction == self._own:
            return None
        kinds = {reaction for reaction, _ in overlay.reactions}
        if self.reaction and self.reaction not in kinds and len(kinds) >= MAX_REACTIONS:
            raise DomainError(
                Reason.REACTION_LIMIT,
                f"A message has at most {MAX_REACTIONS} different reactions.",
                field="reaction",
            )
        return ReactionSet(self.seq, self.reaction, self._own)

    def same_as(self, body: Body) -> bool:
        """See `Proposal`. What it replaced is not asked for."""
        return isinstance(body, ReactionSet) and (body.seq, body.reaction) == (
            self.seq,
            self.reaction,
        )


class Delete(ChangeMessage):
    """The deletion of a message for all."""

    __slots__ = ()
    right = Right.DELETE

    def asked(self) -> Body:
        """See `Proposal`."""
        return MessageDeleted(self.seq)

    def changed(self, overlay: Overlay) -> Body | None:
        """See `ChangeMessage`."""
        return None if overlay.deleted else self.asked()

    def same_as(self, body: Body) -> bool:
        """See `Proposal`."""
        return body == self.asked()


class Pin(ChangeMessage):
    """A message is pinned, or not any more."""

    __slots__ = ("pinned",)
    right = Right.PIN

    def __init__(
        self, log: str, change_id: ChangeId, user_id: str, done: Done, seq: int, *, pinned: bool
    ) -> None:
        super().__init__(log, change_id, user_id, done, seq)
        self.pinned = pinned

    def asked(self) -> Body:
        """See `Proposal`."""
        return MessagePinned(self.seq, self.pinned)

    def decide(
        self, state: ConversationState, memberships: dict[str, Membership | None]
    ) -> Body | None:
        """See `Proposal`."""
        body = super().decide(state, memberships)
        if body is not None and self.pinned and len(state.pins) >= MAX_PINS:
            raise DomainError(
                Reason.PIN_LIMIT,
                f"A conversation has at most {MAX_PINS} pinned messages.",
                field="pinned",
            )
        return body

    def changed(self, overlay: Overlay) -> Body | None:
        """See `ChangeMessage`."""
        if overlay.deleted:
            raise message_not_found("seq")
        return None if self.pinned == bool(overlay.pin_seq) else self.asked()

    def same_as(self, body: Body) -> bool:
        """See `Proposal`."""
        return body == self.asked()


class Edit(ChangeMessage):
    """Another content of a message."""

    __slots__ = ("content", "says")
    right = Right.EDIT

    def __init__(
        self,
        log: str,
        change_id: ChangeId,
        user_id: str,
        done: Done,
        seq: int,
        content: bytes,
    ) -> None:
        super().__init__(log, change_id, user_id, done, seq)
        self.content = content
        self.says = read_content(content)

    def asked(self) -> Body:
        """See `Proposal`."""
        return MessageEdited(self.seq, self.content)

    def changed(self, overlay: Overlay) -> Body | None:
        """See `ChangeMessage`."""
        if overlay.deleted:
            raise message_not_found("seq")
        if len(overlay.edits) >= MAX_EDITS:
            raise DomainError(
                Reason.EDIT_LIMIT, f"A message is edited at most {MAX_EDITS} times.", field="seq"
            )
        return self.asked()

    def same_as(self, body: Body) -> bool:
        """See `Proposal`."""
        return body == self.asked()
