"""The core and the outbox against a model server, over schedules of cuts, refusals and crashes by Hypothesis."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings import events
from tidings._actions import End, Reconnect
from tidings._config import ClientConfig
from tidings._core import SessionCore
from tidings._outbox import SendState
from tidings._state import MemoryStateStore
from tidings._unsaved import Batch
from tidings.errors import Code
from tidings.v1 import message_pb2

from .model import (
    DENIED,
    RETRYABLE,
    UNKNOWN_OUTCOME,
    ModelServer,
    ModelSession,
)

_T = TypeVar("_T")
WINDOW = 8


def now(work: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine that doesn't wait: the memory store's."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: _T = stop.value
        return result
    raise AssertionError("it waits")


class World:
    """One device of alice, its store, the network and the server; each method is one step of one of them."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.config = ClientConfig(window=WINDOW, catch_up_limit=6, backoff_base=0.5)
        self.server = ModelServer()
        self.logs = [self.server.create(f"c{n}", "alice", "bob") for n in range(2)]
        self.store = MemoryStateStore()
        self.time = 0.0
        self.wall_offset = 0
        self.session: ModelSession | None = None
        self.to_server: list[bytes] = []
        self.to_client: list[bytes] = []
        self.saving: Batch | None = None
        self.unapplied: deque[events.Event] = deque()
        # What the application sees, in this process and over all of them.
        self.handed: dict[str, int] = {}
        self.database: dict[str, dict[int, str]] = defaultdict(dict)
        self.sent: list[tuple[str, str]] = []
        self.failed: set[str] = set()
        self.lost: set[str] = set()
        self.incarnations = 1
        self.announced: set[str] = set()
        self.open_core()

    def wall(self) -> int:
        return 1_700_000_000_000 + self.wall_offset + int(self.time * 1000)

    def open_core(self) -> None:
        state = now(self.store.open())
        self.core = SessionCore(state, self.config, self.wall, self.rng)
        # What was durably applied is what the application starts from.
        self.handed = {cursor.log: cursor.seq for cursor in state.cursors}

    # The application

    def send(self, which: int) -> None:
        content = message_pb2.MessageContent(text=f"message {len(self.sent)}")
        log = self.logs[which].name
        item = self.core.sends.enqueue(log, content.SerializeToString(), self.time)
        now(self.store.add([item.message]))
        self.core.sends.stored(item, self.time)
        self.sent.append((log, content.text))

    def take(self, count: int) -> None:
        for _ in range(count):
            event = self.core.next_event()
            if event is None:
                return
            self.see(event)
            self.unapplied.append(event)

    def apply(self, count: int) -> None:
        for _ in range(min(count, len(self.unapplied))):
            self.core.apply(self.unapplied.popleft())

    def see(self, event: events.Event) -> None:
        if isinstance(event, events.LogEntry):
            expected = self.handed.get(event.log, 0) + 1
            assert event.seq >= expected, "an entry came twice"
            skipped = self.server.logs[event.log].visible["alice"]
            hidden = all(
                not any(low <= seq <= high for low, high in skipped)
                for seq in range(expected, event.seq)
            )
            stale = self.core.session.incarnation != self.server.incarnation
            assert hidden or stale, f"{expected} to {event.seq - 1} of {event.log} were left out"
            self.handed[event.log] = event.seq
            text = event.text if isinstance(event, events.Message) else type(event).__name__
            self.database[event.log][event.seq] = text
            if isinstance(event, events.Message):
                assert event.own == (event.user_id == "alice")
        elif isinstance(event, events.Gap):
            assert event.from_seq > self.handed.get(event.conversation_id, 0)
            log = self.server.logs[event.conversation_id]
            for seq in range(event.from_seq, event.to_seq + 1):
                # The end may have been lost meanwhile, of which the device is to hear yet.
                if seq <= log.head:
                    text = log.entries[seq - 1].message.text
                    self.database[log.name][seq] = text or "other"
            self.handed[log.name] = event.to_seq
        elif isinstance(event, events.PositionLost):
            pytest.fail(f"{event} without a restore")
        elif isinstance(event, events.IncarnationChanged):
            for name, kept in self.database.items():
                for seq in [seq for seq in kept if seq > event.positions.get(name, 0)]:
                    del kept[seq]
            self.handed = dict(event.positions)
        elif isinstance(event, events.MessageFailed):
            assert event.error.code in (Code.PERMISSION_DENIED, Code.NOT_FOUND), event.error
            self.failed.add(event.text)
        elif isinstance(event, (events.MessagePending, events.MessageSent)):
            self.announced.add(event.message_id)

    # The device's disk

    def save_begins(self) -> None:
        if self.saving is None and self.core.has_unsaved:
            self.saving = self.core.take_unsaved()

    def save_ends(self) -> None:
        if self.saving is None:
            return
        unsaved, self.saving = self.saving, None
        now(self.store.update(unsaved.updated))
        if unsaved.session is not None:
            now(self.store.save_session(unsaved.session, unsaved.all_cursors))
        now(self.store.save_cursors([cursor for _, cursor in unsaved.cursors]))
        now(self.store.remove(unsaved.removed))
        self.core.saved(unsaved)

    def crash(self) -> None:
        self.cut()
        self.saving = None
        self.unapplied.clear()
        now(self.store.close())
        self.open_core()

    # The network

    def everything_flows(self, rounds: int) -> None:
        for _ in range(rounds):
            self.go_round()

    def go_round(self) -> None:
        if self.session is None:
            self.connect()
        self.client_sends()
        self.server_receives()
        if self.session is not None and self.session.todo:
            self.session.work()
        self.server_sends(50)
        self.client_receives()
        self.take(50)
        self.apply(50)
        self.save_begins()
        self.save_ends()

    def connect(self) -> None:
        if self.session is not None:
            return
        self.session = self.server.connect("alice", "phone")
        self.core.connected()

    def cut(self) -> None:
        if self.session is not None:
            self.session.close()
            self.session = None
            self.core.disconnected()
            self.to_server.clear()
            self.to_client.clear()

    def client_sends(self) -> None:
        frame = self.core.next_frame(self.time)
        if frame is not None:
            assert self.session is not None
            self.to_server.append(frame)

    def server_receives(self) -> None:
        if self.to_server and self.session is not None:
            self.session.receive(self.to_server.pop(0))

    def server_sends(self, count: int) -> None:
        if self.session is not None and (frame := self.session.frame(count)) is not None:
            self.to_client.append(frame)

    def client_receives(self) -> None:
        if self.to_client and self.session is not None:
            for action in self.core.receive(self.to_client.pop(0), self.time):
                # The model never leaves anything out: only a cut may end a session.
                assert not isinstance(action, (Reconnect, End)), action.error

    def time_passes(self, seconds: float) -> None:
        self.time += seconds
        self.server.now_ms += int(seconds * 1000)

    def wall_clock_is_set(self, offset: int) -> None:
        self.wall_offset = offset

    # The server

    def server_works(self, index: int, outcome: Any) -> None:
        if self.session is not None and self.session.todo:
            self.session.work(index % len(self.session.todo), outcome)

    def server_denies(self, index: int) -> None:
        if self.session is not None and self.session.todo:
            self.session.work(index % len(self.session.todo), DENIED)

    def beacon(self) -> None:
        if self.session is not None:
            self.session.beacon()

    def bob_posts(self, which: int, count: int) -> None:
        for _ in range(count):
            self.server.post(self.logs[which], "bob", f"from bob {self.logs[which].head}")

    def alice_is_removed(self) -> None:
        self.server.remove(self.logs[1], "alice")

    def alice_is_added(self) -> None:
        self.server.add(self.logs[1], "alice")

    def server_is_restored(self, kept_0: int, kept_1: int, inbox: int) -> None:
        if self.incarnations < 3:
            self.cut()
            self.incarnations += 1
            for log, head in zip(self.logs, (kept_0, kept_1), strict=True):
                self.lost |= {entry.message.text for entry in log.entries[head:]}
            heads = {"c0": kept_0, "c1": kept_1, "inbox:alice": inbox, "inbox:bob": 99}
            self.server.restore(heads, str(self.incarnations))

    # What holds

    def nothing_is_sent_before_it_is_durable(self) -> None:
        stored = self.store.messages
        for item in self.core.outbox:
            if item.state is SendState.IN_FLIGHT:
                assert stored[item.message.message_id].sealed

    def the_window_is_kept(self) -> None:
        if self.session is not None and self.session.sent is not None:
            assert self.session.unacked() <= WINDOW

    def finish(self) -> None:
        """Faults stop: everything goes its way until nothing moves. Then all is as it should be."""
        self.server.add(self.logs[1], "alice")
        for _ in range(10_000):
            self.go_round()
            if self.quiet():
                break
            self.time_passes(1.0)
        else:
            pytest.fail("it never came to rest")
        assert self.session is not None
        self.session.beacon()
        self.server_sends(50)
        self.client_receives()
        self.check()

    def quiet(self) -> bool:
        session = self.session
        assert session is not None
        return (
            session.level()
            and session.unacked() == 0
            and not (session.out or session.todo or self.to_server or self.to_client)
            and not self.core.outbox
            and not self.core.events
            and not self.core.has_unsaved
        )

    def check(self) -> None:
        for log in self.server.logs.values():
            if "alice" not in log.visible:
                continue
            low = {
                seq
                for first, last in log.visible["alice"]
                for seq in range(first, min(last, log.head) + 1)
            }
            assert set(self.database[log.name]) == low, "not every position was seen"
            for seq, text in self.database[log.name].items():
                entry = log.entries[seq - 1]
                if entry.WhichOneof("body") == "message":
                    assert text == entry.message.text
        for log in self.logs:
            posted = [e.message.text for e in log.entries if e.user_id == "alice" and e.ordinal]
            posted = [text for text in posted if text]
            queued = [text for name, text in self.sent if name == log.name]
            assert len(posted) == len(set(posted)), "a message appears twice"
            # A restore may lose a message whose acknowledgement isn't on the device's disk yet: it comes again, late.
            kept = [text for text in queued if text in posted]
            assert posted == kept or self.incarnations > 1, "the order of sending is not kept"
            for text in queued:
                assert text in posted or text in self.failed | self.lost, f"{text!r} was lost"
        assert not self.store.messages
        assert self.store.session.incarnation == self.server.incarnation


