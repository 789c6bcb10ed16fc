"""Proposals that other nodes have sent, made again from what they ask."""

from __future__ import annotations

from ..core.commands import ChangeId
from ..core.entries import (
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
)
from ..core.ids import id_bytes, uuid7_time
from .conversation_changes import Ban, Mute, SetRoles, Update
from .invitations import Invite, Join
from .message_changes import Delete, Edit, Pin, React
from .proposals import Add, Create, Done, NoteInInbox, PostMessage, Proposal, Remove


def proposed(  # noqa: C901  # one case for each kind of change
    entry: Entry, after: ChangeId | None, max_members: int, done: Done
) -> Proposal:
    """The proposal whose `asked` is the body of an entry without a position. Raises ValueError when
    this version knows no such change, or its id is none.
    """
    raw = id_bytes(entry.id)
    time_ms = uuid7_time(raw)
    log, change_id, user = entry.log, ChangeId(entry.id, raw, time_ms), entry.user_id
    match entry.body:
        case MessagePosted(content):
            return PostMessage(log, change_id, user, done, content, after)
        case MessageEdited(seq, content):
            return Edit(log, change_id, user, done, seq, content)
        case MessageDeleted(seq):
            return Delete(log, change_id, user, done, seq)
        case ReactionSet(seq, reaction, _):
            return React(log, change_id, user, done, seq, reaction)
        case MessagePinned(seq, pinned):
            return Pin(log, change_id, user, done, seq, pinned=pinned)
        case ConversationCreated():
            return Create(log, change_id, user, done, entry.body)
        case MembersAdded(invitation=invitation) if invitation:
            return Join(log, change_id, user, done, invitation, max_members)
        case InvitationSet():
            return Invite(log, change_id, user, done, entry.body)
        case MembersAdded(members):
            return Add(log, change_id, user, done, members, max_members)
        case MemberRemoved(removed):
            return Remove(log, change_id, user, done, removed)
        case ConversationUpdated(changes):
            return Update(log, change_id, user, done, changes)
        case MemberRoleSet(role_changes):
            roles = {change.user_id: change.role for change in role_changes}
            return SetRoles(log, change_id, user, done, roles)
        case MemberMuted(member, until_ms) | MemberBanned(member, until_ms):
            kind = Mute if isinstance(entry.body, MemberMuted) else Ban
            return kind(log, change_id, user, done, member, until_ms)
        case ConversationJoined() | ConversationLeft():
            return NoteInInbox(log, change_id, user, done, entry.body)
    raise ValueError(f"no change of a log: {type(entry.body).__name__}")
