"""Proposals: what a command asks a log to become, decided on the state that the commit's condition
then validates.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

import structlog

from ..codec.contents import read_content
from ..core.commands import ChangeId
from ..core.contents import PLAIN
from ..core.entries import (
    Body,
    ConversationCreated,
    ConversationKind,
    MemberRemoved,
    MembersAdded,
    MessagePosted,
    NewMember,
    Role,
)
from ..core.memberships import Membership
from ..core.permissions import Right, check, check_content, check_owner_stays, check_rank
from ..core.records import record
from ..core.state import ConversationState
from ..errors import DomainError, Reason
from ..storage.base import Store
from ..telemetry.tracing import Span

log = structlog.get_logger(__name__)


@record(frozen=True, slots=True)
class Committed:
    """A change is durable at `seq` since `time_ms`; `seq` is 0 when there was nothing to change."""

    seq: int
    time_ms: int


Done = Callable[[Committed | DomainError], None]


class Proposal(ABC):
    """A change that somebody asks for. `done` is called once, with the outcome.

    The rest of the attributes belongs to the sequencer: `cleared` are positions whose entries have
    this id from another sender; `absent_upto` is the id time up to which the store was searched in
    vain; `after_found` tells of `after`; `stamp` is the time of the commit that it is decided for;
    `replied` are the positions of the messages that it replies
    to, or None while they were not looked up; `verified` that the state was brought to the head since
    it was asked for.
    """

    __slots__ = (
        "absent_upto",
        "after",
        "after_found",
        "cleared",
        "done",
        "id",
        "log",
        "ready",
        "replied",
        "span",
        "stamp",
        "user_id",
        "verified",
    )

    changes_state = True
    has_effects = True
    """Whether it brings about something outside its log."""
    reads = False
    """Whether `read` has something to do."""
    says = PLAIN
    """What the message refers to, if the change gives it a content."""
    id_field = "request_id"
    """The field of the request that names the change."""

    def __init__(
        self, log: str, change_id: ChangeId, user_id: str, done: Done, after: ChangeId | None = None
    ) -> None:
        self.log = log
        self.id = change_id
        self.user_id = user_id
        self.done = done
        self.after = after
        self.span: Span | None = None
        self.stamp = 0
        self.cleared: frozenset[int] = frozenset()
        self.absent_upto = -1
        self.after_found: bool | None = None
        self.replied: frozenset[int] | None = None
        self.ready = False
        self.verified = False

    def tell(self, outcome: Committed | DomainError) -> None:
        """Calls `done`. What whoever asked does with the outcome is no concern of the others in the log."""
        try:
            self.done(outcome)
        except Exception:
            log.exception("not_told", log=self.log)

    def users(self) -> tuple[str, ...]:
        """The users whose memberships the decision needs to know."""
        return (self.user_id,)

    def joining(self) -> tuple[str, ...]:
        """The users whose index must name the log before the commit."""
        return ()

    async def read(self, store: Store) -> None:  # noqa: B027  # most need nothing
        """Reads what else the decision needs to know, once the effects of all earlier changes are written. Raises
        StoreUnavailable.
        """

    def forget(self) -> None:
        """Others have appended: what was found out proves nothing any more."""
        self.absent_upto, self.after_found, self.replied = -1, None, None

    @abstractmethod
    def asked(self) -> Body:
        """What is asked for, as a body: from it another node makes the same proposal."""

    @abstractmethod
    def decide(
        self, state: ConversationState, memberships: dict[str, Membership | None]
    ) -> Body | None:
        """What to append, or None when there is nothing to change. Raises DomainError to refuse."""

    @abstractmethod
    def same_as(self, body: Body) -> bool:
        """Whether an entry that has this proposal's id says the same."""


class Submits(Protocol):
    """Takes proposals: the sequencer of this node, or the router that knows which node's it is."""

    def submit(self, proposal: Proposal) -> None:
        """Takes a proposal. Its `done` is called once, later, with the outcome."""
        ...


