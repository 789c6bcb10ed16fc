"""Explanations: what became of an entry on its way to a user, from evidence that was gathered.

Pure. What is not known is said, with the reason, and never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..core.admin import (
    DeliveryExplained,
    DeliveryFact,
    DeliveryOutcome,
    ExplainedEntry,
    FactCause,
    FactSource,
    FactState,
    SessionNote,
)
from ..core.admin import DeliveryStep as Step
from ..core.memberships import Membership
from ..storage.base import Receipt
from ..telemetry.trail import PageTrace, RefusalTrace, SessionTrace

NOTES = 50
"""The most of what happened to sessions that is told."""

_UNSEEN = (DeliveryOutcome.NOT_COMMITTED, DeliveryOutcome.NOT_FOR_USER)
YES, NO, UNKNOWN = FactState.YES, FactState.NO, FactState.UNKNOWN


@dataclass(frozen=True, slots=True)
class SessionEvidence:
    """An open session of this node. `sent` and `acked` are None while it does not follow the log; `gap` is the gap over
    the entry that the device was told of.
    """

    session_id: str
    sent: int | None
    acked: int | None
    syncing: bool
    window_full: bool
    outbox_bytes: int
    outbox_full: bool
    gap: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class DeviceEvidence:
    """A device: its stored cursor, its session here, and the end of the one before."""

    device_id: str
    cursor: int | None
    session: SessionEvidence | None
    left: SessionTrace | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found about an entry and a user. `membership` and `receipt` are None where there is none;
    `marks_kept` is whether single members' delivered marks are kept. `committed_by` is empty when it is not known.
    """

    node_id: str
    asked_seq: int
    asked_id: str
    head: int
    entry: ExplainedEntry | None
    given_up: bool
    committed_by: str
    is_inbox: bool
    membership: Membership | None
    marks_kept: bool
    receipt: Receipt
    devices: tuple[DeviceEvidence, ...]
    online: bool
    last_seen_ms: int
    other_nodes: tuple[str, ...]
    commit: PageTrace | None
    commits_since_ms: int
    offer: PageTrace | None
    offers_since_ms: int
    offers_forgotten: bool
    refusals: tuple[RefusalTrace, ...]
    refusals_since_ms: int
    sessions: tuple[SessionTrace, ...]


def explain(e: Evidence) -> DeliveryExplained:
    """The facts along the way, and what became of the entry in a word."""
    if e.entry is None:
        facts = (*_not_committed(e),)
        outcome = DeliveryOutcome.UNKNOWN if e.given_up else DeliveryOutcome.NOT_COMMITTED
    else:
        seq = e.entry.seq
        visible = _visible(e, seq)
        facts = (_committed(e, e.entry), visible)
        outcome = DeliveryOutcome.NOT_FOR_USER
        if visible.state is YES:
            facts += (*_published(e, e.entry), _connected(e), *_devices(e, seq), *_marks(e, seq))
            outcome = _outcome(e, facts)
    shown = e.sessions[-NOTES:] if outcome not in _UNSEEN else ()
    notes = tuple(_note(trace) for trace in shown)
    return DeliveryExplained(outcome, facts, e.entry, e.asked_id, e.head, e.node_id, notes)


def _note(trace: SessionTrace) -> SessionNote:
    text = f"{trace.did.value}: {trace.detail}" if trace.detail else trace.did.value
    return SessionNote(trace.time_ms, trace.device_id, trace.session_id, text)


# The log


