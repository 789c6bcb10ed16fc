"""Conversations: creating them, changing who is in them, and showing them as a member sees them."""

from __future__ import annotations

import asyncio
import random

from ..core.clock import Clock
from ..core.commands import (
    AddMembers,
    ChangeId,
    ConversationChanged,
    ConversationGot,
    ConversationsListed,
    ConversationView,
    CreateConversation,
    GetConversation,
    JoinConversation,
    LeaveConversation,
    ListConversations,
    ListMembers,
    MembersListed,
    RemoveMember,
    SetBan,
    SetInvitation,
    SetMute,
    SetRole,
    TransferOwnership,
    UpdateConversation,
)
from ..core.entries import ConversationKind, InvitationSet, Role
from ..core.ids import direct_conversation_id, group_conversation_id, id_bytes, uuid7
from ..core.limits import Limits
from ..core.permissions import Right, check
from ..core.principal import Principal
from ..errors import DomainError, Reason, conversation_not_found, invalid, outcome_unknown
from ..storage.base import Receipt, Store, StoreUnavailable
from .conversation_changes import Ban, Mute, SetRoles, Update, transferred
from .invitations import Invite, Join
from .log_state import LogView
from .lookup import read_entry
from .mentions import count_unread
from .proposals import Add, Create, Remove, Submits, commit, created
from .sequencer import Sequencer

_AT_ONCE = 64


