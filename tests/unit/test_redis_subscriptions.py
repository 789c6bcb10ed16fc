"""Subscriptions against a server that carries out commands in their order, late, and forgets all with a connection."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
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
        st.tuples(st.just("settle"), st.just("")),
        st.tuples(st.just("lose"), st.just("")),
        st.tuples(st.just("end"), st.sampled_from(LOGS)),
    ),
    max_size=40,
)


class Server:
    """What a server holds of one connection. `heard` are the logs whose publications come."""

    def __init__(self) -> None:
        self.heard: set[str] = set()
        self.sent: list[tuple[str, str]] = []
        self.answers: list[tuple[str, str]] = []


class Subscriber:
    """Who subscribes and reads the head after that, as sessions do. `missed`: something was not heard since."""

    def __init__(self, log: str) -> None:
        self.log = log
        self.wait = Wait()
        self.missed = False


class Case:
    """Subscribers of a node. At a resync all of them read the heads again."""

    def __init__(self) -> None:
        self.subscriptions = Subscriptions(self._resync)
        self.server = Server()
        self.waiting: list[Subscriber] = []
        self.there: list[Subscriber] = []

    @property
    def wanted(self) -> set[str]:
        return {s.log for s in self.there}

    def _resync(self) -> None:
        for subscriber in self.there:
            subscriber.missed = False

    def step(self, kind: str, log: str) -> None:
        subscriptions, server = self.subscriptions, self.server
        if kind == "subscribe":
            subscriber = Subscriber(log)
            self.there.append(subscriber)
            subscriptions.want(log, log.encode(), subscriber.wait)
            if subscriber.wait.left:
                self.waiting.append(subscriber)
        elif kind == "give up":
            for subscriber in self.waiting:
                subscriptions.give_up(subscriber.log, subscriber.wait)
                subscriber.missed = False
            self.waiting.clear()
        elif kind == "unsubscribe":
            self.there = [s for s in self.there if s.log != log]
            subscriptions.unwant(log)
        elif kind == "send":
            subscribe, unsubscribe = subscriptions.commands()
            server.sent += [("unsubscribe", name.decode()) for name in unsubscribe]
            server.sent += [("subscribe", name.decode()) for name in subscribe]
        elif kind == "answer":
            self.answer()
        elif kind == "settle":
            self.settle()
        elif kind == "lose":
            self.server = Server()
            subscriptions.lost()
        elif kind == "end" and log in server.heard:
            server.heard.discard(log)
            server.answers.append(("unsubscribe", log))
        for subscriber in [s for s in self.waiting if s.wait.future.done()]:
            self.waiting.remove(subscriber)
            subscriber.missed = False
        self.publish()

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
        for subscriber in self.there:
            subscriber.missed = subscriber.missed or subscriber.log not in self.server.heard

    def settle(self) -> None:
        for _ in range(50):
            self.step("send", "")
            self.step("answer", "")


@settings(max_examples=400)
@given(_steps)
def test_nothing_is_missed_for_good(steps: list[tuple[str, str]]) -> None:
    async def run() -> None:
        case = Case()
        for kind, log in steps:
            case.step(kind, log)
        case.settle()
        assert case.server.heard == case.wanted
        assert not case.waiting, "everybody who waits is told in the end"
        assert not any(s.missed for s in case.there), (
            "what was missed was read: by who waited, or at a resync"
        )
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
        assert not case.waiting

    asyncio.run(run())