def _not_committed(e: Evidence) -> Iterator[DeliveryFact]:
    log = FactSource.LOG
    if e.given_up:
        yield DeliveryFact(
            Step.COMMITTED,
            UNKNOWN,
            "The id may be further back than one look-up reads: ask again, and it goes on from there.",
            cause=FactCause.LOOK_UP_TOO_LONG,
        )
    elif not e.head:
        text = "The conversation has no entries."
        yield DeliveryFact(Step.COMMITTED, NO, text, log, FactCause.NO_SUCH_CONVERSATION)
    elif e.asked_seq:
        text = f"The log goes up to {e.head}."
        yield DeliveryFact(Step.COMMITTED, NO, text, log, FactCause.AHEAD_OF_HEAD, seq=e.head)
    else:
        text = f"No entry up to the head, {e.head}, has the id."
        yield DeliveryFact(Step.COMMITTED, NO, text, log, FactCause.ID_NOT_IN_LOG, seq=e.head)
    if not e.asked_id:
        return
    for refusal in e.refusals:
        yield DeliveryFact(
            Step.ACCEPTED,
            NO,
            f"A send of this id by {refusal.user_id} was refused: {refusal.reason}.",
            FactSource.TRACE,
            FactCause.REFUSED,
            time_ms=refusal.time_ms,
            node_id=e.node_id,
        )
    if not e.refusals:
        yield DeliveryFact(
            Step.ACCEPTED,
            UNKNOWN,
            "This node remembers no refusal of this id; what came before is forgotten.",
            cause=FactCause.FORGOTTEN,
            time_ms=e.refusals_since_ms,
            node_id=e.node_id,
        )
    for node_id in e.other_nodes:
        text = "A send to another node may have been refused there."
        yield DeliveryFact(
            Step.ACCEPTED, UNKNOWN, text, cause=FactCause.OTHER_NODE, node_id=node_id
        )


def _committed(e: Evidence, entry: ExplainedEntry) -> DeliveryFact:
    by = (
        f"by node {e.committed_by}"
        if e.committed_by
        else "by a node that is not among those that live"
    )
    return DeliveryFact(
        Step.COMMITTED,
        YES,
        f"It was committed at {entry.seq} {by}.",
        FactSource.LOG,
        time_ms=entry.commit_ms,
        seq=entry.seq,
        node_id=e.committed_by,
    )


def _visible(e: Evidence, seq: int) -> DeliveryFact:
    membership, source = e.membership, FactSource.MEMBERSHIP
    if e.is_inbox:
        return DeliveryFact(Step.VISIBLE, YES, "It is in the user's own inbox.", source)
    if membership is None:
        text = "The user never was a member."
        return DeliveryFact(Step.VISIBLE, NO, text, source, FactCause.NEVER_A_MEMBER)
    if membership.due(seq):
        stay = next(i for i in reversed(membership.intervals) if i.join_seq <= seq)
        text = f"The user was a member, since {stay.join_seq}."
        return DeliveryFact(Step.VISIBLE, YES, text, source, seq=stay.join_seq)
    later = next((i for i in membership.intervals if i.join_seq > seq), None)
    before = next((i for i in reversed(membership.intervals) if i.join_seq <= seq), None)
    if before is None:
        assert later is not None
        text = f"The user joined later, at {later.join_seq}."
        return DeliveryFact(
            Step.VISIBLE, NO, text, source, FactCause.JOINED_LATER, seq=later.join_seq
        )
    text = f"The user was removed, or left, before, at {before.removed_seq}"
    text += f", and joined again later, at {later.join_seq}." if later is not None else "."
    return DeliveryFact(
        Step.VISIBLE, NO, text, source, FactCause.REMOVED_BEFORE, seq=before.removed_seq
    )


# The bus


def _published(e: Evidence, entry: ExplainedEntry) -> Iterator[DeliveryFact]:
    trace = FactSource.TRACE
    if e.commit is not None:
        text = "This node handed it to the bus when it was committed."
        yield DeliveryFact(
            Step.PUBLISHED, YES, text, trace, time_ms=e.commit.time_ms, node_id=e.node_id
        )
    elif e.offer is not None:
        text = "It came from the bus."
        yield DeliveryFact(Step.PUBLISHED, YES, text, trace, time_ms=e.offer.time_ms)
    elif e.committed_by and e.committed_by != e.node_id:
        text = "The node that committed it knows; this one was not handed it by the bus, or has forgotten."
        yield DeliveryFact(
            Step.PUBLISHED, UNKNOWN, text, cause=FactCause.OTHER_NODE, node_id=e.committed_by
        )
    else:
        text = "This node remembers nothing of it: it was before, or another node's."
        yield _forgotten(e, Step.PUBLISHED, text, e.commits_since_ms)
    if e.offer is not None:
        yield DeliveryFact(
            Step.OFFERED,
            YES,
            f"It was handed to {e.offer.sessions} session(s) that followed the log here.",
            trace,
            time_ms=e.offer.time_ms,
            node_id=e.node_id,
        )
    elif entry.commit_ms < e.offers_since_ms or (
        # The clocks of nodes differ: of what others committed it can't be told that it was later.
        e.offers_forgotten and e.committed_by != e.node_id
    ):
        text = "Whether it was handed to sessions here is forgotten."
        yield _forgotten(e, Step.OFFERED, text, e.offers_since_ms)
    else:
        text = "It was handed to no session here: none followed the log, or the bus brought it not."
        yield DeliveryFact(Step.OFFERED, NO, text, trace, FactCause.NOT_FOLLOWED, node_id=e.node_id)


