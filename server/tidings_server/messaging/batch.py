"""Batches: the proposals that go into one commit, and the page that they make."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice

from ..codec.entries import EntryEncoder
from ..core import state as folding
from ..core.entries import (
    MESSAGE_CHANGES,
    STATE_BODIES,
    Body,
    Entry,
    MemberRemoved,
    MessageDeleted,
    MessagePosted,
)
from ..core.ids import SKEW_MS
from ..core.pages import (
    BUCKET_SIZE,
    MAX_PAGE_BYTES,
    MAX_PAGE_ENTRIES,
    Page,
    PageFlag,
    room_in_bucket,
)
from ..errors import DomainError, Reason, message_not_found, store_unavailable
from ..storage.base import Append
from .log_state import LogState
from .proposals import Committed, NoteInInbox, Proposal
from .recent_ids import FAR_AHEAD_MS

MAX_PENDING = 16


@dataclass(slots=True)
class Batch:
    """One commit: the append, the proposals in it with their positions, and the entries that have
    effects outside the log.
    """

    append: Append
    accepted: list[tuple[Proposal, Committed]]
    changes: list[Entry]


def build(
    state: LogState,
    queue: deque[Proposal],
    now_ms: int,
    commit_id: bytes,
) -> Batch | None:
    """Takes proposals from the queue's front for one commit, refusing those that the state rules
    out.

    Stops before a proposal that needs something read first; when that is the very first, there is
    no batch. None also when all were refused.
    """
    stamp = _stamp(state, queue, now_ms)
    encoder = EntryEncoder(state.log, stamp)
    first = state.head + 1
    seq, ordinal = state.head, state.ordinal
    room = min(MAX_PAGE_ENTRIES, room_in_bucket(state.head))
    parts: list[bytes] = []
    ids: list[bytes] = []
    taken: set[bytes] = set()
    accepted: list[tuple[Proposal, Committed]] = []
    changes: list[Entry] = []
    size = flags = 0
    pending = state.pending
    # Those that are accepted leave the queue at the end: a fault on the way forgets nobody.
    ended = False
    while len(parts) < min(room, len(queue)) and size < MAX_PAGE_BYTES and not ended:
        proposal = queue[len(parts)]
        raw = proposal.id.raw
        if raw in taken or not _known(state, proposal) or not _after_known(state, proposal, taken):
            break
        if proposal.has_effects and len(pending) >= MAX_PENDING:
            break
        refusal: DomainError | None = None
        body: Body | None = None
        try:
            body = decide(state, proposal, stamp)
            _check_after(state, proposal, taken)
            _check_reply(state, proposal)
        except DomainError as problem:
            refusal = problem
        if (refusal is not None or body is None) and state.shared and not proposal.verified:
            # The condition of a commit validates what is appended, not what is refused.
            break
        if refusal is not None or body is None:
            del queue[len(parts)]
            proposal.tell(refusal or Committed(0, stamp))
            continue
        seq += 1
        if type(body) is MessagePosted:
            ordinal += 1
        else:
            flags |= _flags(state, seq, body)
            # A change of the state ends its page: what follows is decided on the state after it.
            ended = proposal.changes_state
        if proposal.has_effects:
            changes.append(
                Entry(state.log, seq, ordinal, proposal.id.text, proposal.user_id, stamp, body)
            )
            pending = (*pending, seq)
        part = encoder.encode(seq, ordinal, proposal.id.text, proposal.user_id, body)
        parts.append(part)
        ids.append(raw)
        taken.add(raw)
        size += len(part)
        accepted.append((proposal, Committed(seq, stamp)))
    if not accepted:
        return None
    page = Page(first, len(parts), stamp, ordinal, commit_id, b"".join(ids), flags, b"".join(parts))
    snapshot = folding.dump(state.conversation) if state.head % BUCKET_SIZE == 0 else None
    for _ in accepted:
        queue.popleft()
    return Batch(Append(state.log, state.head, page, pending, snapshot), accepted, changes)


def _flags(state: LogState, seq: int, body: Body) -> int:
    """What a reader must know of an entry that is no message."""
    if isinstance(body, MESSAGE_CHANGES):
        flags = PageFlag.STATE if folding.changes_state(state.conversation, seq, body) else 0
        if isinstance(body, MessageDeleted):
            flags |= PageFlag.ERASURE
        return flags | PageFlag.CHANGE
    flags = PageFlag.STATE if isinstance(body, STATE_BODIES) else 0
    return flags | PageFlag.REMOVAL if isinstance(body, MemberRemoved) else flags


def decide(state: LogState, proposal: Proposal, stamp: int) -> Body | None:
    """What a commit at `stamp` appends for a proposal, whose users are known; see
    `Proposal.decide`.
    """
    # A note says what its cause does, whatever else the inbox holds.
    if state.conversation.readable_only and not isinstance(proposal, NoteInInbox):
        raise store_unavailable()
    _check_time(state, proposal, stamp)
    proposal.stamp = stamp
    return proposal.decide(state.conversation, state.memberships)


def _stamp(state: LogState, queue: deque[Proposal], now_ms: int) -> int:
    """The time of a commit. It may lie ahead of the clock, which may have gone back."""
    stamp = max(now_ms, state.stamp)
    if isinstance(queue[0], NoteInInbox):
        # Notes are dated by their causes, which are durable: they can't be refused for lying ahead.
        latest = max(note.id.time_ms for note in islice(queue, MAX_PAGE_ENTRIES))
        stamp = max(stamp, latest - SKEW_MS)
    return stamp


def _known(state: LogState, proposal: Proposal) -> bool:
    """Whether everything that the decision needs is in memory."""
    if proposal.changes_state and not proposal.ready:
        return False
    for user in proposal.users():
        if user not in state.memberships:
            return False
    if stranger(state, proposal):
        return True
    if proposal.says.reply_to is not None and proposal.replied is None:
        return False
    found = state.recent.find(proposal.id.raw)
    if found is not None:
        positions = (found,) if isinstance(found, int) else found
        if not proposal.cleared.issuperset(positions):
            return False
    return (
        proposal.id.time_ms > state.recent.unseen_time
        or proposal.absent_upto >= state.recent.unseen_time
    )


def stranger(state: LogState, proposal: Proposal) -> bool:
    """Whether the sender, who is known, never was a member, and so never sent anything: nothing is
    looked up for them.
    """
    users = proposal.users()
    return (
        bool(users)
        and state.conversation.kind is not None
        and state.memberships.get(proposal.user_id) is None
    )


def _after_known(state: LogState, proposal: Proposal, taken: set[bytes]) -> bool:
    after = proposal.after
    return (
        after is None
        or after.raw in taken
        or state.recent.find(after.raw) is not None
        or after.time_ms > state.recent.unseen_time
        or proposal.after_found is not None
        or stranger(state, proposal)
    )


def _check_after(state: LogState, proposal: Proposal, taken: set[bytes]) -> None:
    after = proposal.after
    if (
        after is None
        or after.raw in taken
        or state.recent.find(after.raw) is not None
        or proposal.after_found
    ):
        return
    raise DomainError(
        Reason.PREDECESSOR_MISSING,
        "The message named by after_message_id is not in the conversation.",
        field="after_message_id",
    )


def _check_reply(state: LogState, proposal: Proposal) -> None:
    """Messages never go away, and who is a member may read on what they could: the check holds for good."""
    if proposal.says.reply_to is None:
        return
    membership = state.memberships[proposal.user_id]
    assert membership is not None, "it was decided that the sender may write"
    if not any(membership.visible(seq) for seq in proposal.replied or ()):
        raise message_not_found("content.reply_to_message_id")


def _check_time(state: LogState, proposal: Proposal, stamp: int) -> None:
    time_ms = proposal.id.time_ms
    if time_ms > stamp + SKEW_MS:
        problem = "The id's time lies more than five minutes ahead of the server's clock."
    elif (
        time_ms > stamp + FAR_AHEAD_MS
        and not isinstance(proposal, NoteInInbox)
        and state.recent.crowded(stamp)
    ):
        problem = "Too many ids of this conversation lie ahead of the server's clock already."
    else:
        return
    raise DomainError(
        Reason.ID_AHEAD,
        problem,
        field=proposal.id_field,
        metadata={"server_time_ms": str(stamp)},
    )
