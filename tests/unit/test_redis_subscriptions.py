"""Subscriptions against a server that carries out commands in their order, late, and forgets all with a connection."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from tidings_server.bus.redis.subscriptions import Subscriptions, Wait

LOGS = ("a", "b", "c")
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("subscribe"), st.sampled_from(LOGS)),
        st.tuples(st.just("give up"), st.just("")),
        st.tuples(st.just("unsubscribe"), st.sampled_from(LOGS)),
        st.tuples(st.just("send"), st.just("")),
        st.tuples(st.just("answer"), st.just("")),
        st.tuples(st.just("lose"), st.just("")),
        st.tuples(st.just("end"), st.sampled_from(LOGS)),
    ),
    max_size=60,
)


class Server:
    """What a server holds of one connection. `heard` are the logs whose publications come."""

    def __init__(self) -> None:
        self.heard: set[str] = set()
        self.sent: list[tuple[str, str]] = []
        self.answers: list[tuple[str, str]] = []


class Case:
    """Somebody subscribes and reads the head after that, as sessions do; what is missed is read again at a resync.

    `sure` are the logs of which nothing may be missed: confirmed since, or followed by a resync.
    """

    def __init__(self) -> None:
        self.subscriptions = Subscriptions(self._resync)
        self.server = Server()
        self.waits: list[tuple[Wait, str]] = []
        self.wanted: set[str] = set()
        # Logs that are wanted, of which something was not heard since the head was read last.
        self.missed: set[str] = set()

    def _resync(self) -> None:
        self.missed.clear()

    def step(self, kind: str, log: str) -> None:
        subscriptions, server = self.subscriptions, self.server
        if kind == "subscribe":
            wait = Wait()
            self.wanted.add(log)
            subscriptions.want(log, log.encode(), wait)
            if wait.left:
                self.waits.append((wait, log))
            else:
                self.read_head(log)
        elif kind == "give up":
            for wait, asked in self.waits:
                if not wait.future.done():
                    subscriptions.give_up(asked, wait)
                    self.missed.discard(asked)
            self.waits.clear()
        elif kind == "unsubscribe":
            self.wanted.discard(log)
            self.missed.discard(log)
            subscriptions.unwant(log)
        elif kind == "send":
            subscribe, unsubscribe = subscriptions.commands()
            server.sent += [("unsubscribe", name.decode()) for name in unsubscribe]
            server.sent += [("subscribe", name.decode()) for name in subscribe]
        elif kind == "answer":
            self.answer()
        elif kind == "lose":
            self.server = Server()
            subscriptions.lost()
        elif kind == "end" and log in server.heard:
            server.heard.discard(log)
            server.answers.append(("unsubscribe", log))
        for wait, asked in list(self.waits):
            if wait.future.done():
                self.waits.remove((wait, asked))
                if asked in self.wanted:
                    self.read_head(asked)
        self.publish()

    def read_head(self, log: str) -> None:
        self.missed.discard(log)

    def answer(self) -> None:
        """Carries out one command, or hands over one answer."""
        server, subscriptions = self.server, self.subscriptions
        if server.sent:
            command, log = server.sent.pop(0)
            (server.heard.add if command == "subscribe" else server.heard.discard)(log)
            server.answers.append((command, log))
        elif server.answers:
            command, log = server.answers.pop(0)
            if command == "subscribe":
                subscriptions.subscribed(log.encode())
            else:
                subscriptions.unsubscribed(log.encode())

    def publish(self) -> None:
        """Something is published to every log."""
        self.missed |= self.wanted - self.server.heard

    def settle(self) -> None:
        for _ in range(200):
            self.step("send", "")
            self.step("answer", "")


@given(_steps)
def test_nothing_is_missed_for_good(steps: list[tuple[str, str]]) -> None:
    async def run() -> None:
        case = Case()
        for kind, log in steps:
            case.step(kind, log)
        case.settle()
        assert case.server.heard == case.wanted
        assert not case.waits, "everybody who waits is told in the end"
        assert not case.missed, "what was missed was read: by who waited, or at a resync"
        assert len(case.subscriptions) == len(case.wanted)

    asyncio.run(run())


def test_what_changes_back_sends_nothing() -> None:
    async def run() -> None:
        case = Case()
        case.step("subscribe", "a")
        case.settle()
        for _ in range(3):
            case.step("unsubscribe", "a")
            case.step("subscribe", "a")
        assert case.subscriptions.commands() == ([], [])
        assert not case.waits

    asyncio.run(run())