def _forgotten(e: Evidence, step: Step, text: str, since_ms: int) -> DeliveryFact:
    return DeliveryFact(
        step,
        UNKNOWN,
        text,
        cause=FactCause.FORGOTTEN,
        time_ms=since_ms,
        node_id=e.node_id,
    )


# Devices


def _connected(e: Evidence) -> DeliveryFact:
    if any(d.session is not None for d in e.devices):
        text = "A device of the user is connected to this node."
        return DeliveryFact(Step.CONNECTED, YES, text, FactSource.SESSION, node_id=e.node_id)
    if e.online:
        text = "The user is online: at another node, or here until a moment ago."
        return DeliveryFact(Step.CONNECTED, YES, text, FactSource.PRESENCE)
    text = "No device of the user is connected to any node that is known."
    return DeliveryFact(
        Step.CONNECTED, NO, text, FactSource.PRESENCE, FactCause.OFFLINE, time_ms=e.last_seen_ms
    )


def _devices(e: Evidence, seq: int) -> Iterator[DeliveryFact]:
    for device in e.devices:
        yield _written(e, device, seq)
        yield _acknowledged(device, seq)
    if e.online and all(device.session is None for device in e.devices):
        for node_id in e.other_nodes:
            text = "A device of the user may be connected to this other node."
            yield DeliveryFact(
                Step.WRITTEN, UNKNOWN, text, cause=FactCause.OTHER_NODE, node_id=node_id
            )
    yield DeliveryFact(
        Step.ACKNOWLEDGED,
        UNKNOWN,
        "Devices that are not connected here and were not named can't be listed.",
        cause=FactCause.DEVICES_NOT_LISTED,
    )


def _written(e: Evidence, device: DeviceEvidence, seq: int) -> DeliveryFact:
    session = device.session
    if session is None:
        return _written_before(e, device, seq)

    def fact(
        state: FactState, text: str, cause: FactCause = FactCause.NONE, at: int = 0
    ) -> DeliveryFact:
        return DeliveryFact(
            Step.WRITTEN,
            state,
            text,
            FactSource.SESSION,
            cause,
            seq=at,
            node_id=e.node_id,
            device_id=device.device_id,
            session_id=session.session_id,
        )

    if session.gap is not None:
        first, last = session.gap
        text = f"The device was told of a gap from {first} to {last}, to be read from history."
        return fact(NO, text, FactCause.IN_A_GAP, last)
    if session.sent is None or session.acked is None:
        if session.syncing:
            return fact(NO, "The device has just connected.", FactCause.SYNCING)
        return fact(NO, "The session does not follow the log (yet).", FactCause.NOT_FOLLOWED)
    if session.acked >= seq or (session.sent >= seq and not session.outbox_bytes):
        return fact(
            YES,
            "It was written to the device's connection, or known to it from before.",
            at=session.sent,
        )
    if session.sent >= seq:
        text = f"It is among the last that were put into the outbox, where {session.outbox_bytes} bytes wait."
        return fact(UNKNOWN, text, FactCause.IN_OUTBOX, session.sent)
    so_far = f"The device was sent up to {session.sent}"
    if session.outbox_full:
        return fact(NO, f"{so_far}, and does not read.", FactCause.OUTBOX_FULL, session.sent)
    if session.window_full:
        text = f"{so_far}, and has as many entries to acknowledge as its window allows."
        return fact(NO, text, FactCause.WINDOW_FULL, session.sent)
    if session.syncing:
        return fact(NO, f"{so_far}, having just connected.", FactCause.SYNCING, session.sent)
    text = f"{so_far}, and is sent what it misses from the store."
    return fact(NO, text, FactCause.CATCHING_UP, session.sent)