PROBLEMS = (*RETRYABLE, UNKNOWN_OUTCOME)
OFFSETS = (-86_400_000, -1000, 0, 100_000, 86_400_000)
STEPS: list[tuple[str, float, Callable[[World, int], None]]] = [
    ("", 8, lambda world, n: world.send(n % 2)),
    ("", 6, lambda world, n: world.bob_posts(n % 2, 1 + n % 9)),
    ("", 8, lambda world, n: world.take(1 + n % 12)),
    ("", 6, lambda world, n: world.apply(1 + n % 12)),
    ("", 2, lambda world, _: world.save_begins()),
    ("", 2, lambda world, _: world.save_ends()),
    ("", 8, lambda world, _: world.connect()),
    ("", 9, lambda world, _: world.client_sends()),
    ("", 9, lambda world, _: world.server_receives()),
    ("", 9, lambda world, n: world.server_sends(1 + n % 10)),
    ("", 9, lambda world, _: world.client_receives()),
    ("", 0.3, lambda world, n: world.everything_flows(1 + n % 4)),
    ("", 2, lambda world, n: world.time_passes((0.01, 0.3, 2.0, 40.0)[n % 4])),
    ("", 9, lambda world, n: world.server_works(n, None)),
    ("", 1, lambda world, _: world.beacon()),
    ("cuts", 1.2, lambda world, _: world.cut()),
    ("crashes", 0.6, lambda world, _: world.crash()),
    ("clock", 0.5, lambda world, n: world.wall_clock_is_set(OFFSETS[n % len(OFFSETS)])),
    ("refusals", 5, lambda world, n: world.server_works(n, PROBLEMS[n % len(PROBLEMS)])),
    ("denials", 0.5, lambda world, n: world.server_denies(n)),
    ("members", 0.3, lambda world, _: world.alice_is_removed()),
    ("members", 0.6, lambda world, _: world.alice_is_added()),
    (
        "restores",
        0.3,
        lambda world, n: world.server_is_restored(1 + n % 40, 1 + n % 37, 2 + n % 5),
    ),
]
FAULTS = ("cuts", "crashes", "clock", "refusals", "denials", "members", "restores")


@given(
    seed=st.integers(0, 2**32),
    faults=st.sets(st.sampled_from(FAULTS)),
    count=st.integers(100, 1500),
)
@settings(max_examples=120)
def test_every_schedule_ends_level(seed: int, faults: set[str], count: int) -> None:
    rng = random.Random(seed)
    steps = [(weight, step) for fault, weight, step in STEPS if not fault or fault in faults]
    chosen = rng.choices([step for _, step in steps], [weight for weight, _ in steps], k=count)
    world = World(seed)
    for step in chosen:
        step(world, rng.randrange(60_000))
        world.nothing_is_sent_before_it_is_durable()
        world.the_window_is_kept()
    world.finish()