async def commit(submits: Submits, make: Callable[[Done], Proposal]) -> Committed:
    """Submits the proposal that `make` gives and awaits its outcome. Raises the DomainError that it
    ends with.
    """
    future: asyncio.Future[Committed | DomainError] = asyncio.get_running_loop().create_future()
    submits.submit(make(lambda outcome: None if future.done() else future.set_result(outcome)))
    outcome = await future
    if isinstance(outcome, DomainError):
        raise outcome
    return outcome


class PostMessage(Proposal):
    """A message."""

    __slots__ = ("content", "has_effects", "says")
    changes_state = False
    id_field = "message_id"

    def __init__(
        self,
        log: str,
        change_id: ChangeId,
        user_id: str,
        done: Done,
        content: bytes,
        after: ChangeId | None,
    ) -> None:
        super().__init__(log, change_id, user_id, done, after)
        self.content = content
        self.says = read_content(content)
        self.has_effects = self.says.mentions

    def asked(self) -> Body:
        """See `Proposal`."""
        return MessagePosted(self.content)

    def decide(
        self, state: ConversationState, memberships: dict[str, Membership | None]
    ) -> Body | None:
        """See `Proposal`."""
        membership = check(state, memberships[self.user_id], Right.POST, self.stamp)
        check_content(state, membership, self.says)
        return self.asked()

    def same_as(self, body: Body) -> bool:
        """See `Proposal`."""
        return isinstance(body, MessagePosted) and body.content == self.content


class Create(Proposal):
    """A new conversation. The log's name is derived from the request, so nobody can take
    another's.
    """

    __slots__ = ("body",)

    def __init__(
        self, log: str, change_id: ChangeId, user_id: str, done: Done, body: ConversationCreated
    ) -> None:
        super().__init__(log, change_id, user_id, done)
        self.body = body

    def asked(self) -> Body:
        """See `Proposal`."""
        return self.body

    def joining(self) -> tuple[str, ...]:
        """See `Proposal`."""
        return tuple(m.user_id for m in self.body.members)

    def decide(
        self,
        state: ConversationState,
        memberships: dict[str, Membership | None],  # noqa: ARG002 - nobody is a member yet
    ) -> Body | None:
        """See `Proposal`. A direct conversation that is there already is what was asked for."""
        if state.kind is None:
            return self.body
        if state.kind is ConversationKind.DIRECT and self.body.kind is state.kind:
            return None
        raise DomainError(
            Reason.ID_REUSED,
            "The request_id was used for another conversation.",
            field="request_id",
            metadata={"seq": "1"},
        )

    def same_as(self, body: Body) -> bool:
        """See `Proposal`."""
        return body == self.body


class Add(Proposal):
    """New members."""

    __slots__ = ("max_members", "members")

    def __init__(
        self,
        log: str,
        change_id: ChangeId,
        user_id: str,
        done: Done,
        members: tuple[NewMember, ...],
        max_members: int,
    ) -> None:
        super().__init__(log, change_id, user_id, done)
        self.members = members
        self.max_members = max_members

    def asked(self) -> Body:
        """See `Proposal`."""
        return MembersAdded(self.members)

    def users(self) -> tuple[str, ...]:
        """See `Proposal`."""
        return (self.user_id, *(m.user_id for m in self.members))

    def joining(self) -> tuple[str, ...]:
        """See `Proposal`."""
        return tuple(m.user_id for m in self.members)

    def decide(
        self, state: ConversationState, memberships: dict[str, Membership | None]
    ) -> Body | None:
        """See `Proposal`."""
        caller = check(state, memberships[self.user_id], Right.ADD_MEMBERS)
        for role in {m.role for m in self.members}:
            check_rank(caller, role)
        new = []
        for member in self.members:
            known = memberships[member.user_id]
            if known is not None and known.current:
                continue
            if known is not None and known.banned_until_ms > self.stamp:
                raise DomainError(
                    Reason.MEMBER_BANNED,
                    f"{member.user_id} is banned from the conversation.",
                    field="members",
                    metadata={"user_id": member.user_id},
                )
            new.append(member)
        if not new:
            return None
        check_member_limit(state, len(new), self.max_members)
        return MembersAdded(tuple(new), state.history_for_newcomers)

    def same_as(self, body: Body) -> bool:
        """See `Proposal`. Those who were members already are not in the entry."""
        return (
            isinstance(body, MembersAdded)
            and not body.invitation
            and set(body.members) <= set(self.members)
        )


