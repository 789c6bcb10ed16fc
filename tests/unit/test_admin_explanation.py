"""Explanations of any evidence: whatever is not known is said to be so, and the word for it fits the facts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings_server.admin.explanation import DeviceEvidence, Evidence, SessionEvidence, explain
from tidings_server.core.admin import (
    DeliveryFact,
    DeliveryOutcome,
    ExplainedEntry,
    FactCause,
    FactSource,
    FactState,
)
from tidings_server.core.admin import DeliveryStep as Step
from tidings_server.core.entries import Role
from tidings_server.core.memberships import Interval, Membership
from tidings_server.storage.base import Receipt
from tidings_server.telemetry.trail import PageTrace, RefusalTrace, SessionDid, SessionTrace

BEGAN, COMMITTED = 1_000, 5_000
ENTRY = ExplainedEntry(5, "an id", "alice", "message", COMMITTED)
MEMBER = Membership("bob", Role.MEMBER, 1, (Interval(1, 0),))
BASE = Evidence(
    node_id="here",
    asked_seq=5,
    asked_id="",
    head=9,
    entry=ENTRY,
    given_up=False,
    committed_by="here",
    is_inbox=False,
    membership=MEMBER,
    marks_kept=True,
    receipt=Receipt("log", "bob"),
    devices=(),
    online=False,
    last_seen_ms=0,
    other_nodes=(),
    commit=None,
    commits_since_ms=BEGAN,
    offer=None,
    offers_since_ms=BEGAN,
    offers_forgotten=False,
    refusals=(),
    refusals_since_ms=BEGAN,
    sessions=(),
)


def offered(evidence: Evidence) -> DeliveryFact:
    (fact,) = [f for f in explain(evidence).facts if f.step is Step.OFFERED]
    return fact


@pytest.mark.parametrize("by", ["here", "there", ""])
@pytest.mark.parametrize("since", [BEGAN, COMMITTED + 1])
@pytest.mark.parametrize("forgotten", [False, True])
def test_what_was_not_seen_may_be_forgotten(by: str, since: int, forgotten: bool) -> None:
    fact = offered(
        replace(BASE, committed_by=by, offers_since_ms=since, offers_forgotten=forgotten)
    )
    # By this node's own clock it was later than what is remembered; another's clock may be wrong.
    known = since == BEGAN and (by == "here" or not forgotten)
    if known:
        assert (fact.state, fact.cause) == (FactState.NO, FactCause.NOT_FOLLOWED)
    else:
        assert (fact.state, fact.cause) == (FactState.UNKNOWN, FactCause.FORGOTTEN)
        assert fact.time_ms == since


seqs = st.integers(0, 9)
sessions = st.builds(
    SessionEvidence,
    st.just("s"),
    st.none() | seqs,
    st.none() | seqs,
    st.booleans(),
    st.booleans(),
    st.integers(0, 2),
    st.booleans(),
    st.none() | st.just((3, 6)),
)
devices = st.builds(
    DeviceEvidence,
    st.sampled_from(["phone", "desk"]),
    st.none() | st.integers(1, 9),
    st.none() | sessions,
    st.none()
    | st.just(SessionTrace(6_000, SessionDid.ENDED, "s", "bob", "phone", "", "CLIENT_LEFT")),
)
stays = st.lists(st.integers(1, 9), unique=True, max_size=4).map(sorted)


def membership(bounds: list[int]) -> Membership | None:
    """Stays that begin and end at these positions in turn; the last may last."""
    if not bounds:
        return None
    pairs = zip(bounds[::2], [*bounds[1::2], 0], strict=False)
    intervals = tuple(Interval(first, 0, last) for first, last in pairs)
    return Membership("bob", Role.MEMBER, 9, intervals)


evidence = st.builds(
    Evidence,
    node_id=st.just("here"),
    asked_seq=st.integers(1, 12) | st.just(0),
    asked_id=st.sampled_from(["", "an id"]),
    head=seqs,
    entry=st.none() | st.just(ENTRY),
    given_up=st.booleans(),
    committed_by=st.sampled_from(["", "here", "there"]),
    is_inbox=st.booleans(),
    membership=stays.map(membership),
    marks_kept=st.booleans(),
    receipt=st.builds(Receipt, st.just("log"), st.just("bob"), seqs, seqs, st.just(0)),
    devices=st.lists(devices, max_size=2, unique_by=lambda d: d.device_id).map(tuple),
    online=st.booleans(),
    last_seen_ms=st.sampled_from([0, 4_000]),
    other_nodes=st.sampled_from([(), ("there",)]),
    commit=st.none() | st.just(PageTrace(5_001, "log", 4, 3)),
    commits_since_ms=st.sampled_from([BEGAN, 6_000]),
    offer=st.none() | st.just(PageTrace(5_002, "log", 4, 3, 2)),
    offers_since_ms=st.sampled_from([BEGAN, 6_000]),
    offers_forgotten=st.booleans(),
    refusals=st.sampled_from([(), (RefusalTrace(4_500, "log", "bob", "an id", "DENIED"),)]),
    refusals_since_ms=st.sampled_from([BEGAN, 6_000]),
    sessions=st.just((SessionTrace(6_000, SessionDid.OPENED, "s", "bob", "phone", "", ""),) * 70),
)


@given(evidence)
def test_nothing_is_guessed(e: Evidence) -> None:
    told = explain(e)
    for fact in told.facts:
        assert fact.text
        assert (fact.cause is FactCause.NONE) == (fact.state is FactState.YES)
        if fact.state is not FactState.UNKNOWN:
            assert fact.source is not FactSource.NONE
    steps = {f.step for f in told.facts if f.state is FactState.YES}
    if e.entry is None:
        assert told.outcome in (DeliveryOutcome.UNKNOWN, DeliveryOutcome.NOT_COMMITTED)
        assert steps == set()
        return
    visible = e.is_inbox or (e.membership is not None and e.membership.visible(ENTRY.seq))
    assert (told.outcome is DeliveryOutcome.NOT_FOR_USER) == (not visible)
    assert len(told.notes) == (50 if visible else 0)
    if not visible:
        assert {f.step for f in told.facts} == {Step.COMMITTED, Step.VISIBLE}
        return
    match told.outcome:
        case DeliveryOutcome.READ:
            assert Step.READ in steps
        case DeliveryOutcome.DELIVERED:
            assert steps & {Step.ACKNOWLEDGED, Step.DELIVERED}
        case DeliveryOutcome.SENT:
            assert Step.WRITTEN in steps
        case DeliveryOutcome.IN_A_GAP:
            assert any(f.cause is FactCause.IN_A_GAP for f in told.facts)
        case DeliveryOutcome.WAITING:
            assert any(d.session is not None for d in e.devices)
        case DeliveryOutcome.OFFLINE:
            assert not e.online
            assert all(d.session is None for d in e.devices)
            assert not steps & {Step.WRITTEN, Step.ACKNOWLEDGED, Step.CONNECTED}
        case _:
            assert told.outcome is DeliveryOutcome.UNKNOWN
            assert e.online