class Conversations:
    """Handles the commands about conversations and members. Raises DomainError, and
    StoreUnavailable.
    """

    def __init__(
        self,
        store: Store,
        sequencer: Sequencer,
        submits: Submits,
        clock: Clock,
        rng: random.Random,
        limits: Limits,
    ) -> None:
        self._store = store
        self._sequencer = sequencer
        self._submits = submits
        self._clock = clock
        self._rng = rng
        self._limits = limits

    async def create(self, caller: Principal, command: CreateConversation) -> ConversationGot:
        """Creates a group, or gets the direct conversation with a user."""
        body = created(command.kind, command.title, caller.user_id, command.user_ids)
        if len(body.members) > self._limits.max_members:
            raise DomainError(
                Reason.MEMBER_LIMIT,
                f"A group has at most {self._limits.max_members:,} members.",
                field="user_ids",
            )
        change_id = command.id
        if change_id is None:
            (peer,) = (m.user_id for m in body.members if m.user_id != caller.user_id)
            log = direct_conversation_id(caller.user_id, peer)
            now = self._clock.now_ms()
            text = uuid7(now, self._rng)
            change_id = ChangeId(text, id_bytes(text), now)
        else:
            log = group_conversation_id(caller.user_id, change_id.text)
        await commit(self._submits, lambda done: Create(log, change_id, caller.user_id, done, body))
        try:
            view = await self._sequencer.view(log, caller.user_id)
            return ConversationGot(await self._show(log, caller.user_id, view), created=True)
        except StoreUnavailable:
            raise outcome_unknown() from None
        except DomainError as problem:
            # It is there, and can't be shown now: that nothing was changed would not be true.
            raise (
                outcome_unknown() if problem.reason is Reason.STORE_UNAVAILABLE else problem
            ) from None

    async def add(self, caller: Principal, command: AddMembers) -> ConversationChanged:
        """Adds members."""
        committed = await commit(
            self._submits,
            lambda done: Add(
                command.conversation_id,
                command.id,
                caller.user_id,
                done,
                command.members,
                self._limits.max_members,
            ),
        )
        return ConversationChanged(AddMembers, committed.seq)

    async def remove(self, caller: Principal, command: RemoveMember) -> ConversationChanged:
        """Removes a member. Leaving is a right of its own."""
        if command.user_id == caller.user_id:
            raise invalid("user_id", "must be another than the caller, who leaves instead")
        committed = await commit(
            self._submits,
            lambda done: Remove(
                command.conversation_id, command.id, caller.user_id, done, command.user_id
            ),
        )
        return ConversationChanged(RemoveMember, committed.seq)

    async def leave(self, caller: Principal, command: LeaveConversation) -> ConversationChanged:
        """Ends the caller's membership."""
        committed = await commit(
            self._submits,
            lambda done: Remove(
                command.conversation_id, command.id, caller.user_id, done, caller.user_id
            ),
        )
        return ConversationChanged(LeaveConversation, committed.seq)

    async def update(self, caller: Principal, command: UpdateConversation) -> ConversationChanged:
        """Changes settings."""
        committed = await commit(
            self._submits,
            lambda done: Update(
                command.conversation_id, command.id, caller.user_id, done, command.changes
            ),
        )
        return ConversationChanged(UpdateConversation, committed.seq)

    async def set_role(self, caller: Principal, command: SetRole) -> ConversationChanged:
        """Gives a member another role."""
        return await self._set_roles(caller, command, {command.user_id: command.role})

    async def transfer(self, caller: Principal, command: TransferOwnership) -> ConversationChanged:
        """Makes another member the owner."""
        if command.user_id == caller.user_id:
            raise invalid("user_id", "must be another than the caller")
        return await self._set_roles(caller, command, transferred(caller.user_id, command.user_id))

    async def _set_roles(
        self, caller: Principal, command: SetRole | TransferOwnership, roles: dict[str, Role]
    ) -> ConversationChanged:
        committed = await commit(
            self._submits,
            lambda done: SetRoles(command.conversation_id, command.id, caller.user_id, done, roles),
        )
        return ConversationChanged(type(command), committed.seq)

    async def mute(self, caller: Principal, command: SetMute) -> ConversationChanged:
        """Mutes a member, or takes that back."""
        return await self._restrict(caller, command, Mute)

    async def ban(self, caller: Principal, command: SetBan) -> ConversationChanged:
        """Bans a member, or takes that back."""
        return await self._restrict(caller, command, Ban)

    async def _restrict(
        self, caller: Principal, command: SetMute | SetBan, kind: type[Mute | Ban]
    ) -> ConversationChanged:
        if command.user_id == caller.user_id:
            raise invalid("user_id", "must be another than the caller")
        committed = await commit(
            self._submits,
            lambda done: kind(
                command.conversation_id,
                command.id,
                caller.user_id,
                done,
                command.user_id,
                command.until_ms,
            ),
        )
        return ConversationChanged(type(command), committed.seq)

    async def invite(self, caller: Principal, command: SetInvitation) -> ConversationChanged:
        """Makes an invitation, changes it, or takes it back."""
        change = InvitationSet(command.invitation, command.uses, command.until_ms)
        committed = await commit(
            self._submits,
            lambda done: Invite(command.conversation_id, command.id, caller.user_id, done, change),
        )
        return ConversationChanged(SetInvitation, committed.seq)

    async def join(self, caller: Principal, command: JoinConversation) -> ConversationChanged:
        """Makes the caller a member by an invitation."""
        committed = await commit(
            self._submits,
            lambda done: Join(
                command.conversation_id,
                command.id,
                caller.user_id,
                done,
                command.invitation,
                self._limits.max_members,
            ),
        )
        return ConversationChanged(JoinConversation, committed.seq)

    async def get(self, caller: Principal, command: GetConversation) -> ConversationGot:
        """Gets a conversation that the caller is or was a member of."""
        view = await self._sequencer.view(command.conversation_id, caller.user_id)
        return ConversationGot(
            await self._show(command.conversation_id, caller.user_id, view), created=False
        )

    async def list_conversations(
        self, caller: Principal, command: ListConversations
    ) -> ConversationsListed:
        """Lists the caller's conversations, the latest active first."""
        before = _activity(command.page_token)
        logs = await self._store.user_logs(caller.user_id)
        heads = await self._store.heads(logs)
        rows = await self._store.memberships_of(caller.user_id, list(heads))
        # A conversation whose effects are pending may not have its row yet: the view below applies them
        # first.
        listed = sorted(
            (
                (head.stamp, log)
                for log, head in heads.items()
                if head.pending or (log in rows and rows[log].current)
            ),
            reverse=True,
        )
        if before is not None:
            listed = [item for item in listed if item < before]
        views: list[ConversationView] = []
        token = ""
        at = 0
        while at < len(listed) and len(views) < command.page_size:
            part = listed[at : at + min(command.page_size - len(views), _AT_ONCE)]
            at += len(part)
            shown = await asyncio.gather(*(self._current(log, caller.user_id) for _, log in part))
            views += [view for view in shown if view is not None]
            token = "{}.{}".format(*part[-1])
        return ConversationsListed(tuple(views), token if at < len(listed) else "")

    async def _current(self, log: str, user: str) -> ConversationView | None:
        """A conversation as its member sees it; None when the user is none any more."""
        view = await self._sequencer.view(log, user)
        if view.membership is None or not view.membership.current:
            return None
        return await self._show(log, user, view)

    async def list_members(self, caller: Principal, command: ListMembers) -> MembersListed:
        """Lists the members."""
        log = command.conversation_id
        view = await self._sequencer.view(log, caller.user_id)
        check(view.conversation, view.membership, Right.READ)
        rows = await self._store.list_memberships(
            log, after_user=command.page_token, limit=command.page_size + 1
        )
        more = len(rows) > command.page_size
        rows = rows[: command.page_size]
        return MembersListed(tuple(rows), rows[-1].user_id if more else "")

    async def _show(self, log: str, user: str, view: LogView) -> ConversationView:
        membership, state = view.membership, view.conversation
        if state.kind is None or membership is None:
            raise conversation_not_found()
        receipts = await self._store.receipts_of(user, [log])
        receipt = receipts.get(log, Receipt(log, user))
        unread = (
            view.ordinal - max(receipt.read_ordinal, membership.intervals[-1].join_ordinal)
            if membership.current
            else 0
        )
        mentions = 0
        if unread > 0:
            await self._sequencer.folded(log)
            mentions = await count_unread(
                self._store, log, user, receipt.read_seq, membership.join_seq
            )
        update_ms, told = view.stamp, state
        if membership.last_visible is not None:
            # That it lives on is nothing for who is a member no more.
            last = await read_entry(self._store, log, membership.last_visible)
            assert last is not None, "a removal is in the log"
            update_ms = last.time_ms
            told = state.as_left(membership.last_visible)
        return ConversationView(
            conversation_id=log,
            kind=ConversationKind(state.kind),
            title=told.title,
            peer_user_id=state.peer_of(user),
            create_ms=state.create_ms,
            update_ms=update_ms,
            member_count=state.member_count if membership.current else 0,
            head_seq=membership.last_visible or view.head,
            role=membership.role if membership.current else None,
            join_seq=membership.intervals[-1].first_seq,
            read_seq=receipt.read_seq,
            unread_count=max(unread, 0),
            unread_mention_count=mentions,
            description=told.description,
            picture=told.picture,
            custom_data=told.custom_data,
            frozen=told.frozen,
            rights=told.rights,
            history_for_newcomers=told.history_for_newcomers,
        )


def _activity(token: str) -> tuple[int, str] | None:
    if not token:
        return None
    stamp, _, log = token.partition(".")
    if not stamp.isdecimal() or not log:
        raise invalid("page_token", "is none that this server made")
    return int(stamp), log
