"""The sequencer over a store that misbehaves: what is acknowledged is there once, and everybody is answered once."""

from __future__ import annotations

import asyncio
import random

import pytest
from structlog.testing import capture_logs

from tests.unit.made import content
from tests.unit.world import HOUR_MS, Sent, World, refusal, settled, until
from tidings_server.core import commands as c
from tidings_server.core.entries import MessagePosted, NewMember
from tidings_server.core.pages import BUCKET_SIZE
from tidings_server.errors import Reason
from tidings_server.messaging.effects import MembershipEffects
from tidings_server.messaging.proposals import Committed, PostMessage
from tidings_server.messaging.sequencer import SETTLE_DEADLINE_S, Sequencer
from tidings_server.storage.base import Append
from tidings_server.storage.memory import Fate, Happens, MemoryStore, RandomFaults
from tidings_server.telemetry.counters import Counters

pytestmark = pytest.mark.virtual_time


# Group commit


async def test_what_arrives_together_is_committed_together(
    world: World, log: str, sent: Sent
) -> None:
    before = world.script.calls["append"]
    ids = [sent.post(log, "alice", str(i)) for i in range(50)]
    await sent.answered()
    assert world.script.calls["append"] == before + 1
    assert [sent.seq(i) for i in ids] == list(range(2, 52))


async def test_one_commit_of_a_log_is_under_way(world: World, log: str, sent: Sent) -> None:
    world.script.always["append"] = Fate(before=0.5, after=0.5)
    before = world.script.calls["append"]
    first = sent.post(log, "alice", "first")
    await settled()
    others = [sent.post(log, "alice", str(i)) for i in range(20)]
    await settled()
    assert world.script.calls["append"] == before + 1
    await sent.answered()
    assert world.script.calls["append"] == before + 2
    assert [sent.seq(i) for i in (first, *others)] == list(range(2, 23))


async def test_nobody_is_told_before_the_page_is_durable(
    world: World, log: str, sent: Sent
) -> None:
    world.script.plan("append", Fate(before=2, after=1))
    change = sent.post(log, "alice", "x")
    await until(lambda: len(world.entries(log)) == 2)
    assert not sent.answers[change]
    await sent.answered()


async def test_logs_do_not_wait_for_each_other(world: World, log: str, sent: Sent) -> None:
    other = await world.group("alice", "carol")
    world.script.plan("append", Fate(before=3))
    slow = sent.post(log, "alice", "x")
    await settled()
    quick = sent.post(other, "carol", "y")
    await settled()
    assert sent.seq(quick) == 2
    assert not sent.answers[slow]
    await sent.answered()


async def test_the_store_is_not_read_for_a_message_in_a_log_that_is_known(
    world: World, log: str, sent: Sent
) -> None:
    await world.post(log, "alice")
    before = world.script.calls.copy()
    sent.post(log, "alice", "x")
    await sent.answered()
    assert world.script.calls - before == {"append": 1}


