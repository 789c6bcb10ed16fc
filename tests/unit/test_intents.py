"""A node notes what it may append to, and another tells of what it leaves untold when it has no lease any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from structlog.testing import capture_logs

from tests.unit.neighbours import Town
from tests.unit.world import World, refusal, settled, until
from tidings_server.bus.base import HeadPublished, Publication
from tidings_server.bus.local import LocalBus
from tidings_server.core.entries import MemberRemoved
from tidings_server.core.ids import inbox_log
from tidings_server.errors import Reason
from tidings_server.messaging.intents import LATE_S, ROUND_S
from tidings_server.messaging.takeover import LOOK_EVERY_S
from tidings_server.storage.base import Append, Head, Outcome, StoreUnavailable
from tidings_server.storage.memory import Fate, Happens

pytestmark = pytest.mark.virtual_time


class SlowBus(LocalBus):
    """Keeps what was published, and takes nothing for sure while it is `away`."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.published: list[Publication] = []
        self._safe = 0

    def publish(self, publication: Publication) -> None:
        self.published.append(publication)
        super().publish(publication)

    def mark(self) -> int:
        return len(self.published)

    def taken(self, mark: int) -> bool:
        if not self.away:
            self._safe = len(self.published)
        return mark <= self._safe

    def told(self, log: str) -> list[int]:
        """The heads of a log that were published."""
        return [p.seq for p in self.published if isinstance(p, HeadPublished) and p.log == log]


class Cluster(Town):
    """Nodes that append by themselves, and hear nothing of each other over their buses."""

    def __init__(self) -> None:
        super().__init__()
        self.buses: dict[str, SlowBus] = {}

    async def add(self, name: str) -> World:
        self.buses[name] = SlowBus()
        world = await self.node(name, bus=self.buses[name])
        world.node.offer_home(False)
        await settled()
        return world

    def kill(self, name: str) -> None:
        """The node does nothing more; its lease has not ended yet."""
        self.worlds[name].store.crash(lambda: False)
        self.silent.add(name)

    def noted(self, name: str) -> dict[int, list[str]]:
        rounds = self.disk.intent_rounds(name)
        return {number: self.disk.intents(name, number, "", 10_000) for number in rounds}

    def logs_noted(self, name: str) -> set[str]:
        return {log for logs in self.noted(name).values() for log in logs}


@pytest.fixture
async def town() -> AsyncIterator[Cluster]:
    town = Cluster()
    yield town
    town.silent.clear()
    await town.stop()


# What a node notes


async def test_what_is_appended_to_is_noted_before(town: Cluster) -> None:
    one = await town.add("one")
    log = await one.group("alice", "bob")
    assert log in town.logs_noted("one")
    assert inbox_log("bob") in town.logs_noted("one")
    other = await one.group("alice", "bob")
    await asyncio.sleep(ROUND_S)
    one.script.plan("put_intents", Fate(before=0.5))
    before = one.script.calls["append"]
    posting = [asyncio.ensure_future(one.post(name, "alice")) for name in (log, other)]
    await settled()
    assert one.script.calls["append"] == before
    await asyncio.gather(*posting)
    notes = one.script.calls["put_intents"]
    await one.post(log, "alice")
    await one.post(other, "bob")
    assert one.script.calls["put_intents"] == notes, "a note holds for the round"
    await asyncio.sleep(ROUND_S)
    await one.post(log, "alice")
    newest = max(town.noted("one"))
    assert town.noted("one")[newest] == [log]


async def test_what_cannot_be_noted_is_not_begun(town: Cluster) -> None:
    one = await town.add("one")
    log = await one.group("alice", "bob")
    await asyncio.sleep(ROUND_S)
    before = one.script.calls["append"]
    one.script.plan("put_intents", Happens.REFUSED, Happens.UNSURE_LOST)
    for _ in range(2):
        problem = await refusal(one, "alice", one.message(log))
        assert problem.reason is Reason.STORE_UNAVAILABLE
    assert one.script.calls["append"] == before
    assert await one.post(log, "alice") == 2