def _written_before(e: Evidence, device: DeviceEvidence, seq: int) -> DeliveryFact:
    name = device.device_id
    if device.cursor is not None and device.cursor >= seq:
        text = f"The device's cursor has passed it: at {device.cursor}."
        return DeliveryFact(
            Step.WRITTEN, YES, text, FactSource.CURSOR, seq=device.cursor, device_id=name
        )
    left, when = device.left, ""
    if left is not None:
        when = f" since it left this node ({left.detail})"
    if e.other_nodes and e.online:
        text = f"The device is not connected here{when}; the user is online, and another node may have it."
        return DeliveryFact(Step.WRITTEN, UNKNOWN, text, cause=FactCause.OTHER_NODE, device_id=name)
    return DeliveryFact(
        Step.WRITTEN,
        NO,
        f"The device is not connected{when}.",
        FactSource.PRESENCE if left is None else FactSource.TRACE,
        FactCause.OFFLINE,
        time_ms=e.last_seen_ms if left is None else left.time_ms,
        device_id=name,
    )


def _acknowledged(device: DeviceEvidence, seq: int) -> DeliveryFact:
    name, session = device.device_id, device.session
    acked = session.acked if session is not None else None
    if acked is not None and acked > (device.cursor or 0):
        source, cursor = FactSource.SESSION, acked
    else:
        source, cursor = FactSource.CURSOR, device.cursor or 0
    session_id = session.session_id if session is not None else ""
    if cursor >= seq:
        text = f"The device has acknowledged up to {cursor}."
        if source is FactSource.CURSOR and (session is None or session.gap is None):
            text += " Whether an earlier session was told of a gap over it is not kept."
        return DeliveryFact(
            Step.ACKNOWLEDGED, YES, text, source, seq=cursor, device_id=name, session_id=session_id
        )
    text = (
        f"The device has acknowledged up to {cursor}."
        if cursor
        else "The device has acknowledged nothing of the log."
    )
    return DeliveryFact(
        Step.ACKNOWLEDGED,
        NO,
        text,
        source,
        FactCause.NOT_YET,
        seq=cursor,
        device_id=name,
        session_id=session_id,
    )


# Marks


def _marks(e: Evidence, seq: int) -> Iterator[DeliveryFact]:
    delivered, read = e.receipt.delivered_seq, e.receipt.read_seq
    if e.is_inbox:
        text = "There are no marks for inboxes."
        yield DeliveryFact(Step.DELIVERED, UNKNOWN, text, cause=FactCause.NOT_KEPT)
        return
    if delivered < seq and not e.marks_kept:
        text = "Delivered marks are not kept in conversations of this size."
        yield DeliveryFact(Step.DELIVERED, UNKNOWN, text, cause=FactCause.NOT_KEPT)
    else:
        yield _mark(Step.DELIVERED, delivered, seq)
    yield _mark(Step.READ, read, seq)


def _mark(step: Step, mark: int, seq: int) -> DeliveryFact:
    name = "delivered" if step is Step.DELIVERED else "read"
    text = f"The user's {name} mark is at {mark}." if mark else f"The user has no {name} mark."
    if mark >= seq:
        return DeliveryFact(step, YES, text, FactSource.RECEIPT, seq=mark)
    return DeliveryFact(step, NO, text, FactSource.RECEIPT, FactCause.NOT_YET, seq=mark)


# In a word


def _outcome(e: Evidence, facts: tuple[DeliveryFact, ...]) -> DeliveryOutcome:
    taken = {f.step for f in facts if f.state is YES}
    skipped = {f.device_id for f in facts if f.cause is FactCause.IN_A_GAP}
    acked = {f.device_id for f in facts if f.step is Step.ACKNOWLEDGED and f.state is YES}
    if Step.READ in taken:
        return DeliveryOutcome.READ
    # Who acknowledges beyond a gap moves the mark too.
    if acked - skipped or (Step.DELIVERED in taken and not skipped):
        return DeliveryOutcome.DELIVERED
    if Step.WRITTEN in taken:
        return DeliveryOutcome.SENT
    if any(d.session is not None and d.device_id not in skipped for d in e.devices):
        return DeliveryOutcome.WAITING
    if skipped:
        return DeliveryOutcome.IN_A_GAP
    return DeliveryOutcome.UNKNOWN if e.online else DeliveryOutcome.OFFLINE
