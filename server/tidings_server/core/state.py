"""The state of a log as a fold over its entries: what decisions need besides single memberships."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from .entries import (
    ConversationCreated,
    ConversationKind,
    Entry,
    MemberRemoved,
    MembersAdded,
    UnknownBody,
)

SMALL_MEMBERS = 32
GROUP_MEMBERS = 500


@dataclass(frozen=True, slots=True)
class ConversationState:
    """What is true of a conversation after its first `seq` entries.

    `kind` is None before its creation, and for inboxes. `peers` are the two users of a direct
    conversation, sorted. `readable_only` is set once an entry is met that this version does not
    know: it must not append.
    """

    seq: int = 0
    kind: ConversationKind | None = None
    title: str = ""
    creator: str = ""
    create_ms: int = 0
    member_count: int = 0
    peers: tuple[str, ...] = ()
    readable_only: bool = False

    def peer_of(self, user_id: str) -> str:
        """In a direct conversation the other user, otherwise empty."""
        return next((p for p in self.peers if p != user_id), "")


EMPTY = ConversationState()


def fold(state: ConversationState, entry: Entry) -> ConversationState:
    """The state after one more entry. Entries without effect on it may be left out; order matters,
    positions must ascend.
    """
    if entry.seq <= state.seq:
        return state
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
            )
        case MembersAdded(members=members):
            return replace(state, seq=entry.seq, member_count=state.member_count + len(members))
        case MemberRemoved():
            return replace(state, seq=entry.seq, member_count=state.member_count - 1)
        case UnknownBody():
            return replace(state, seq=entry.seq, readable_only=True)
    return state


def dump(state: ConversationState) -> bytes:
    """The state as bytes for a snapshot."""
    return json.dumps(
        {
            "seq": state.seq,
            "kind": state.kind,
            "title": state.title,
            "creator": state.creator,
            "create_ms": state.create_ms,
            "member_count": state.member_count,
            "peers": state.peers,
            "readable_only": state.readable_only,
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()


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
    return ConversationState(**fields)