async def test_a_store_with_a_fault_of_its_own(
    town: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await town.add("one")
    log = await one.group("alice", "bob")
    await asyncio.sleep(ROUND_S)

    async def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(one.store, "put_intents", broken)
        problem = await refusal(one, "alice", one.message(log))
    assert problem.reason is Reason.STORE_UNAVAILABLE
    assert "noting_failed" in [line["event"] for line in logs]
    assert await one.post(log, "alice") == 2


async def test_an_append_that_fails_at_once_holds_up_no_other(
    town: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await town.add("one")
    logs = [await one.group("alice", "bob") for _ in range(3)]
    await asyncio.sleep(ROUND_S)
    append, faults = one.store.append, 2

    def broken(request: Append) -> asyncio.Future[Outcome]:
        nonlocal faults
        if faults:
            faults -= 1
            raise RuntimeError("a bug")
        return append(request)

    monkeypatch.setattr(one.store, "append", broken)
    with capture_logs() as lines:
        posts = [asyncio.ensure_future(one.post(log, "alice")) for log in logs]
        assert await asyncio.wait_for(asyncio.gather(*posts), 10) == [2, 2, 2]
    assert "append_failed" in [line["event"] for line in lines]


async def test_many_logs_are_noted_together(town: Cluster) -> None:
    one = await town.add("one")
    logs = [await one.group("alice", f"user-{n}") for n in range(200)]
    await asyncio.sleep(ROUND_S)
    one.script.always["put_intents"] = Fate(before=0.01, after=0.01)
    before = one.script.calls["put_intents"]
    await asyncio.gather(*(one.post(log, "alice") for log in logs))
    assert one.script.calls["put_intents"] - before <= 2
    assert set(logs) <= town.logs_noted("one")
    assert one.node.counters.intents >= 400


async def test_noting_that_takes_a_round_is_done_anew(town: Cluster) -> None:
    one = await town.add("one")
    log = await one.group("alice", "bob")
    await asyncio.sleep(ROUND_S)
    one.script.plan("put_intents", Fate(before=1, after=ROUND_S))
    assert await one.post(log, "alice") == 2
    newest = max(town.noted("one"))
    assert log in town.noted("one")[newest]
    assert newest >= 2


async def test_a_store_of_one_process_needs_no_notes(world: World, log: str) -> None:
    await world.post(log, "alice")
    await asyncio.sleep(2 * LOOK_EVERY_S)
    assert not any("intent" in method for method in world.script.calls)


# What it takes back


async def test_what_is_told_is_forgotten(town: Cluster) -> None:
    one = await town.add("one")
    log = await one.group("alice", "bob")
    assert town.noted("one")
    await until(lambda: not town.noted("one"), seconds=2 * ROUND_S)
    clears = one.script.calls["clear_intents"]
    await asyncio.sleep(10 * ROUND_S)
    assert one.script.calls["clear_intents"] == clears, "who does nothing writes nothing"
    # Who goes on keeps no more than a few rounds.
    for _ in range(40):
        await asyncio.sleep(ROUND_S / 4)
        await one.post(log, "alice")
        assert len(town.noted("one")) <= 2
        assert log in town.logs_noted("one")


async def test_what_the_bus_has_not_taken_stays_noted(town: Cluster) -> None:
    one = await town.add("one")
    log = await one.group("alice", "bob")
    town.buses["one"].away = True
    await one.post(log, "alice")
    await asyncio.sleep(20 * ROUND_S)
    assert log in town.logs_noted("one")
    town.buses["one"].away = False
    await until(lambda: not town.noted("one"))


async def test_what_is_not_decided_stays_noted(town: Cluster) -> None:
    one = await town.add("one")
    log = await one.group("alice", "bob")
    one.script.always["append"] = Fate(Happens.UNSURE_LOST)
    await refusal(one, "alice", one.message(log))
    for _ in range(40):
        await asyncio.sleep(ROUND_S / 4)
        # Each try is as good as a new append.
        assert log in town.noted("one")[max(town.noted("one"))]
    assert max(town.noted("one")) >= 9
    # It is applied, and the answer is lost; then what the log holds can't be read.
    one.script.always["append"] = Fate(Happens.UNSURE_DONE)
    one.script.always["read"] = Fate(Happens.REFUSED)
    await until(lambda: len(one.pages(log)) == 2)
    del one.script.always["append"]
    await asyncio.sleep(10 * ROUND_S)
    assert log in town.logs_noted("one")
    del one.script.always["read"]
    await until(lambda: not town.noted("one"), seconds=2 * ROUND_S)


async def test_what_has_effects_that_are_not_written_stays_noted(town: Cluster) -> None:
    one = await town.add("one")
    log = await one.group("alice", "bob")
    one.script.always["put_memberships"] = Fate(Happens.REFUSED)
    await one.add(log, "alice", "carol")
    await asyncio.sleep(5 * ROUND_S)
    assert log in town.logs_noted("one")
    del one.script.always["put_memberships"]
    await until(lambda: not town.noted("one"), seconds=2 * ROUND_S)


async def test_effects_of_what_was_begun_in_an_earlier_round(town: Cluster) -> None:
    one = await town.add("one")
    log, other = await one.group("alice", "bob"), await one.group("alice", "bob")
    one.script.always["put_memberships"] = Fate(Happens.REFUSED)
    one.script.plan("append", Fate(after=ROUND_S + 2))
    adding = asyncio.ensure_future(one.add(log, "alice", "carol"))
    await asyncio.sleep(ROUND_S + 1)
    # A later round begins before the answer comes.
    await one.post(other, "alice")
    await adding
    await asyncio.sleep(5 * ROUND_S)
    assert log in town.logs_noted("one")


async def test_clearing_that_fails_is_done_later(town: Cluster) -> None:
    one = await town.add("one")
    one.script.always["clear_intents"] = Fate(Happens.REFUSED)
    await one.group("alice", "bob")
    await asyncio.sleep(5 * ROUND_S)
    assert town.noted("one")
    del one.script.always["clear_intents"]
    await until(lambda: not town.noted("one"))


async def test_clearing_goes_on_after_a_fault(
    town: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await town.add("one")
    await one.group("alice", "bob")

    async def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch, capture_logs() as lines:
        patch.setattr(one.store, "clear_intents", broken)
        await asyncio.sleep(3 * ROUND_S)
    assert "clearing_failed" in [line["event"] for line in lines]
    await until(lambda: not town.noted("one"))


async def test_a_node_that_stops_leaves_only_what_is_untold(town: Cluster) -> None:
    one, two = await town.add("one"), await town.add("two")
    log = await one.group("alice", "bob")
    other = await two.group("alice", "bob")
    town.buses["two"].away = True
    await two.post(other, "alice")
    await one.stop()
    await two.stop()
    assert not town.noted("one")
    assert other in town.logs_noted("two")
    assert log not in town.logs_noted("two")


async def test_a_node_that_stops_leaves_what_is_not_decided(town: Cluster) -> None:
    one = await town.add("one")
    log = await one.group("alice", "bob")
    one.script.always["append"] = Fate(Happens.UNSURE_LATE, late=30)
    posting = asyncio.ensure_future(refusal(one, "alice", one.message(log)))
    await settled()
    await one.stop()
    assert (await posting).reason is Reason.OUTCOME_UNKNOWN
    assert log in town.logs_noted("one")


# What others make of it


async def test_what_a_dead_node_did_not_tell_reaches_idle_receivers(town: Cluster) -> None:
    one, two = await town.add("one"), await town.add("two")
    log = await one.group("alice", "bob")
    bob = two.device("bob")
    await bob.hello()
    town.buses["one"].away = True
    assert await one.post(log, "alice", "acknowledged, and nobody knows") == 2
    town.kill("one")
    await asyncio.sleep(3 * LOOK_EVERY_S)
    assert bob.applied(log) == 1, "its lease has not ended"
    heads = two.script.calls["heads"]
    town.gone("one")
    await settled()
    assert bob.applied(log) == 2
    # By what was noted, and not by looking at everything.
    assert two.script.calls["heads"] - heads <= 4
    # Nobody is told again and again, and nothing is kept for ever.
    await until(lambda: not town.noted("one"), seconds=2 * (ROUND_S + LATE_S))
    assert town.buses["two"].told(log) == [2]
    told = sum(isinstance(p, HeadPublished) for p in town.buses["two"].published)
    assert two.node.counters.heads_taken_over == told
    assert len(bob.of("welcome")) == 1


async def test_a_node_that_is_cut_off_and_goes_on_is_listened_to(town: Cluster) -> None:
    one, two = await town.add("one"), await town.add("two")
    log = await one.group("alice", "bob")
    bob = two.device("bob")
    await bob.hello()
    town.buses["one"].away = True
    town.uninformed.add("one")
    town.deaf.add("one")
    town.gone("one")
    # Far longer than a lease, and than rounds are kept.
    for seq in range(2, 30):
        assert await one.post(log, "alice") == seq
        await asyncio.sleep(1.5 * LOOK_EVERY_S)
        assert bob.applied(log) == seq
    assert len(town.noted("one")) <= 3
    assert await one.post(log, "alice") == 30
    town.kill("one")
    await asyncio.sleep(1.5 * LOOK_EVERY_S)
    assert bob.applied(log) == 30
    await until(lambda: not town.noted("one"), seconds=2 * (ROUND_S + LATE_S))


async def test_a_commit_that_is_applied_after_the_death_of_its_node(town: Cluster) -> None:
    one, two = await town.add("one"), await town.add("two")
    log = await one.group("alice", "bob")
    bob = two.device("bob")
    await bob.hello()
    late = LATE_S - 2 * LOOK_EVERY_S
    one.script.plan("append", Fate(Happens.UNSURE_LATE, late=late))
    one.script.always["append"] = Fate(Happens.UNSURE_LOST)
    posting = asyncio.ensure_future(refusal(one, "alice", one.message(log)))
    await settled()
    town.kill("one")
    town.gone("one")
    await asyncio.sleep(late - 1)
    assert bob.applied(log) == 1
    await asyncio.sleep(1 + 1.5 * LOOK_EVERY_S)
    assert bob.applied(log) == 2
    await posting


async def test_heads_are_read_for_the_last_time_when_nothing_can_come_any_more(
    town: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await town.add("one"), await town.add("two")
    log = await one.group("alice", "bob")
    bob = two.device("bob")
    await bob.hello()
    settled_heads, settled_logs = two.store.settled_heads, list[str]()

    async def asked(logs: Sequence[str]) -> dict[str, Head]:
        settled_logs.extend(logs)
        return await settled_heads(logs)

    monkeypatch.setattr(two.store, "settled_heads", asked)
    town.kill("one")
    town.gone("one")
    await asyncio.sleep(ROUND_S + LATE_S - 2 * LOOK_EVERY_S)
    assert log in town.logs_noted("one")
    assert not settled_logs, "that costs more"
    two.script.always["heads"] = Fate(Happens.REFUSED)
    await asyncio.sleep(4 * LOOK_EVERY_S)
    assert log in town.logs_noted("one"), "it was not looked at after it could not come any more"
    three = await World(disk=town.disk, shared=True).start()
    await three.post(log, "alice")
    await three.stop()
    del two.script.always["heads"]
    await until(lambda: not town.noted("one"), seconds=2 * LOOK_EVERY_S)
    assert bob.applied(log) == 2
    assert log in settled_logs


async def test_the_effects_of_a_dead_node_are_written(town: Cluster) -> None:
    one, two = await town.add("one"), await town.add("two")
    bob = two.device("bob")
    await bob.hello()
    one.script.always["put_memberships"] = Fate(Happens.REFUSED)
    log = await one.group("alice", "bob")
    town.kill("one")
    await asyncio.sleep(2 * LOOK_EVERY_S)
    assert bob.applied(log) == 0
    town.gone("one")
    # He had no session that follows the conversation, and nobody else looks at it.
    await until(lambda: bob.applied(log) == 1, seconds=LOOK_EVERY_S)
    await two.post(log, "bob")
    await until(lambda: not town.noted("one"), seconds=2 * (ROUND_S + LATE_S))


async def test_a_removal_that_a_dead_node_did_not_tell_of(town: Cluster) -> None:
    one, two = await town.add("one"), await town.add("two")
    log = await one.group("alice", "bob", "carol")
    bob, carol = two.device("bob"), two.device("carol")
    await bob.hello()
    await carol.hello()
    await one.remove(log, "alice", "bob")
    await one.post(log, "alice", "behind his back")
    town.kill("one")
    town.gone("one")
    await until(lambda: carol.applied(log) == 3, seconds=LOOK_EVERY_S)
    await asyncio.sleep(LOOK_EVERY_S)
    assert bob.applied(log) == 2
    assert isinstance(two.entries(log)[1].body, MemberRemoved)


async def test_one_node_sees_to_it_and_when_it_dies_another(town: Cluster) -> None:
    worlds = {name: await town.add(name) for name in ("one", "two", "three")}
    log = await worlds["one"].group("alice", "bob")
    town.kill("one")
    town.gone("one")
    await settled()
    (first,) = [name for name in ("two", "three") if town.buses[name].told(log)]
    (second,) = {"two", "three"} - {first}
    await asyncio.sleep(3 * LOOK_EVERY_S)
    assert town.buses[second].told(log) == []
    town.kill(first)
    town.gone(first)
    await settled()
    assert town.buses[second].told(log) == [1]
    await until(lambda: not town.noted("one"), seconds=2 * (ROUND_S + LATE_S))


async def test_who_is_not_informed_looks_after_nobody(town: Cluster) -> None:
    one, two = await town.add("one"), await town.add("two")
    log = await one.group("alice", "bob")
    town.uninformed.add("two")
    looks = two.script.calls["intent_nodes"]
    town.kill("one")
    town.gone("one")
    await asyncio.sleep(5 * ROUND_S)
    assert not town.buses["two"].published
    assert two.script.calls["intent_nodes"] == looks
    assert log in town.logs_noted("one")
    town.uninformed.clear()
    await until(lambda: town.buses["two"].told(log) == [1], seconds=LOOK_EVERY_S)


async def test_what_could_not_be_told_is_kept(town: Cluster) -> None:
    one, two = await town.add("one"), await town.add("two")
    log = await one.group("alice", "bob")
    bus = town.buses["two"]
    bus.away = True
    town.kill("one")
    town.gone("one")
    await asyncio.sleep(10 * ROUND_S)
    assert log in town.logs_noted("one")
    bus.away = False
    await until(lambda: not town.noted("one"), seconds=2 * LOOK_EVERY_S)
    assert two.script.calls["clear_intents"] == 1


async def test_a_store_that_fails_is_asked_again(town: Cluster) -> None:
    one, two = await town.add("one"), await town.add("two")
    log = await one.group("alice", "bob")
    for method in ("intent_nodes", "intent_rounds", "intents", "heads", "clear_intents"):
        two.script.plan(method, Happens.REFUSED, Happens.REFUSED)
    town.kill("one")
    town.gone("one")
    await until(lambda: town.buses["two"].told(log) == [1], seconds=10 * LOOK_EVERY_S)
    await until(lambda: not town.noted("one"), seconds=2 * (ROUND_S + LATE_S))


@pytest.mark.parametrize("fault", [RuntimeError, StoreUnavailable])
async def test_who_can_not_be_looked_after_holds_up_no_other(
    town: Cluster, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    worlds = {name: await town.add(name) for name in ("one", "two", "three")}
    first = await worlds["one"].group("alice", "bob")
    second = await worlds["two"].group("alice", "bob")
    # Two dead nodes, of which the first that is found is the one that can't be looked after.
    find = worlds["three"].store.intent_rounds
    ill = min(await worlds["three"].store.intent_nodes())

    async def broken(node_id: str) -> list[int]:
        if node_id == ill:
            raise fault("a bug")
        return await find(node_id)

    with monkeypatch.context() as patch, capture_logs():
        patch.setattr(worlds["three"].store, "intent_rounds", broken)
        for name in ("one", "two"):
            town.kill(name)
            town.gone(name)
        log = {"one": second, "two": first}[ill]
        await until(lambda: town.buses["three"].told(log) == [1], seconds=LOOK_EVERY_S)
    await until(lambda: not town.noted(ill), seconds=2 * (ROUND_S + LATE_S))


async def test_effects_that_meet_a_fault_hold_up_no_others(
    town: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await town.add("one"), await town.add("two")
    one.script.always["put_memberships"] = Fate(Happens.REFUSED)
    logs = [await one.group("alice", "bob") for _ in range(2)]
    write = two.node.sequencer.head
    ill = min(logs)

    async def broken(name: str) -> int:
        if name == ill:
            raise RuntimeError("a bug")
        return await write(name)

    with monkeypatch.context() as patch, capture_logs():
        patch.setattr(two.node.sequencer, "head", broken)
        town.kill("one")
        town.gone("one")
        await until(lambda: two.entries(inbox_log("bob")), seconds=LOOK_EVERY_S)
        await asyncio.sleep(2 * (ROUND_S + LATE_S))
    assert ill in town.logs_noted("one")
    await until(lambda: not town.noted("one"), seconds=2 * LOOK_EVERY_S)
    assert len(two.entries(inbox_log("bob"))) == 2


async def test_more_logs_than_are_read_at_once(town: Cluster) -> None:
    one = await town.add("one")
    logs = [await one.group("alice", f"user-{n}") for n in range(300)]
    two = await town.add("two")
    town.kill("one")
    town.gone("one")
    await settled()
    assert all(town.buses["two"].told(log) == [1] for log in logs)
    assert len(town.logs_noted("one")) > 500
    assert two.script.calls["intents"] >= 2
