"""Effects: what a change of a conversation brings about outside its log. Each may be written again
without harm.
"""

from __future__ import annotations

import asyncio

from ..core.commands import ChangeId
from ..core.entries import (
    Body,
    ConversationCreated,
    ConversationJoined,
    ConversationLeft,
    Entry,
    MemberRemoved,
    MembersAdded,
)
from ..core.ids import derived_uuid7, id_bytes, inbox_log
from ..core.memberships import affected_users, fold_membership
from ..core.state import ConversationState
from ..errors import DomainError
from ..storage.base import Store
from .proposals import Committed, NoteInInbox, Submits

_NOTES_AT_ONCE = 500
"""Those of a large group must not stand before everything else that a home is asked for."""


class MembershipEffects:
    """Writes membership rows, then notes in the inboxes of those who came or went."""

    def __init__(self, store: Store, submits: Submits) -> None:
        self._store = store
        self._submits = submits

    async def __call__(self, log: str, change: Entry, conversation: ConversationState) -> None:
        """Writes the effects of one change; those of earlier changes of the log are written before.

        `conversation` is the state after the change, or a later one. Raises StoreUnavailable, or
        DomainError when an inbox can't be written to.
        """
        users = affected_users(change.body)
        if not users:
            return
        rows = await self._store.memberships(log, users)
        folded = [fold_membership(rows.get(u), change, u) for u in users]
        await self._store.put_memberships(log, [m for m in folded if m is not None])
        if not isinstance(change.body, ConversationCreated | MembersAdded | MemberRemoved):
            return
        for at in range(0, len(users), _NOTES_AT_ONCE):
            outcomes = await asyncio.gather(
                *(
                    self._note(log, change, conversation, user)
                    for user in users[at : at + _NOTES_AT_ONCE]
                )
            )
            for outcome in outcomes:
                if isinstance(outcome, DomainError):
                    raise outcome

    def _note(
        self, log: str, change: Entry, conversation: ConversationState, user: str
    ) -> asyncio.Future[Committed | DomainError]:
        future: asyncio.Future[Committed | DomainError] = asyncio.get_running_loop().create_future()
        text = derived_uuid7(change.time_ms, log, str(change.seq), user)
        self._submits.submit(
            NoteInInbox(
                inbox_log(user),
                ChangeId(text, id_bytes(text), change.time_ms),
                change.user_id,
                lambda outcome: None if future.done() else future.set_result(outcome),
                _note_body(log, change, conversation, user),
            )
        )
        return future


def _note_body(log: str, change: Entry, conversation: ConversationState, user: str) -> Body:
    match change.body:
        case ConversationCreated(members=members) | MembersAdded(members=members):
            assert conversation.kind is not None
            role = next(m.role for m in members if m.user_id == user)
            return ConversationJoined(
                log,
                conversation.kind,
                conversation.title,
                change.seq,
                role,
                conversation.peer_of(user),
            )
        case MemberRemoved():
            return ConversationLeft(log, change.seq)
    raise TypeError(f"{type(change.body).__name__} has no effect on users")
