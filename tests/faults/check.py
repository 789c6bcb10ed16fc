"""What must hold after any fault, from the point of view of every person and of history."""

from __future__ import annotations

from collections import Counter

from tests.faults.person import Person
from tests.integration.wire import Caller


async def invariants(people: list[Person], caller: Caller, logs: list[str]) -> None:
    """I1 to I5 of docs/architecture.md: everybody has all, once, in order, as history tells it."""
    history = {log: await caller.history(log) for log in logs}
    where: dict[tuple[str, str, str], int] = {}
    for log, events in history.items():
        # I3: the positions are exactly 1 to N.
        assert [e.entry.seq for e in events] == list(range(1, len(events) + 1))
        for event in events:
            key = (log, event.entry.user_id, event.entry.id)
            # I2: one entry for each id.
            assert key not in where, "a message is there twice"
            where[key] = event.entry.seq
    for person in people:
        for post in person.posts:
            # I1: what was acknowledged is there, where it was said to be.
            assert post.seq, "a message was never acknowledged"
            assert where[post.log, person.user, post.change_id] == post.seq
            assert history[post.log][post.seq - 1].entry.message.text == post.text
        # A sender's order is kept.
        for log in logs:
            seqs = [post.seq for post in person.posts if post.log == log]
            assert seqs == sorted(seqs)
        # I4, I5: what everybody applied, step by step, is what history tells.
        for log in person.logs:
            assert person.applied[log] == history[log]
    messages = Counter(e.entry.user_id for events in history.values() for e in events[1:])
    assert messages == {p.user: len(p.posts) for p in people if p.posts}
