"""The whole client under schedules of faults: cuts, silence, refusals, drains, bad disks, new processes."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tidings import (
    Client,
    ClientConfig,
    Event,
    LogEntry,
    MemoryStateStore,
    Message,
    MessageFailed,
    StateError,
    StoredCursor,
    StoredMessage,
    StoredSession,
    StoredState,
)
from tidings.v1 import event_pb2

from .device import client_of, until
from .loop import simulated
from .model import INTERNAL, UNAVAILABLE, UNKNOWN_OUTCOME, error
from .network import Network


class BadDisk:
    """A state store that takes its time and fails now and then, before it has done anything."""

    def __init__(self, inner: MemoryStateStore, rng: random.Random) -> None:
        self.inner = inner
        self.rng = rng
        self.failing = 0.05
        self.turn = asyncio.Lock()

    async def bad(self) -> None:
        await asyncio.sleep(self.rng.uniform(0, 0.05))
        if self.rng.random() < self.failing:
            raise StateError("the disk is full")

    async def open(self) -> StoredState:
        return await self.inner.open()

    async def add(self, messages: Collection[StoredMessage]) -> None:
        async with self.turn:
            await self.bad()
            await self.inner.add(messages)

    async def update(self, messages: Mapping[str, StoredMessage]) -> None:
        async with self.turn:
            await self.bad()
            await self.inner.update(messages)

    async def remove(self, message_ids: Collection[str]) -> None:
        async with self.turn:
            await self.bad()
            await self.inner.remove(message_ids)

    async def save_cursors(self, cursors: Collection[StoredCursor]) -> None:
        async with self.turn:
            await self.bad()
            await self.inner.save_cursors(cursors)

    async def save_session(
        self, session: StoredSession, cursors: Collection[StoredCursor] | None = None
    ) -> None:
        async with self.turn:
            await self.bad()
            await self.inner.save_session(session, cursors)

    async def close(self) -> None:
        await self.inner.close()


class Story:
    """One run: alice's device in one process after the other, bob on the server, and faults."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.network = Network()
        self.logs = [self.network.server.create(name, "alice", "bob") for name in ("c0", "c1")]
        self.memory = MemoryStateStore()
        self.sent: dict[str, list[str]] = defaultdict(list)
        self.seen: dict[str, dict[int, Event]] = defaultdict(dict)
        self.disk: BadDisk | None = None

    async def run(self) -> None:
        for process in range(3):
            self.disk = BadDisk(self.memory, self.rng)
            config = ClientConfig(window=16, backoff_cap=2.0, auto_apply=process != 1)
            async with client_of(
                self.network, state=self.disk, config=config, rng=random.Random(process)
            ) as alice:
                await self.live(alice, last=process == 2)

    async def live(self, alice: Client, *, last: bool) -> None:
        taking = asyncio.create_task(self.take(alice))
        rng = self.rng
        for _ in range(60):
            fault = rng.choices(list(FAULTS), list(FAULTS.values()))[0]
            fault(self)
            name = rng.choice(("c0", "c1"))
            if rng.random() < 0.7:
                text = f"alice {len(self.sent[name])}"
                try:
                    await alice.send(name, text)
                except StateError:
                    pass
                else:
                    self.sent[name].append(text)
            for _ in range(rng.randrange(4)):
                self.network.server.post(rng.choice(self.logs), "bob", "from bob")
            self.network.changed()
            await asyncio.sleep(rng.expovariate(4.0))
        if last:
            self.heal()
            await until(lambda: not alice.pending() and self.complete())
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)

    async def take(self, alice: Client) -> None:
        newest: dict[str, int] = {}
        waiting: list[Event] = []
        async for event in alice.events():
            assert not isinstance(event, MessageFailed), event
            if isinstance(event, LogEntry):
                start = self.memory.cursors.get(event.log, StoredCursor("", 0)).seq
                before = newest.get(event.log)
                assert event.seq == before + 1 if before is not None else event.seq <= start + 1
                newest[event.log] = event.seq
                known = self.seen[event.log].setdefault(event.seq, event)
                assert known == event
            if not alice.config.auto_apply:
                waiting.append(event)
                if self.rng.random() < 0.3:
                    for one in waiting:
                        alice.applied(one)
                    waiting.clear()

    def heal(self) -> None:
        self.network.up, self.network.silent, self.network.working = True, False, True
        self.network.problems.clear()
        assert self.disk is not None
        self.disk.failing = 0.0
        self.network.work()

    def complete(self) -> bool:
        return all(
            len(self.seen[log.name]) == log.end("alice")
            for log in self.network.server.logs.values()
            if "alice" in log.visible
        )

    def check(self) -> None:
        for log in self.logs:
            own = [entry.message.text for entry in log.entries if entry.user_id == "alice"]
            # The first entry is the creation.
            assert own[1:] == self.sent[log.name]
            texts = {
                seq: e.text for seq, e in self.seen[log.name].items() if isinstance(e, Message)
            }
            assert texts == {e.seq: e.message.text for e in log.entries[1:]}
        assert not self.memory.messages

    # Faults

    def nothing(self) -> None:
        pass

    def cut(self) -> None:
        self.network.cut()

    def down(self) -> None:
        self.network.up = not self.network.up
        self.network.cut()

    def silence(self) -> None:
        self.network.silent = not self.network.silent
        self.network.changed()

    def strike(self) -> None:
        self.network.working = not self.network.working
        self.network.work()

    def refuse(self) -> None:
        choice: list[Any] = [UNAVAILABLE, UNKNOWN_OUTCOME, INTERNAL, None]
        self.network.problems += self.rng.choices(choice, k=5)

    def drain(self) -> None:
        away = event_pb2.GoingAway(reconnect_delay_ms=self.rng.randrange(3000))
        for link in self.network.links:
            link.session.out.append(event_pb2.Event(going_away=away))
        self.network.changed()

    def end(self) -> None:
        for link in list(self.network.links):
            link.session.end(error(14, "DRAINING"), reconnect=True)
        self.network.changed()

    def beat(self) -> None:
        self.network.beacons()


FAULTS: dict[Callable[[Story], None], int] = {
    Story.nothing: 30,
    Story.beat: 20,
    Story.cut: 5,
    Story.down: 4,
    Story.silence: 3,
    Story.strike: 4,
    Story.refuse: 6,
    Story.drain: 3,
    Story.end: 3,
}


@given(st.integers(0, 2**32))
@settings(max_examples=25)
def test_whatever_happens_everything_arrives_once_and_in_order(seed: int) -> None:
    @simulated
    async def story() -> None:
        told = Story(seed)
        await told.run()
        told.check()

    story()