def check_member_limit(state: ConversationState, more: int, max_members: int) -> None:
    """Whether a group has room for more members. Raises MEMBER_LIMIT."""
    if state.member_count + more > max_members:
        raise DomainError(
            Reason.MEMBER_LIMIT, f"A group has at most {max_members:,} members.", field="members"
        )


class Remove(Proposal):
    """The end of a membership, one's own (leaving) or another's."""

    __slots__ = ("removed",)

    def __init__(
        self, log: str, change_id: ChangeId, user_id: str, done: Done, removed: str
    ) -> None:
        super().__init__(log, change_id, user_id, done)
        self.removed = removed

    def asked(self) -> Body:
        """See `Proposal`."""
        return MemberRemoved(self.removed)

    def users(self) -> tuple[str, ...]:
        """See `Proposal`."""
        return (self.user_id, self.removed)

    def decide(
        self, state: ConversationState, memberships: dict[str, Membership | None]
    ) -> Body | None:
        """See `Proposal`."""
        leaving = self.removed == self.user_id
        right = Right.LEAVE if leaving else Right.REMOVE_MEMBERS
        caller = check(state, memberships[self.user_id], right)
        known = memberships[self.removed]
        if known is None or not known.current:
            return None
        if not leaving:
            check_rank(caller, known.role)
        elif state.member_count > 1:
            check_owner_stays(state, caller)
        return MemberRemoved(self.removed, known.role)

    def same_as(self, body: Body) -> bool:
        """See `Proposal`. The role of whoever is removed is not asked for."""
        return isinstance(body, MemberRemoved) and body.user_id == self.removed


class NoteInInbox(Proposal):
    """An entry that the server itself puts into a user's inbox, as the effect of a change
    elsewhere.
    """

    __slots__ = ("body",)
    changes_state = has_effects = False

    def __init__(self, log: str, change_id: ChangeId, user_id: str, done: Done, body: Body) -> None:
        super().__init__(log, change_id, user_id, done)
        self.body = body

    def asked(self) -> Body:
        """See `Proposal`."""
        return self.body

    def users(self) -> tuple[str, ...]:
        """See `Proposal`."""
        return ()

    def decide(
        self,
        state: ConversationState,  # noqa: ARG002 - the change that it notes was decided elsewhere
        memberships: dict[str, Membership | None],  # noqa: ARG002
    ) -> Body | None:
        """See `Proposal`."""
        return self.body

    def same_as(self, body: Body) -> bool:
        """See `Proposal`."""
        return body == self.body


def created(
    kind: ConversationKind, title: str, creator: str, others: tuple[str, ...]
) -> ConversationCreated:
    """The first entry of a conversation: the creator owns a group, and direct conversations have no
    owner.

    Raises DomainError when the creator is the other user too.
    """
    users = [u for u in others if u != creator]
    if kind is ConversationKind.DIRECT:
        if not users:
            raise DomainError(
                Reason.INVALID_FIELD,
                "user_ids: must be another user than the caller",
                field="user_ids",
            )
        first, second = sorted((creator, users[0]))
        return ConversationCreated(kind, "", (NewMember(first), NewMember(second)))
    return ConversationCreated(
        kind, title, (NewMember(creator, Role.OWNER), *(NewMember(u) for u in users))
    )
