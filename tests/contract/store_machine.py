"""A store and the oracle, driven by the same random operations, never differ. Backends say on which medium."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.contract.media import Medium
from tests.contract.samples import append_of, membership, page
from tidings_server.core.pages import BUCKET_SIZE, MAX_PAGE_ENTRIES, room_in_bucket
from tidings_server.storage.base import (
    APPLIED,
    Append,
    CursorRow,
    MentionRow,
    Outcome,
    OverlayRow,
    PresenceRow,
    ReactionRow,
    Receipt,
    Store,
)
from tidings_server.storage.memory import MemoryDisk

T = TypeVar("T")

LOGS = ["log a", "log b", "log ç", "inbox:ann"]
USERS = ["ann", "bob", "Bob", "é", "\uffee", "\U00010400"]
NEVER = 1 << 40

logs = st.sampled_from(LOGS)
users = st.sampled_from(USERS)
nodes = st.sampled_from(["one", "two"])
small = st.integers(0, 6)
positions = st.integers(0, 400) | st.integers(BUCKET_SIZE - 5, BUCKET_SIZE + 205)
sizes = st.sampled_from([0, 1, 30, 500, 20_000])
shapes = st.tuples(
    logs,
    # How far the expected head is from the real one.
    st.sampled_from([0, 0, 0, 0, 0, 0, -1, 1, -2, 5, 10_000]),
    st.integers(1, MAX_PAGE_ENTRIES),
    st.integers(0, 7),
    st.integers(0, 3),
    st.lists(positions, max_size=3, unique=True).map(sorted),
    sizes,
)
puts = st.one_of(
    st.tuples(
        st.just("put_memberships"),
        logs,
        st.lists(
            st.builds(membership, users, st.integers(1, 9), current=st.booleans()), max_size=4
        ),
    ),
    st.tuples(
        st.just("put_overlays"),
        logs,
        st.lists(
            st.builds(
                OverlayRow, positions.map(lambda seq: seq or 1), small, st.binary(max_size=9)
            ),
            max_size=4,
        ),
    ),
    st.tuples(
        st.just("put_reactions"),
        logs,
        st.lists(
            st.builds(ReactionRow, small, users, small, st.sampled_from(["", "👍", "x"])),
            max_size=4,
        ),
    ),
    st.tuples(
        st.just("put_mentions"),
        logs,
        st.lists(
            st.builds(
                MentionRow,
                st.sampled_from(("", *USERS)),
                small,
                small,
                st.sampled_from(["", "ann", "bob"]),
            ),
            max_size=4,
        ),
    ),
    st.tuples(st.just("put_user_logs"), logs, st.lists(users, max_size=4)),
    st.tuples(
        st.just("put_cursors"),
        st.lists(
            st.builds(CursorRow, users, st.sampled_from(["pc", "pad"]), logs, small), max_size=4
        ),
    ),
    st.tuples(
        st.just("put_receipts"),
        st.lists(st.builds(Receipt, logs, users, small, small, small), max_size=4),
    ),
    st.tuples(
        st.just("put_presence"),
        st.lists(
            st.builds(PresenceRow, users, small, small, small, st.text(max_size=3)), max_size=4
        ),
    ),
)


class StoreMachine(RuleBasedStateMachine):
    """`oracle` is what the store must agree with at every moment at which nothing is under way.

    Subclasses set `medium`, `store` and `incarnation` when they begin.
    """

    medium: Medium
    store: Store
    incarnation: str
    takes_appends_in_order = True
    """Whether appends to one log that are under way at once are taken in their order. The port does not ask for it."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.oracle = MemoryDisk()
        self.stamps: dict[str, int] = {}
        self.rounds: dict[str, int] = {}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.run(self.store.close())
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def opened(self, medium: Medium) -> Store:
        store = medium.store()
        self.run(store.open())
        return store

    # Writing

    def shaped(self, shape: tuple[str, int, int, int, int, list[int], int]) -> Append:
        """An append near the head of its log, as the oracle has it now."""
        log, distance, count, flags, later, pending, size = shape
        heads = self.oracle.heads([log])
        expected = max((heads[log].last_seq if log in heads else 0) + distance, 0)
        stamp = self.stamps[log] = self.stamps.get(log, 1_000) + later
        content = page(
            expected + 1,
            min(count, room_in_bucket(expected)),
            flags=flags,
            stamp=stamp,
            body=bytes([flags]) * size,
        )
        return append_of(log, content, pending)

    @rule(many=st.lists(shapes, min_size=1, max_size=6))
    def append(self, many: list[tuple[str, int, int, int, int, list[int], int]]) -> None:
        answers, expected = self.submitted([self.shaped(shape) for shape in many])
        assert self.run(self.all_of(answers)) == expected

    def submitted(
        self, requests: list[Append]
    ) -> tuple[list[asyncio.Future[Outcome]], list[Outcome]]:
        if self.takes_appends_in_order:
            # So the oracle gives the same answers.
            answers = [self.on_loop(request) for request in requests]
        else:
            answers = self.run(self.log_by_log(requests))
        return answers, [self.oracle.append(request) for request in requests]

    async def log_by_log(self, requests: list[Append]) -> list[asyncio.Future[Outcome]]:
        """Appends, one after the other for each log, and all logs at once."""
        answers: dict[int, asyncio.Future[Outcome]] = {}

        async def work(log: str) -> None:
            for number, request in enumerate(requests):
                if request.log == log:
                    answers[number] = self.store.append(request)
                    await answers[number]

        await asyncio.gather(*map(work, {request.log for request in requests}))
        return [answers[number] for number in range(len(requests))]

    def on_loop(self, request: Append) -> asyncio.Future[Outcome]:
        async def begin() -> asyncio.Future[Outcome]:
            return self.store.append(request)

        return self.run(begin())

    @staticmethod
    async def all_of(answers: list[asyncio.Future[Outcome]]) -> list[Outcome]:
        return await asyncio.gather(*answers)

    @rule(log=logs, short=st.integers(0, 250))
    def fill_a_bucket(self, log: str, short: int) -> None:
        heads = self.oracle.heads([log])
        head = heads[log].last_seq if log in heads else 0
        requests = []
        stamp = self.stamps.setdefault(log, 1_000)
        while head < BUCKET_SIZE - short:
            count = min(MAX_PAGE_ENTRIES, BUCKET_SIZE - short - head)
            requests.append(append_of(log, page(head + 1, count, stamp=stamp, body=b"")))
            head += count
        answers, expected = self.submitted(requests)
        assert expected == [APPLIED] * len(requests)
        assert self.run(self.all_of(answers)) == expected

    @rule(many=st.lists(puts, min_size=1, max_size=4))
    def put(self, many: list[tuple[Any, ...]]) -> None:
        async def write() -> None:
            await asyncio.gather(*(getattr(self.store, name)(*args) for name, *args in many))

        self.run(write())
        for name, *args in many:
            getattr(self.oracle, name)(*args)

    @rule(
        node=nodes,
        some=st.lists(logs, max_size=3),
        later=st.integers(0, 2),
        cleared=st.none() | st.integers(1, 3),
    )
    def intend(self, node: str, some: list[str], later: int, cleared: int | None) -> None:
        """What a node does: its rounds go up, and those that are over are cleared."""
        now = self.rounds[node] = self.rounds.get(node, 0) + later
        self.run(self.store.put_intents(node, now, some))
        self.oracle.put_intents(node, now, some)
        if cleared is not None:
            self.run(self.store.clear_intents(node, now - cleared))
            self.oracle.clear_intents(node, now - cleared)

    # Reading

    @rule(node=nodes, after=logs | st.just(""), limit=small)
    def read_intents(self, node: str, after: str, limit: int) -> None:
        run, store, oracle = self.run, self.store, self.oracle
        assert sorted(run(store.intent_nodes())) == sorted(oracle.intent_nodes())
        assert run(store.intent_rounds(node)) == oracle.intent_rounds(node)
        for round_ in oracle.intent_rounds(node):
            found = run(store.intents(node, round_, after=after, limit=limit))
            assert found == oracle.intents(node, round_, after, limit)

    @rule(log=logs, after=positions, max_bytes=sizes, upto=st.none() | positions)
    def read(self, log: str, after: int, max_bytes: int, upto: int | None) -> None:
        found = self.run(self.store.read(log, after, max_bytes=max_bytes, upto=upto))
        assert found == self.oracle.read(log, after, max_bytes, upto)

    @rule(log=logs, before=positions, max_bytes=sizes)
    def read_back(self, log: str, before: int, max_bytes: int) -> None:
        found = self.run(self.store.read_back(log, before, max_bytes=max_bytes))
        assert found == self.oracle.read_back(log, before, max_bytes)

    @rule(log=logs, after=positions, flag=st.integers(1, 7), limit=small)
    def read_flagged(self, log: str, after: int, flag: int, limit: int) -> None:
        found = self.run(self.store.read_flagged(log, after, flag, limit=limit))
        assert found == self.oracle.read_flagged(log, after, flag, limit)

    @rule(log=logs, before=positions, min_stamp=st.integers(1_000, 1_040), max_pages=small)
    def read_ids(self, log: str, before: int, min_stamp: int, max_pages: int) -> None:
        found = self.run(
            self.store.read_ids(log, before=before, min_stamp=min_stamp, max_pages=max_pages)
        )
        assert found == self.oracle.read_ids(log, before, min_stamp, max_pages)

    @rule(log=logs, some=st.lists(users), after=users, limit=small)
    def read_members(self, log: str, some: list[str], after: str, limit: int) -> None:
        run, store, oracle = self.run, self.store, self.oracle
        assert run(store.memberships(log, some)) == oracle.memberships(log, some)
        listed = run(store.list_memberships(log, after_user=after, limit=limit))
        assert listed == oracle.list_memberships(log, after, limit)
        receipts = run(store.list_receipts(log, after_user=after, limit=limit))
        assert receipts == oracle.list_receipts(log, after, limit)

    @rule(log=logs, at=st.integers(0, 500), late=st.integers(0, 2), size=sizes)
    def rewrite(self, log: str, at: int, late: int, size: int) -> None:
        """Some page gets another body, or was rewritten by somebody else before."""
        pages = self.oracle.read_back(log, NEVER, NEVER)[:500]
        if pages:
            stored = pages[at % len(pages)]
            wanted = replace(stored, rev=stored.rev + 1 - late, body=b"r" * size)
            if wanted.rev:
                done = self.run(self.store.rewrite(log, wanted))
                assert done == self.oracle.rewrite(log, wanted)

    @rule(log=logs, first=positions, last=positions, user=users, some=st.lists(small), limit=small)
    def read_messages(
        self, log: str, first: int, last: int, user: str, some: list[int], limit: int
    ) -> None:
        run, store, oracle = self.run, self.store, self.oracle
        assert run(store.overlays(log, first, last)) == oracle.overlays(log, first, last)
        assert run(store.reactions_of(log, user, some)) == oracle.reactions_of(log, user, some)
        listed = run(store.list_reactions(log, limit, after_user=user, limit=limit))
        assert listed == oracle.list_reactions(log, limit, user, limit)
        for whom in (user, ""):
            found = run(store.mentions(log, whom, after=last % 7, limit=limit))
            assert found == oracle.mentions(log, whom, last % 7, limit)

    @rule(user=users, some=st.lists(logs))
    def read_user(self, user: str, some: list[str]) -> None:
        run, store, oracle = self.run, self.store, self.oracle
        assert run(store.memberships_of(user, some)) == oracle.memberships_of(user, some)
        assert run(store.receipts_of(user, some)) == oracle.receipts_of(user, some)
        assert run(store.cursors(user, "pc")) == oracle.cursors(user, "pc")

    # Ends

    @rule()
    def reopen(self) -> None:
        self.run(self.store.close())
        self.store = self.opened(self.medium)
        assert self.store.incarnation == self.incarnation
        self.agrees(self.store)

    def heads_now(self) -> dict[str, int]:
        return {log: head.last_seq for log, head in self.oracle.heads(LOGS).items()}

    @invariant()
    def has_the_same_heads(self) -> None:
        if hasattr(self, "store"):
            assert self.run(self.store.heads(LOGS)) == self.oracle.heads(LOGS)
            assert self.run(self.store.settled_heads(LOGS)) == self.oracle.heads(LOGS)

    def agrees(self, store: Store) -> None:
        assert self.run(store.heads(LOGS)) == self.oracle.heads(LOGS)
        for log in LOGS:
            assert self.run(store.read(log, 0, max_bytes=NEVER)) == self.oracle.read(
                log, 0, NEVER, None
            )
            assert self.run(store.snapshot(log)) == self.oracle.snapshot(log)
        self.agrees_on_puts(store)

    def agrees_on_puts(self, store: Store) -> None:
        run, oracle = self.run, self.oracle
        assert run(store.presence(USERS)) == oracle.presence(USERS)
        for node in oracle.intent_nodes():
            assert run(store.intent_rounds(node)) == oracle.intent_rounds(node)
        for log in LOGS:
            assert run(store.memberships(log, USERS)) == oracle.memberships(log, USERS)
            assert run(store.overlays(log, 0, 30_000)) == oracle.overlays(log, 0, 30_000)
        for user in USERS:
            assert sorted(run(store.user_logs(user))) == sorted(oracle.user_logs(user))
            assert run(store.receipts_of(user, LOGS)) == oracle.receipts_of(user, LOGS)
            for device in ("pc", "pad"):
                assert run(store.cursors(user, device)) == oracle.cursors(user, device)
