"""Changes go to the home of their log, and a home that is gone, silent or wrong costs nothing but a moment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from itertools import pairwise
from types import SimpleNamespace

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.unit.made import content
from tests.unit.neighbours import Town
from tests.unit.tokens import FixedClock
from tests.unit.world import World, refusal, settled, until
from tidings_server.core import commands as c
from tidings_server.core.entries import ConversationKind
from tidings_server.core.homes import home_of
from tidings_server.core.ids import inbox_log
from tidings_server.errors import Reason
from tidings_server.messaging.effects import MembershipEffects
from tidings_server.messaging.forwarding import SILENCE_S
from tidings_server.messaging.proposals import Proposal
from tidings_server.storage.memory import Fate, Happens
from tidings_server.telemetry.traces import OtelTracer

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
pytestmark = pytest.mark.virtual_time


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    town = Town()
    await town.node("one")
    await town.node("two")
    await settled()
    yield town
    town.silent.clear()
    await town.stop()


async def group_at(town: Town, home: str, world: World) -> str:
    """A group of alice and bob whose home is a node."""
    request, log = town.log_at(home, world, "alice")
    command = c.CreateConversation(ConversationKind.GROUP, ("bob",), "T", world.change_id(request))
    got = await world.execute("alice", command)
    assert isinstance(got, c.ConversationGot)
    assert got.view.conversation_id == log
    return log


def commits(town: Town) -> tuple[int, int]:
    """What each of the two nodes has committed."""
    one, two = (world.node.counters.commits for world in town.worlds.values())
    return one, two


async def test_the_hash_moves_only_what_must_move() -> None:
    rng = random.Random(1)
    logs = [f"{rng.getrandbits(128):032x}" for _ in range(3000)]
    nodes = ["a", "b", "c"]
    before = {log: home_of(log, nodes) for log in logs}
    assert all(before[log] == home_of(log, reversed(nodes)) for log in logs)
    counts = [list(before.values()).count(node) for node in nodes]
    assert min(counts) > 900, counts
    after = {log: home_of(log, ["a", "b", "c", "d"]) for log in logs}
    assert {after[log] for log in logs if after[log] != before[log]} == {"d"}
    assert home_of("x", []) is None


async def test_all_that_concerns_a_log_is_appended_by_its_home(town: Town) -> None:
    one = town.worlds["one"]
    log = await group_at(town, "two", one)
    await until(lambda: one.pages(inbox_log("bob")))
    before = commits(town)
    for i in range(5):
        assert await one.post(log, "alice", str(i)) == 2 + i
    assert commits(town) == (before[0], before[1] + 5)
    change = c.EditMessage(log, one.change_id(), 3, content("edited"))
    got = await one.execute("alice", change)
    assert isinstance(got, c.MessageChanged)
    assert got.seq == 7
    assert await one.execute("alice", change) == got
    assert commits(town) == (before[0], before[1] + 6)
    await one.execute("alice", c.DeleteMessage(log, one.change_id(), 3))
    await one.add(log, "alice", "carol", "dave")
    await one.remove(log, "alice", "carol")
    await one.remove(log, "dave", "dave")
    assert len(one.entries(log)) == 11
    assert one.node.counters.conflicts == 0
    assert town.worlds["two"].node.counters.hosted == one.node.counters.forwarded >= 8
    # Inboxes are logs that have homes, too.
    for user in ("alice", "bob", "carol", "dave"):
        assert one.entries(inbox_log(user))


async def test_nodes_that_write_to_one_conversation_through_its_home_meet_no_conflict(
    town: Town,
) -> None:
    one, two = town.worlds.values()
    log = await group_at(town, "one", one)
    before = commits(town)[0]
    posts = [
        asyncio.ensure_future(world.post(log, user, str(i)))
        for i in range(100)
        for world, user in ((one, "alice"), (two, "bob"))
    ]
    seqs = await asyncio.gather(*posts)
    assert sorted(seqs) == list(range(2, 202))
    assert one.node.counters.conflicts + two.node.counters.conflicts == 0
    assert commits(town)[0] - before < 20
    # Each sender's order.
    assert seqs[::2] == sorted(seqs[::2])
    assert seqs[1::2] == sorted(seqs[1::2])


async def test_a_refusal_comes_back_as_it_is(town: Town) -> None:
    one = town.worlds["one"]
    log = await group_at(town, "two", one)
    problem = await refusal(one, "mallory", one.message(log))
    assert (problem.reason, problem.field) == (Reason.CONVERSATION_NOT_FOUND, "conversation_id")
    change = one.new_id()
    await one.post(log, "alice", "once", change_id=change)
    problem = await refusal(one, "alice", one.message(log, "twice", change_id=change))
    assert problem.reason is Reason.ID_REUSED
    assert problem.metadata == {"seq": "2"}
    problem = await refusal(one, "alice", one.message(log, after=one.new_id()))
    assert problem.reason is Reason.PREDECESSOR_MISSING


async def test_a_home_that_dies_after_the_commit(town: Town) -> None:
    one, two = town.worlds.values()
    log = await group_at(town, "two", one)
    two.script.plan("append", Fate(before=0.0, after=1.0))
    posting = asyncio.ensure_future(one.post(log, "alice", "once"))
    await until(lambda: len(one.entries(log)) == 2)
    town.unreachable.add("two")
    town.cut("two")
    assert await posting == 2
    assert one.texts(log) == ["once"]
    assert one.node.counters.forward_fallbacks == 1


async def test_a_home_that_dies_before_the_commit(town: Town) -> None:
    one, two = town.worlds.values()
    log = await group_at(town, "two", one)
    two.script.plan("append", Fate(before=5.0))
    posts = [asyncio.ensure_future(one.post(log, "alice", str(i))) for i in range(3)]
    await until(lambda: two.script.calls["append"] > 1)
    town.unreachable.add("two")
    town.cut("two")
    assert await asyncio.gather(*posts) == [2, 3, 4]
    # Its own attempt is refused by the condition, and finds the message there.
    await asyncio.sleep(10)
    assert one.texts(log) == ["0", "1", "2"]


async def test_a_home_that_says_nothing_is_given_up(town: Town) -> None:
    one, two = town.worlds.values()
    log = await group_at(town, "two", one)
    town.silent.add("two")
    began = asyncio.get_running_loop().time()
    assert await one.post(log, "alice") == 2
    assert asyncio.get_running_loop().time() - began < 2 * SILENCE_S
    # It is not waited for again.
    began = asyncio.get_running_loop().time()
    assert await one.post(log, "alice") == 3
    assert asyncio.get_running_loop().time() - began < 0.1
    town.silent.clear()
    await until(lambda: asyncio.get_running_loop().time() > began + 60, seconds=120)
    await one.post(log, "alice")
    await settled()
    hosted = two.node.counters.hosted
    assert await one.post(log, "alice") == 5
    assert two.node.counters.hosted == hosted + 1


async def test_a_home_that_is_slow_is_waited_for(town: Town) -> None:
    one, two = town.worlds.values()
    log = await group_at(town, "two", one)
    two.script.plan("append", Fate(before=3 * SILENCE_S))
    assert await one.post(log, "alice") == 2
    assert one.node.counters.forward_fallbacks == 0


async def test_effects_that_take_long_are_not_waited_for(town: Town) -> None:
    one, two = town.worlds.values()
    log = await group_at(town, "two", one)
    two.script.always["put_memberships"] = Fate(before=30.0)
    adding = asyncio.ensure_future(one.add(log, "alice", "carol"))
    await until(lambda: len(one.entries(log)) == 2)
    posting = asyncio.ensure_future(one.post(log, "alice"))
    assert await asyncio.wait_for(adding, 5) == 2
    assert await posting == 3
    assert one.node.counters.forward_fallbacks == 0
    await until(lambda: one.entries(inbox_log("carol")))


async def test_a_large_group_leaves_room_for_what_others_ask(town: Town) -> None:
    one = town.worlds["one"]
    most = 0
    forward = one.node.router.submit

    def counted(proposal: Proposal) -> None:
        nonlocal most
        forward(proposal)
        most = max(most, one.node.router.pending)

    one.node.sequencer.set_effects(MembershipEffects(one.store, SimpleNamespace(submit=counted)))
    log = await group_at(town, "one", one)
    await one.add(log, "alice", *(f"user-{i}" for i in range(1300)))
    assert 0 < most <= 500
    await until(lambda: all(one.entries(inbox_log(f"user-{i}")) for i in range(1300)))


async def test_what_is_refused_after_a_doubt_is_unknown(town: Town) -> None:
    one, two = town.worlds.values()
    log = await group_at(town, "two", one)
    # The home holds a message back while its sender is removed.
    two.script.plan("append", Fate(before=3600.0))
    command = one.message(log, "perhaps")
    posting = asyncio.ensure_future(refusal(one, "bob", command))
    await until(lambda: two.script.calls["append"] > 1)
    three = await World(disk=town.disk, shared=True).start()
    await three.remove(log, "alice", "bob")
    town.unreachable.add("two")
    town.cut("two")
    assert (await posting).reason is Reason.OUTCOME_UNKNOWN
    assert (await refusal(one, "bob", command)).reason is Reason.CONVERSATION_NOT_FOUND
    await three.stop()


async def test_a_home_that_cannot_reach_its_store(town: Town) -> None:
    one, two = town.worlds.values()
    log = await group_at(town, "two", one)
    two.script.plan("append", Happens.REFUSED)
    assert await one.post(log, "alice") == 2
    assert one.node.counters.forward_fallbacks == 1


async def test_nothing_is_forwarded_twice(town: Town) -> None:
    one, two = town.worlds.values()
    # Each takes the other for the only node that is there.
    town.deaf.update(("one", "two"))
    nodes = town.leases["one"].seen
    for name, other in (("one", "two"), ("two", "one")):
        leases = town.leases[name]
        leases._node = leases.node.__class__(name)
        leases.seen = {other: nodes[other]}
        leases.nodes_changed()
    await settled()
    log = await one.group("alice", "bob")
    await until(lambda: one.pages(inbox_log("bob")))
    forwarded = one.node.counters.forwarded, two.node.counters.forwarded
    assert await one.post(log, "alice") == 2
    assert (one.node.counters.forwarded, two.node.counters.forwarded) == (
        forwarded[0] + 1,
        forwarded[1],
    )


async def test_two_nodes_that_both_hold_themselves_for_the_home(town: Town) -> None:
    one, two = town.worlds.values()
    log = await group_at(town, "one", one)
    town.deaf.add("two")
    town.leases["two"].seen = {}
    town.leases["two"].nodes_changed()
    posts = [
        asyncio.ensure_future(world.post(log, user, f"{user} {i}"))
        for i in range(20)
        for world, user in ((one, "alice"), (two, "bob"))
    ]
    assert sorted(await asyncio.gather(*posts)) == list(range(2, 42))
    assert len(one.entries(log)) == 41


async def test_a_node_that_drains_is_no_home_and_answers_what_it_was_asked(town: Town) -> None:
    one, two = town.worlds.values()
    log = await group_at(town, "two", one)
    two.script.plan("append", Fate(before=1.0))
    posting = asyncio.ensure_future(one.post(log, "alice"))
    await until(lambda: two.script.calls["append"] > 1)
    two.node.announce_drain(1000)
    hosted = two.node.counters.hosted
    assert await posting == 2
    assert one.node.counters.forward_fallbacks == 0
    assert await one.post(log, "alice") == 3
    assert two.node.counters.hosted == hosted
    # What clients of its own ask goes to the nodes that stay.
    before = one.node.counters.hosted
    assert await two.post(log, "bob") == 4
    assert one.node.counters.hosted == before + 1
    await until(lambda: not town.links or all(link.to == "one" for link in town.links))


async def test_stopping_waits_for_what_others_decide(town: Town) -> None:
    one, two = town.worlds.values()
    log = await group_at(town, "two", one)
    two.script.plan("append", Fate(before=2.0))
    device = one.device("alice")
    await device.hello()
    number, _ = device.post(log, "x")
    await until(lambda: two.script.calls["append"] > 1)
    await one.node.stop(grace_s=10)
    result = await device.result(number)
    assert result.send_message.seq == 2


async def test_a_node_that_stops_makes_no_links_anew(town: Town) -> None:
    """Leases are given back after the router is closed, and nodes come and go meanwhile."""
    one = town.worlds["one"]
    stop = one.node.leases.stop

    async def told_meanwhile() -> None:
        await town.node("three")
        await settled()
        assert not [link for link in town.links if link.caller == "one"]
        await stop()

    one.node.leases.stop = told_meanwhile  # type: ignore[method-assign]
    await one.stop()
    town.gone("one")
    del town.worlds["one"]


async def test_a_node_whose_store_fails_offers_no_home(town: Town) -> None:
    one, two = town.worlds.values()
    log = await group_at(town, "two", one)
    two.node.offer_home(False)
    hosted = two.node.counters.hosted
    assert await one.post(log, "alice") == 2
    assert two.node.counters.hosted == hosted
    two.node.offer_home(True)
    await settled()
    assert await one.post(log, "alice") == 3
    assert two.node.counters.hosted == hosted + 1


async def test_a_frame_of_garbage_breaks_the_link_and_nothing_else(town: Town) -> None:
    one, two = town.worlds.values()
    log = await group_at(town, "two", one)
    (link,) = [link for link in town.links if link.caller == "one"]
    posting = asyncio.ensure_future(one.post(log, "alice"))
    link.send(b"\x0a\xff")
    assert await posting == 2
    guest = two.node.host.open(lambda _: None)
    with pytest.raises(ValueError, match="AppendRequest"):
        guest.receive(b"\x0a\xff")


async def test_a_change_that_the_home_does_not_know_is_decided_here(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = town.worlds["one"]
    log = await group_at(town, "two", one)

    def unknown(*_: object) -> None:
        raise ValueError("of a newer version")

    monkeypatch.setattr("tidings_server.messaging.hosting.proposed", unknown)
    assert await one.post(log, "alice") == 2
    assert one.node.counters.forward_fallbacks == 1


async def test_a_trace_goes_on_at_the_home() -> None:
    town, exporter = Town(), InMemorySpanExporter()
    tracers = [
        OtelTracer(SimpleSpanProcessor(exporter), ratio=0, rng=random.Random(n), clock=FixedClock())
        for n in range(2)
    ]
    one = await town.node("one", tracers[0])
    await town.node("two", tracers[1])
    await settled()
    log = await group_at(town, "two", one)
    span = tracers[0].command("send_message", parent=TRACEPARENT)
    assert span is not None
    await one.node.handlers.execute(one.principal("alice"), one.message(log), span)
    tracers[0].end(span)
    spans = {s.name: s for s in exporter.get_finished_spans()}
    for above, below in pairwise(["send_message", "forward", "append", "commit", "publish"]):
        parent = spans[below].parent
        assert parent is not None
        assert parent.span_id == spans[above].context.span_id
        assert f"{parent.trace_id:032x}" == TRACEPARENT.split("-")[1]
    await town.stop()
    for tracer in tracers:
        tracer.stop()
