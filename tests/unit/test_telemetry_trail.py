"""The trail keeps what happened lately, forgets the oldest, and says from when on it knows everything."""

from __future__ import annotations

import pytest

from tests.unit.tokens import FixedClock
from tests.unit.world import World, until
from tidings_server.core.pages import Page
from tidings_server.errors import DomainError
from tidings_server.telemetry.trail import SessionDid, Trail


def page(first: int, count: int) -> Page:
    return Page(first, count, 1, count, b"c" * 16, bytes(16 * count), 0, b"")


def test_pages_are_found_by_any_of_their_positions() -> None:
    trail = Trail(FixedClock())
    trail.committed("one", page(1, 3))
    trail.committed("two", page(1, 1))
    trail.committed("one", page(4, 2))
    found = [trail.commit_of("one", seq) for seq in range(7)]
    firsts = [trace and (trace.first_seq, trace.entries) for trace in found]
    assert firsts == [None, (1, 3), (1, 3), (1, 3), (4, 2), (4, 2), None]
    assert trail.commit_of("three", 1) is None
    assert trail.offer_of("one", 1) is None
    trail.offered(5, "one", page(1, 3), 7)
    offer = trail.offer_of("one", 2)
    assert offer is not None
    assert offer.sessions == 7


def test_what_is_forgotten_is_said() -> None:
    clock = FixedClock()
    trail = Trail(clock, pages=3, sessions=2, refusals=2)
    began = clock.now_ms()
    for seq in range(1, 4):
        trail.committed("log", page(seq, 1))
    assert trail.commits_since_ms == trail.sessions_since_ms == trail.refusals_since_ms == began
    clock.ms += 1000
    trail.committed("log", page(4, 1))
    assert trail.commit_of("log", 1) is None
    assert trail.commit_of("log", 2) is not None
    # The oldest that is left says from when on all are known: one more may have been at the same moment.
    assert trail.commits_since_ms == began
    for seq in (5, 6):
        trail.committed("log", page(seq, 1))
    assert trail.commits_since_ms == began + 1000


def test_sessions_and_refusals_are_found_by_whom_they_concern() -> None:
    trail = Trail(FixedClock())
    trail.session(SessionDid.OPENED, "s1", "alice", "phone")
    trail.session(SessionDid.WINDOW_FULL, "s1", "alice", "phone", "one")
    trail.session(SessionDid.WINDOW_FULL, "s1", "alice", "phone", "two")
    trail.session(SessionDid.ENDED, "s2", "bob", "phone", detail="CLIENT_LEFT")
    did = [(s.did, s.log) for s in trail.sessions_of("alice", "one")]
    assert did == [(SessionDid.OPENED, ""), (SessionDid.WINDOW_FULL, "one")]
    trail.refused("one", "alice", "id", "OUTCOME_UNKNOWN")
    assert [r.reason for r in trail.refusals_of("one", "id")] == ["OUTCOME_UNKNOWN"]
    assert not trail.refusals_of("two", "id")
    assert not trail.refusals_of("one", "another")


@pytest.mark.virtual_time
async def test_a_node_leaves_a_trail(world: World) -> None:
    log = await world.group("alice", "bob")
    bob = world.device("bob")
    await bob.hello(window=2)
    bob.send(acks=[("inbox:bob", 1), (log, 1)])
    await world.post(log, "alice", change_id=(first := world.new_id()))
    await world.post(log, "alice")
    await world.post(log, "alice")
    trail = world.node.trail
    commit, offer = trail.commit_of(log, 2), trail.offer_of(log, 2)
    assert commit is not None
    assert offer is not None
    assert (commit.first_seq, offer.sessions) == (2, 1)
    bob.send(acks=[(log, 3)])
    await until(lambda: bob.seqs(log) == [1, 2, 3, 4])
    bob.session.close()
    did = [s.did for s in trail.sessions_of("bob", log)]
    assert did == [SessionDid.OPENED, SessionDid.WINDOW_FULL, SessionDid.LEVEL, SessionDid.ENDED]
    with pytest.raises(DomainError):
        await world.post(log, "alice", "other content", change_id=first)
    with pytest.raises(DomainError):
        await world.post(log, "mallory", change_id=(second := world.new_id()))
    assert [r.reason for r in trail.refusals_of(log, first)] == ["ID_REUSED"]
    refusals = trail.refusals_of(log, second)
    assert [(r.user_id, r.reason) for r in refusals] == [("mallory", "CONVERSATION_NOT_FOUND")]