async def test_a_bucket_border_between_two_messages(world: World, log: str, sent: Sent) -> None:
    for _ in range((BUCKET_SIZE - 2) // 100 + 2):
        for _ in range(100):
            sent.post(log, "alice", "x")
        await asyncio.sleep(0.01)
    await sent.answered()
    entries = world.entries(log)
    assert len(entries) > BUCKET_SIZE
    assert BUCKET_SIZE in {page.last_seq for page in world.pages(log)}
    await world.restart()
    assert await world.post(log, "bob") == len(entries) + 1
    assert (await world.node.sequencer.view(log, "bob")).conversation.member_count == 2


# Predecessors


async def test_an_order_of_predecessors_over_commits(world: World, log: str, sent: Sent) -> None:
    world.script.always["append"] = Fate(after=0.2)
    ids: list[str] = []
    for i in range(250):
        ids.append(sent.post(log, "alice", str(i), after=ids[-1] if ids else ""))
    await sent.answered()
    assert [sent.seq(i) for i in ids] == list(range(2, 252))
    assert world.texts(log) == [str(i) for i in range(250)]


async def test_a_predecessor_that_failed_holds_up_those_after_it(
    world: World, log: str, sent: Sent
) -> None:
    world.script.plan("append", Fate(Happens.REFUSED, after=1))
    first = sent.post(log, "alice", "1")
    await settled()
    second = sent.post(log, "alice", "2", after=first)
    third = sent.post(log, "alice", "3", after=second)
    await sent.answered()
    assert sent.reason(first) is Reason.STORE_UNAVAILABLE
    assert sent.reason(second) is Reason.PREDECESSOR_MISSING
    assert sent.reason(third) is Reason.PREDECESSOR_MISSING
    # Sent again in order, they take their places.
    for change, text, after in (
        (first, "1", ""),
        (second, "2", first),
        (third, "3", second),
    ):
        sent.answers[change].clear()
        sent.post(log, "alice", text, again=change, after=after)
    await sent.answered()
    assert world.texts(log) == ["1", "2", "3"]


@pytest.mark.parametrize("restart", [False, True])
async def test_a_predecessor_of_long_ago(world: World, log: str, restart: bool) -> None:
    first = world.new_id()
    await world.post(log, "alice", "1", change_id=first)
    never = world.new_id()
    for _ in range(3):
        world.clock.step(HOUR_MS)
        await world.post(log, "bob")
    if restart:
        await world.restart()
    assert await world.post(log, "alice", "2", after=first) == 6
    problem = await refusal(world, "alice", world.message(log, "3", after=never))
    assert problem.reason is Reason.PREDECESSOR_MISSING


# A store that fails


async def test_a_store_that_refuses(world: World, log: str, sent: Sent) -> None:
    world.script.plan("append", Happens.REFUSED)
    change = sent.post(log, "alice", "x")
    await sent.answered()
    assert sent.reason(change) is Reason.STORE_UNAVAILABLE
    assert len(world.entries(log)) == 1
    assert await world.post(log, "alice", "x", change_id=change) == 2


@pytest.mark.parametrize("method", ["heads", "snapshot", "read_flagged", "read_ids", "memberships"])
async def test_a_log_that_can_not_be_loaded(world: World, log: str, method: str) -> None:
    await world.post(log, "alice")
    await world.restart()
    world.script.plan(method, Happens.REFUSED)
    problem = await refusal(world, "alice", world.message(log, "x"))
    assert problem.reason is Reason.STORE_UNAVAILABLE
    assert problem.retry_after_ms
    assert await world.post(log, "alice", "x") == 3


async def test_members_that_can_not_be_noted(world: World, log: str) -> None:
    """The index is written first: without it the change must not be committed."""
    world.script.plan("put_user_logs", Happens.REFUSED)
    add = c.AddMembers(log, world.change_id(), (NewMember("carol"),))
    assert (await refusal(world, "alice", add)).reason is Reason.STORE_UNAVAILABLE
    assert len(world.entries(log)) == 1
    assert await world.execute("alice", add) == c.ConversationChanged(c.AddMembers, 2)


@pytest.mark.parametrize(
    "fates",
    [
        [Happens.UNSURE_DONE],
        [Happens.UNSURE_LOST],
        [Happens.UNSURE_LOST, Happens.UNSURE_LOST, Happens.UNSURE_DONE],
        [Fate(Happens.UNSURE_LATE, late=0.001)],
        [Fate(Happens.UNSURE_LATE, late=1.0)],
        [Fate(Happens.UNSURE_LATE, late=1.0), Happens.UNSURE_DONE, Happens.UNSURE_LOST],
        [Happens.UNSURE_LOST, Happens.REFUSED, Happens.REFUSED],
        [Happens.UNSURE_DONE, Happens.REFUSED, Happens.UNSURE_LOST, Happens.REFUSED],
    ],
)
async def test_an_unknown_outcome_is_settled(
    world: World, log: str, sent: Sent, fates: list[Happens | Fate]
) -> None:
    world.script.plan("append", *fates)
    ids = [sent.post(log, "alice", str(i)) for i in range(3)]
    await settled()
    later = sent.post(log, "bob", "later")
    await sent.answered()
    await asyncio.sleep(5)
    assert [sent.seq(i) for i in (*ids, later)] == [2, 3, 4, 5]
    assert world.texts(log) == ["0", "1", "2", "later"]
    for change in ids:
        assert await world.post(log, "alice", sent.texts[change], change_id=change) == sent.seq(
            change
        )
    assert len(world.entries(log)) == 5


@pytest.mark.parametrize("done", [Happens.UNSURE_DONE, Happens.UNSURE_LOST])
async def test_an_outcome_that_stays_unknown(
    world: World, log: str, sent: Sent, done: Happens
) -> None:
    world.script.plan("append", done)
    world.script.always["append"] = Fate(Happens.UNSURE_LOST)
    change = sent.post(log, "alice", "x")
    await settled()
    waiting = sent.post(log, "alice", "waits", after=change)
    began = world.clock.now_ms()
    await sent.answered()
    assert sent.reason(change) is Reason.OUTCOME_UNKNOWN
    assert sent.reason(waiting) is Reason.STORE_UNAVAILABLE
    assert world.clock.now_ms() - began <= SETTLE_DEADLINE_S * 1000 + 600
    # Nobody waits for a log of which nothing is known.
    assert (await refusal(world, "bob", world.message(log))).reason is Reason.STORE_UNAVAILABLE
    del world.script.always["append"]
    await until(lambda: len(world.entries(log)) == 2)
    # Whoever sends the same id again learns its one position.
    await asyncio.sleep(1)
    assert [await world.post(log, "alice", "x", change_id=change) for _ in range(3)] == [2, 2, 2]
    assert world.texts(log) == ["x"]


@pytest.mark.parametrize("faults", [1, 3])
@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("at_once", [False, True])
async def test_a_store_with_a_fault_of_its_own(
    world: World,
    log: str,
    sent: Sent,
    monkeypatch: pytest.MonkeyPatch,
    faults: int,
    applied: bool,
    at_once: bool,
) -> None:
    append = world.store.append
    calls: list[Append] = []
    bob = world.device("bob")
    await bob.hello()

    def broken(request: Append) -> asyncio.Future[object]:
        calls.append(request)
        if len(calls) > faults:
            return append(request)  # type: ignore[return-value]
        if applied:
            append(request)
        if at_once:
            raise RuntimeError("a bug")
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        future.set_exception(RuntimeError("a bug"))
        return future

    monkeypatch.setattr(world.store, "append", broken)
    with capture_logs() as logs:
        change = sent.post(log, "alice", "x")
        await sent.answered()
    assert sent.seq(change) == 2
    assert "append_failed" in [line["event"] for line in logs]
    assert all(call is calls[0] for call in calls), "the identical append is sent again"
    await until(lambda: bob.applied(log) == 2)


async def test_a_store_that_can_not_tell_what_became_of_it_for_a_while(
    world: World, log: str, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that fails after the conflict with one's own page: nobody else would publish that page."""
    bob = world.device("bob")
    await bob.hello()
    read, faults = world.store.read, 2

    async def broken(name: str, after: int, **bounds: int) -> object:
        nonlocal faults
        if name == log and faults:
            faults -= 1
            raise RuntimeError("a bug")
        return await read(name, after, **bounds)

    world.script.plan("append", Happens.UNSURE_DONE)
    monkeypatch.setattr(world.store, "read", broken)
    with capture_logs():
        change = sent.post(log, "alice", "x")
        await sent.answered()
    assert sent.seq(change) == 2
    await until(lambda: bob.applied(log) == 2)


async def test_a_fault_of_the_server_refuses_what_waits_and_is_over(
    world: World, log: str, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.restart()
    sent.sequencer = world.node.sequencer

    async def broken(*_: object) -> object:
        raise RuntimeError("a bug")

    with capture_logs() as logs, monkeypatch.context() as patch:
        patch.setattr(world.store, "snapshot", broken)
        change = sent.post(log, "alice", "x")
        await sent.answered()
    assert sent.reason(change) is Reason.INTERNAL
    assert [line["event"] for line in logs] == ["sequencer_failed"]
    assert await world.post(log, "alice", "x") == 2


@pytest.mark.parametrize("fault", [RuntimeError, ValueError])
async def test_a_fault_in_one_log_is_none_of_the_others(
    world: World,
    log: str,
    sent: Sent,
    monkeypatch: pytest.MonkeyPatch,
    fault: type[Exception],
) -> None:
    """What waits in all logs is looked at in one turn of the loop."""
    others = [await world.group("alice", "bob") for _ in range(3)]

    with capture_logs() as lines:
        first = sent.post(log, "alice", "before")
        if fault is RuntimeError:
            monkeypatch.setattr(world.node.sequencer._logs[log].state, "stamp", "nonsense")
        else:
            monkeypatch.setattr(world.node.sequencer._logs[log].state, "head", BUCKET_SIZE - 1)
            monkeypatch.setattr("tidings_server.messaging.batch.room_in_bucket", lambda _: 9)
        mine = [first, *(sent.post(log, "alice", str(i)) for i in range(3))]
        theirs = [sent.post(other, "alice", "x") for other in others]
        await asyncio.wait_for(sent.answered(), 5)
    assert [sent.seq(i) for i in theirs] == [2, 2, 2]
    assert {sent.reason(i) for i in mine} == {Reason.INTERNAL}
    assert [line["event"] for line in lines] == ["sequencer_failed"]
    monkeypatch.undo()
    assert await world.post(log, "alice", "after") == 2


async def test_who_can_not_be_told_is_nobody_elses_concern(
    world: World, log: str, sent: Sent
) -> None:
    bob = world.device("bob")
    await bob.hello()

    def deaf(_: object) -> None:
        raise RuntimeError("a bug")

    with capture_logs() as lines:
        for who in ("alice", "mallory"):
            world.node.sequencer.submit(
                PostMessage(log, world.change_id(), who, deaf, content("x"), None)
            )
        change = sent.post(log, "alice", "y")
        await asyncio.wait_for(sent.answered(), 5)
    assert sent.seq(change) == 3
    assert [line["event"] for line in lines] == ["not_told"] * 2
    await until(lambda: bob.applied(log) == 3)


# Others that append


async def append_elsewhere(world: World, log: str, user: str, text: str) -> None:
    """Another node posts a message."""
    other = MemoryStore(world.disk, new_id=world.new_id)
    await other.open()
    node = Sequencer(other, world.clock, random.Random(3), Counters(), lambda *_: None)
    node.set_effects(MembershipEffects(other, node))
    sent = Sent(node, world)
    sent.post(log, user, text)
    await sent.answered()
    await node.close()


async def test_a_conflict_is_decided_anew(world: World, log: str, sent: Sent) -> None:
    await world.post(log, "alice", "1")
    await append_elsewhere(world, log, "bob", "2")
    change = sent.post(log, "alice", "3")
    await sent.answered()
    assert sent.seq(change) == 4
    assert world.texts(log) == ["1", "2", "3"]
    assert world.node.counters.conflicts == 1


async def test_a_message_that_another_node_has_taken(world: World, log: str, sent: Sent) -> None:
    await world.post(log, "alice", "1")
    other = MemoryStore(world.disk, new_id=world.new_id)
    await other.open()
    elsewhere = Sent(
        Sequencer(other, world.clock, random.Random(3), Counters(), lambda *_: None), world
    )
    change = elsewhere.post(log, "alice", "2")
    await elsewhere.answered()
    sent.post(log, "alice", "2", again=change)
    await sent.answered()
    assert sent.seq(change) == elsewhere.seq(change) == 3
    assert world.texts(log) == ["1", "2"]


async def test_a_conflict_of_an_unknown_outcome_with_another_node(
    world: World, log: str, sent: Sent
) -> None:
    """The append was lost, and another node's page took its place: it is decided anew."""
    world.script.plan("append", Fate(Happens.UNSURE_LOST, after=1))
    change = sent.post(log, "alice", "mine")
    await settled()
    await append_elsewhere(world, log, "bob", "theirs")
    await sent.answered()
    assert sent.seq(change) == 3
    assert world.texts(log) == ["theirs", "mine"]


async def test_who_was_removed_elsewhere_posts_no_more(world: World, log: str, sent: Sent) -> None:
    await world.post(log, "bob", "1")
    elsewhere = World(disk=world.disk)
    await elsewhere.start()
    await elsewhere.remove(log, "alice", "bob")
    change = sent.post(log, "bob", "2")
    await sent.answered()
    assert sent.reason(change) is Reason.CONVERSATION_NOT_FOUND
    assert world.texts(log) == ["1"]
    await elsewhere.stop()


async def test_two_nodes_that_append_to_the_same_log(world: World, log: str) -> None:
    elsewhere = World(disk=world.disk)
    await elsewhere.start()
    here, there = Sent(world.node.sequencer, world), Sent(elsewhere.node.sequencer, elsewhere)
    world.script.always["append"] = elsewhere.script.always["append"] = Fate(before=0.01)
    for i in range(30):
        here.post(log, "alice", f"alice {i}")
        there.post(log, "bob", f"bob {i}")
        await asyncio.sleep(0.003)
    await here.answered()
    await there.answered()
    for sent in (here, there):
        for change, text in sent.texts.items():
            entry = world.entries(log)[sent.seq(change) - 1]
            assert entry.id == change
            assert entry.body == MessagePosted(content(text))
    assert len(world.entries(log)) == 61
    await elsewhere.stop()


# The end


async def test_draining_finishes_what_was_begun(world: World, log: str, sent: Sent) -> None:
    world.script.always["append"] = Fate(before=0.5)
    ids = [sent.post(log, "alice", str(i)) for i in range(150)]
    await world.node.sequencer.drain()
    assert [sent.seq(i) for i in ids] == list(range(2, 152))


async def test_closing_answers_everybody(world: World, log: str, sent: Sent) -> None:
    other = await world.group("alice", "carol")
    world.script.always["append"] = Fate(Happens.UNSURE_LOST, before=0.2)
    unsure = sent.post(log, "alice", "unsure")
    queued = sent.post(other, "alice", "x")
    await asyncio.sleep(1)
    waiting = sent.post(log, "alice", "waits")
    await world.node.sequencer.close()
    late = sent.post(log, "alice", "late")
    await settled()
    assert sent.reason(unsure) is Reason.OUTCOME_UNKNOWN
    assert sent.reason(queued) is Reason.OUTCOME_UNKNOWN
    assert sent.reason(waiting) is Reason.STORE_UNAVAILABLE
    assert sent.reason(late) is Reason.STORE_UNAVAILABLE


@pytest.mark.parametrize("seed", range(12))
async def test_everybody_is_answered_once_whatever_happens(world: World, seed: int) -> None:
    """Two nodes, a store that misbehaves, senders that send again, and an end in the middle of it."""
    rng = random.Random(seed)
    log = await world.group("alice", "bob")
    faults = RandomFaults(rng, refused=0.1, unsure=0.2, max_delay=0.02, max_late=3.0)
    nodes: list[Sent] = []
    for _ in range(2):
        store = MemoryStore(world.disk, new_id=world.new_id, faults=faults)
        await store.open()
        node = Sequencer(store, world.clock, rng, Counters(), lambda *_: None)
        node.set_effects(MembershipEffects(store, node))
        nodes.append(Sent(node, world))
    known: dict[str, tuple[str, int]] = {}
    posted: list[tuple[str, str]] = []
    with capture_logs():
        for _ in range(120):
            sent, user = rng.choice(nodes), rng.choice(["alice", "bob"])
            if posted and rng.random() < 0.3:
                user, change = rng.choice(posted)
                sent.post(log, user, f"text of {change}", again=change)
            else:
                change = world.new_id()
                posted.append((user, change))
                sent.post(log, user, f"text of {change}", again=change)
            await asyncio.sleep(rng.uniform(0, 0.05))
        await nodes[0].sequencer.close()
        faults.calm()
        await asyncio.sleep(30)
        await nodes[1].sequencer.drain()
    entries = {(e.user_id, e.id): e.seq for e in world.entries(log)}
    assert len(entries) == len(world.entries(log)), "an id was accepted twice"
    for sent in nodes:
        for change, answers in sent.answers.items():
            (user,) = {u for u, i in posted if i == change}
            for answer in answers:
                if isinstance(answer, Committed):
                    assert entries[user, change] == answer.seq
                    known[change] = (user, answer.seq)
                else:
                    assert answer.reason in (Reason.STORE_UNAVAILABLE, Reason.OUTCOME_UNKNOWN)
    submitted = sum(len(a) for sent in nodes for a in sent.answers.values())
    assert submitted == 120, "somebody was answered twice or never"
    assert known
