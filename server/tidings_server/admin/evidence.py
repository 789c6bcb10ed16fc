"""Evidence about an entry and a user: from the store, from open sessions, and from what this node remembers."""

from __future__ import annotations

from ..codec.entries import decode_entries
from ..core.admin import ExplainDelivery, ExplainedEntry
from ..core.entries import (
    Body,
    ConversationCreated,
    ConversationJoined,
    ConversationLeft,
    ConversationUpdated,
    Entry,
    InvitationSet,
    MemberBanned,
    MemberMuted,
    MemberRemoved,
    MemberRoleSet,
    MembersAdded,
    MessageDeleted,
    MessageEdited,
    MessagePinned,
    MessagePosted,
    ReactionSet,
    UnknownBody,
)
from ..core.ids import is_inbox, node_tag
from ..core.memberships import Membership
from ..core.pages import Page
from ..delivery.acks import AckBook
from ..delivery.hub import Hub
from ..delivery.session import Session
from ..errors import DomainError, Reason
from ..messaging.log_state import LogState
from ..messaging.lookup import find_positions
from ..messaging.receipts import keeps_delivered
from ..messaging.sequencer import Sequencer
from ..presence.base import Leases
from ..storage.base import PresenceRow, Receipt, Store, StoreUnavailable
from ..telemetry.trail import SessionDid, SessionTrace, Trail
from .explanation import DeviceEvidence, Evidence, SessionEvidence

KINDS: dict[type[Body], str] = {
    MessagePosted: "message",
    ConversationCreated: "conversation_created",
    MembersAdded: "members_added",
    MemberRemoved: "member_removed",
    ConversationUpdated: "conversation_updated",
    MemberRoleSet: "member_role_set",
    MemberMuted: "member_muted",
    MemberBanned: "member_banned",
    InvitationSet: "invitation_set",
    MessageEdited: "message_edited",
    MessageDeleted: "message_deleted",
    ReactionSet: "reaction_set",
    MessagePinned: "message_pinned",
    ConversationJoined: "conversation_joined",
    ConversationLeft: "conversation_left",
    UnknownBody: "unknown",
}
"""The field of `tidings.v1.Entry.body` that each body is."""


class Witness:
    """Gathers evidence. Raises DomainError, and StoreUnavailable."""

    def __init__(
        self,
        store: Store,
        sequencer: Sequencer,
        leases: Leases,
        hub: Hub,
        acks: AckBook,
        trail: Trail,
    ) -> None:
        self._store = store
        self._sequencer = sequencer
        self._leases = leases
        self._hub = hub
        self._acks = acks
        self._trail = trail

    async def gather(self, asked: ExplainDelivery) -> Evidence:
        """All that can be found about an entry and a user."""
        log, user = asked.conversation_id, asked.user_id
        state = await self._sequencer.state(log)
        seq, given_up = await self._position(state, asked)
        head, members = state.head, state.conversation.member_count
        entry, page = (None, None) if seq == 0 else await self._entry(log, seq)
        membership: Membership | None = None
        receipt = Receipt(log, user)
        if entry is not None and not is_inbox(log):
            membership = (await self._sequencer.view(log, user)).membership
            receipt = (await self._store.receipts_of(user, [log])).get(log, receipt)
        rows = await self._store.presence([user])
        traces = self._trail.sessions_of(user, log)
        at = entry.seq if entry is not None else 0
        message_id = asked.id.text if asked.id is not None else ""
        return Evidence(
            node_id=self._leases.node.node_id,
            asked_seq=asked.seq,
            asked_id=message_id,
            head=head,
            entry=entry,
            given_up=given_up,
            committed_by=self._committer(page),
            is_inbox=is_inbox(log),
            membership=membership,
            marks_kept=keeps_delivered(members),
            receipt=receipt,
            devices=await self._devices(asked, at, traces),
            online=user in await self._leases.online([user]),
            last_seen_ms=rows.get(user, PresenceRow(user)).last_seen_ms,
            other_nodes=other_nodes(self._leases),
            commit=self._trail.commit_of(log, at),
            commits_since_ms=self._trail.commits_since_ms,
            offer=self._trail.offer_of(log, at),
            offers_since_ms=self._trail.offers_since_ms,
            offers_forgotten=self._trail.offers_forgotten,
            refusals=tuple(self._trail.refusals_of(log, message_id)),
            refusals_since_ms=self._trail.refusals_since_ms,
            sessions=tuple(traces),
        )

    async def _position(self, state: LogState, asked: ExplainDelivery) -> tuple[int, bool]:
        """Where the entry is, or 0, and whether it was not looked for to the end."""
        if asked.id is None:
            return (asked.seq if asked.seq <= state.head else 0), False
        try:
            found = await find_positions(self._store, state, asked.id, joined=1)
        except DomainError as problem:
            if problem.reason is not Reason.OUTCOME_UNKNOWN:
                raise
            return 0, True
        return min(found, default=0), False

    async def _entry(self, log: str, seq: int) -> tuple[ExplainedEntry, Page]:
        pages = await self._store.read(log, seq - 1, max_bytes=1, upto=seq)
        for page in pages:
            for entry in decode_entries(page.body):
                if entry.seq == seq:
                    return _without_content(entry), page
        raise StoreUnavailable("a head is ahead of what can be read")

    def _committer(self, page: Page | None) -> str:
        if page is None:
            return ""
        tag = page.commit_id[:4]
        return next((n for n in self._leases.nodes() if node_tag(n) == tag), "")

    async def _devices(
        self, asked: ExplainDelivery, seq: int, traces: list[SessionTrace]
    ) -> tuple[DeviceEvidence, ...]:
        log, user = asked.conversation_id, asked.user_id
        sessions = {s.principal.device_id: s for s in self._hub.sessions_of(user)}
        left: dict[str, SessionTrace] = {}
        for trace in traces:
            if trace.did is SessionDid.ENDED:
                left[trace.device_id] = trace
        devices = dict.fromkeys((*asked.device_ids, *sessions, *left))
        found = []
        for device in devices:
            cursors = await self._store.cursors(user, device)
            cursor = max(cursors.get(log, 0), self._acks.remembered_of(user, device).get(log, 0))
            session = sessions.get(device)
            found.append(
                DeviceEvidence(
                    device,
                    cursor or None,
                    None if session is None else _session(session, log, seq),
                    left.get(device),
                )
            )
        return tuple(found)


def other_nodes(leases: Leases) -> tuple[str, ...]:
    """The other nodes that live, by id."""
    return tuple(sorted(n for n in leases.nodes() if n != leases.node.node_id))


def _without_content(entry: Entry) -> ExplainedEntry:
    return ExplainedEntry(
        entry.seq, entry.id, entry.user_id, KINDS[type(entry.body)], entry.time_ms
    )


def _session(session: Session, log: str, seq: int) -> SessionEvidence:
    position = session.positions.get(log)
    gaps = session.gaps.get(log, ())
    return SessionEvidence(
        session.id,
        None if position is None else position.sent,
        None if position is None else position.acked,
        session.syncing,
        session.window.room() <= 0,
        session.outbox.bytes,
        not session.outbox.room(1),
        next(((first, last) for first, last in gaps if first <= seq <= last), None),
    )
