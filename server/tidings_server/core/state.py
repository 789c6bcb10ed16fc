"""The state of a log as a fold over its entries: what decisions need besides single memberships."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .entries import (
    MESSAGE_CHANGES,
    SETTINGS,
    ConversationCreated,
    ConversationKind,
    ConversationUpdated,
    Entry,
    InvitationSet,
    MemberRemoved,
    MemberRoleSet,
    MembersAdded,
    MessageChange,
    MessageDeleted,
    MessagePinned,
    RightOverride,
    Role,
    UnknownBody,
)
from .pages import bucket_of

SMALL_MEMBERS = 32
GROUP_MEMBERS = 500
MAX_PINS = 50
"""How many messages of a conversation can be pinned: they are shown whole, and stand in the state."""


Invitation = tuple[str, int, int]
"""An invitation, how many may still join by it, and until when."""


@dataclass(frozen=True, slots=True)
class ConversationState:
    """What is true of a conversation after its first `seq` entries.

    `kind` is None before its creation, and for inboxes. `peers` are the two users of a direct
    conversation, sorted. `readable_only` is set once an entry is met that this version does not
    know: it must not append. `changed_bucket` is the newest bucket in which the page of a change of a
    message is flagged, plus one. `updated_seq` is where a setting was changed last, 0 for never.
    `owner_count` is the number of owners of a group, or a smaller one of at least 1: where the first version removed
    members, it is not known who was an owner.
    `pins` are the positions of the pinned messages, those that were pinned last at the end.
    """

    seq: int = 0
    kind: ConversationKind | None = None
    title: str = ""
    creator: str = ""
    create_ms: int = 0
    member_count: int = 0
    peers: tuple[str, ...] = ()
    readable_only: bool = False
    changed_bucket: int = 0
    description: str = ""
    picture: str = ""
    custom_data: str = ""
    updated_seq: int = 0
    owner_count: int = 1
    frozen: bool = False
    rights: tuple[RightOverride, ...] = ()
    history_for_newcomers: bool = False
    invitations: tuple[Invitation, ...] = ()
    pins: tuple[int, ...] = ()

    def as_left(self, last_seq: int) -> ConversationState:
        """What somebody is told of it whose last position is this: no settings, if one was changed since."""
        if self.updated_seq <= last_seq:
            return self
        return replace(self, **{name: getattr(EMPTY, name) for name in SETTINGS})

    def peer_of(self, user_id: str) -> str:
        """In a direct conversation the other user, otherwise empty."""
        return next((p for p in self.peers if p != user_id), "")


EMPTY = ConversationState()

_LATER = (
    "changed_bucket",
    "description",
    "picture",
    "custom_data",
    "updated_seq",
    "owner_count",
    "frozen",
    "rights",
    "history_for_newcomers",
    "invitations",
    "pins",
)
"""Fields that the first version does not know."""


def fold(state: ConversationState, entry: Entry) -> ConversationState:
    """The state after one more entry. Entries without effect on it may be left out; order matters,
    positions must ascend.
    """
    if entry.seq <= state.seq:
        return state
    if isinstance(entry.body, MESSAGE_CHANGES):
        if not changes_state(state, entry.seq, entry.body):
            return state
        return replace(
            state,
            seq=entry.seq,
            changed_bucket=bucket_of(entry.seq) + 1,
            pins=_pins(state.pins, entry.body),
        )
    match entry.body:
        case ConversationCreated(kind=kind, title=title, members=members):
            users = sorted(m.user_id for m in members)
            return replace(
                state,
                seq=entry.seq,
                kind=kind,
                title=title,
                creator=entry.user_id,
                create_ms=entry.time_ms,
                member_count=len(members),
                peers=tuple(users) if kind is ConversationKind.DIRECT else (),
                owner_count=max(_owners(m.role for m in members), 1),
            )
        case InvitationSet():
            return replace(state, seq=entry.seq, invitations=_invitations(state, entry.body))
        case MembersAdded(members=members, invitation=invitation):
            used = [i for i in state.invitations if i[0] == invitation]
            if used:
                ((_, uses, until_ms),) = used
                change = InvitationSet(invitation, uses - 1, until_ms)
                state = replace(state, invitations=_invitations(state, change))
            return replace(
                state,
                seq=entry.seq,
                member_count=state.member_count + len(members),
                owner_count=state.owner_count + _owners(m.role for m in members),
            )
        case MemberRemoved(role=role):
            gone = role is None or role is Role.OWNER
            return replace(
                state,
                seq=entry.seq,
                member_count=state.member_count - 1,
                owner_count=max(state.owner_count - gone, 1),
            )
        case MemberRoleSet(changes=changes):
            more = _owners(c.role for c in changes) - _owners(c.before for c in changes)
            return replace(state, seq=entry.seq, owner_count=max(state.owner_count + more, 1))
        case ConversationUpdated(changes=changes):
            return replace(
                state,
                seq=entry.seq,
                updated_seq=entry.seq,
                **dict(changes),  # type: ignore[arg-type]
            )
        case UnknownBody():
            return replace(state, seq=entry.seq, readable_only=True)
    return state


def _invitations(state: ConversationState, change: InvitationSet) -> tuple[Invitation, ...]:
    others = [i for i in state.invitations if i[0] != change.invitation]
    if change.uses:
        others.append((change.invitation, change.uses, change.until_ms))
    return tuple(sorted(others))


def _owners(roles: Iterable[Role | None]) -> int:
    return sum(role is Role.OWNER for role in roles)


def changes_state(state: ConversationState, seq: int, change: MessageChange) -> bool:
    """Whether a change of a message at a position must be read to load the state.

    Most have no effect on it but what is pinned. But a node of an older version, which doesn't know them, must meet one
    in each bucket: then it appends no more.
    """
    return state.changed_bucket != bucket_of(seq) + 1 or _pins(state.pins, change) != state.pins


def _pins(pins: tuple[int, ...], change: MessageChange) -> tuple[int, ...]:
    match change:
        case MessagePinned(seq, True):
            return pins if seq in pins else (*pins, seq)
        case MessagePinned(seq) | MessageDeleted(seq):
            return tuple(pin for pin in pins if pin != seq)
    return pins


def dump(state: ConversationState) -> bytes:
    """The state as bytes for a snapshot."""
    fields: dict[str, object] = {
        "seq": state.seq,
        "kind": state.kind,
        "title": state.title,
        "creator": state.creator,
        "create_ms": state.create_ms,
        "member_count": state.member_count,
        "peers": state.peers,
        "readable_only": state.readable_only,
    }
    for name in _LATER:
        # Left out while there is nothing to say: who doesn't know a field appends no more.
        if (value := getattr(state, name)) != getattr(EMPTY, name):
            fields[name] = value
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def load(raw: bytes) -> ConversationState:
    """The state of a snapshot. Fields that it lacks take their defaults; one with fields of a newer version may be
    read, not appended to.
    """
    if not raw:
        return EMPTY
    stored = json.loads(raw)
    known = ConversationState.__dataclass_fields__
    fields = {name: value for name, value in stored.items() if name in known}
    if len(fields) < len(stored):
        fields["readable_only"] = True
    if fields.get("kind") is not None:
        fields["kind"] = ConversationKind(fields["kind"])
    fields["peers"] = tuple(fields.get("peers", ()))
    fields["invitations"] = tuple(tuple(one) for one in fields.get("invitations", ()))
    fields["rights"] = tuple(tuple(override) for override in fields.get("rights", ()))
    fields["pins"] = tuple(fields.get("pins", ()))
    return ConversationState(**fields)
