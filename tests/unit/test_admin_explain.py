"""What an operator is told of a message on its way to a user: why it has not arrived, and what is not known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack

import pytest

from tests.unit.neighbours import Town
from tests.unit.world import Device, World, refusal, settled, until
from tidings_server.admin.service import ANSWERED_WITHIN_S
from tidings_server.bus.base import HeadPublished
from tidings_server.core import commands as c
from tidings_server.core.admin import (
    DeliveryExplained,
    DeliveryFact,
    DeliveryOutcome,
    ExplainDelivery,
    FactCause,
    FactSource,
    FactState,
)
from tidings_server.core.admin import DeliveryStep as Step
from tidings_server.core.entries import ConversationKind
from tidings_server.core.ids import inbox_log
from tidings_server.core.limits import Limits
from tidings_server.core.principal import ADMIN_SCOPE, Principal
from tidings_server.errors import DomainError, Reason
from tidings_server.presence.base import NodeInfo
from tidings_server.presence.local import LocalLeases
from tidings_server.storage.memory import Happens

pytestmark = pytest.mark.virtual_time

OPERATOR = Principal("operator", "cli", 1 << 60, frozenset({ADMIN_SCOPE}))
YES, NO, UNKNOWN = FactState.YES, FactState.NO, FactState.UNKNOWN


async def explained(
    world: World, log: str, key: int | str, user: str, *devices: str
) -> DeliveryExplained:
    seq, change_id = (key, None) if isinstance(key, int) else (0, world.change_id(key))
    command = ExplainDelivery(log, seq, change_id, user, devices)
    got = await world.node.handlers.execute(OPERATOR, command)
    assert isinstance(got, DeliveryExplained)
    assert all(f.text for f in got.facts)
    # Nothing is guessed: what is not known has a reason, and what is known a source.
    assert all(f.cause for f in got.facts if f.state is not YES)
    assert all(
        (f.source is FactSource.NONE) == (f.state is UNKNOWN)
        for f in got.facts
        if f.cause is not FactCause.IN_OUTBOX
    )
    return got


def fact(got: DeliveryExplained, step: Step, device: str = "") -> DeliveryFact:
    (found,) = [
        f
        for f in got.facts
        if (f.step, f.device_id) == (step, device) and f.cause is not FactCause.DEVICES_NOT_LISTED
    ]
    return found


async def acknowledged(world: World, device: Device, log: str, seq: int, *, start: int = 0) -> None:
    await until(lambda: device.applied(log, start) >= seq)
    device.send(acks=[(log, seq)])
    calls = world.script.calls["put_receipts"]
    await until(lambda: world.script.calls["put_receipts"] > calls)


# Not committed


async def test_an_id_that_was_never_sent(world: World, log: str) -> None:
    got = await explained(world, log, world.new_id(), "bob")
    assert got.outcome is DeliveryOutcome.NOT_COMMITTED
    assert got.entry is None
    committed = fact(got, Step.COMMITTED)
    assert (committed.state, committed.cause, committed.seq) == (NO, FactCause.ID_NOT_IN_LOG, 1)
    accepted = fact(got, Step.ACCEPTED)
    assert (accepted.state, accepted.cause) == (UNKNOWN, FactCause.FORGOTTEN)
    assert accepted.time_ms <= world.clock.now_ms()


async def test_a_send_that_was_refused(world: World, log: str) -> None:
    change_id = world.new_id()
    with pytest.raises(DomainError):
        await world.post(log, "mallory", change_id=change_id)
    got = await explained(world, log, change_id, "bob")
    assert got.outcome is DeliveryOutcome.NOT_COMMITTED
    accepted = fact(got, Step.ACCEPTED)
    assert (accepted.state, accepted.cause) == (NO, FactCause.REFUSED)
    assert "mallory" in accepted.text
    assert "CONVERSATION_NOT_FOUND" in accepted.text


async def test_a_position_that_is_not_there_yet(world: World, log: str) -> None:
    got = await explained(world, log, 2, "bob")
    assert got.outcome is DeliveryOutcome.NOT_COMMITTED
    committed = fact(got, Step.COMMITTED)
    assert (committed.cause, committed.seq) == (FactCause.AHEAD_OF_HEAD, 1)


async def test_a_conversation_that_is_not_there(world: World) -> None:
    got = await explained(world, world.new_id(), 1, "bob")
    assert got.outcome is DeliveryOutcome.NOT_COMMITTED
    assert fact(got, Step.COMMITTED).cause is FactCause.NO_SUCH_CONVERSATION


# Not for the user


async def test_memberships_decide(world: World, log: str) -> None:
    await world.post(log, "alice", "for the two")
    joined = await world.add(log, "alice", "carol")
    await world.post(log, "alice")
    left = await world.remove(log, "alice", "carol")
    await world.post(log, "alice", "behind her back")
    again = await world.add(log, "alice", "carol")
    for seq, state, cause, at in (
        (2, NO, FactCause.JOINED_LATER, joined),
        (joined, YES, FactCause.NONE, joined),
        (joined + 1, YES, FactCause.NONE, joined),
        (left, YES, FactCause.NONE, joined),
        (left + 1, NO, FactCause.REMOVED_BEFORE, left),
        (again, YES, FactCause.NONE, again),
    ):
        got = await explained(world, log, seq, "carol")
        visible = fact(got, Step.VISIBLE)
        assert (visible.state, visible.cause, visible.seq) == (state, cause, at)
        assert visible.source is FactSource.MEMBERSHIP
        assert (got.outcome is DeliveryOutcome.NOT_FOR_USER) == (state is NO)
    got = await explained(world, log, left + 1, "carol")
    assert f"joined again later, at {again}" in fact(got, Step.VISIBLE).text
    got = await explained(world, log, 2, "dave")
    assert got.outcome is DeliveryOutcome.NOT_FOR_USER
    assert fact(got, Step.VISIBLE).cause is FactCause.NEVER_A_MEMBER


# On its way


async def test_nobody_is_connected(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    await acknowledged(world, bob, log, 1)
    bob.session.close()
    left = world.clock.now_ms()
    await asyncio.sleep(60)
    change_id = world.new_id()
    await world.post(log, "alice", change_id=change_id)
    got = await explained(world, log, change_id, "bob", "tablet")
    assert got.outcome is DeliveryOutcome.OFFLINE
    assert got.entry is not None
    assert (got.entry.seq, got.entry.sender_user_id, got.entry.kind) == (2, "alice", "message")
    connected = fact(got, Step.CONNECTED)
    assert (connected.state, connected.cause) == (NO, FactCause.OFFLINE)
    assert connected.time_ms == left
    # A device that was here a moment ago is remembered, another one was named.
    phone = fact(got, Step.WRITTEN, "phone")
    assert (phone.state, phone.cause, phone.time_ms) == (NO, FactCause.OFFLINE, left)
    assert "CLIENT_LEFT" in phone.text
    assert fact(got, Step.ACKNOWLEDGED, "phone").seq == 1
    assert fact(got, Step.WRITTEN, "tablet").cause is FactCause.OFFLINE
    assert fact(got, Step.ACKNOWLEDGED, "tablet").seq == 0
    assert any(f.cause is FactCause.DEVICES_NOT_LISTED for f in got.facts)


async def test_the_whole_way(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    await acknowledged(world, bob, log, 1)
    await world.post(log, "alice")
    await until(lambda: bob.applied(log) == 2)
    got = await explained(world, log, 2, "bob")
    assert got.outcome is DeliveryOutcome.SENT
    committed = fact(got, Step.COMMITTED)
    assert (committed.state, committed.seq, committed.node_id) == (YES, 2, "local")
    published, offered = fact(got, Step.PUBLISHED), fact(got, Step.OFFERED)
    assert (published.state, published.source) == (YES, FactSource.TRACE)
    assert offered.state is YES
    assert committed.time_ms <= published.time_ms <= offered.time_ms
    written = fact(got, Step.WRITTEN, "phone")
    assert (written.state, written.session_id) == (YES, bob.session.id)
    pending = fact(got, Step.ACKNOWLEDGED, "phone")
    assert (pending.state, pending.cause, pending.seq) == (NO, FactCause.NOT_YET, 1)
    assert fact(got, Step.DELIVERED).state is NO
    # At once after the acknowledgement, which is not stored yet.
    bob.send(acks=[(log, 2)])
    got = await explained(world, log, 2, "bob")
    assert got.outcome is DeliveryOutcome.DELIVERED
    assert fact(got, Step.ACKNOWLEDGED, "phone").state is YES
    await asyncio.sleep(1)
    assert fact(await explained(world, log, 2, "bob"), Step.DELIVERED).state is YES
    await world.execute("bob", c.MarkRead(log, 2))
    got = await explained(world, log, 2, "bob")
    assert got.outcome is DeliveryOutcome.READ
    assert fact(got, Step.READ).source is FactSource.RECEIPT


async def test_what_is_durable_outlives_the_node(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    await world.post(log, "alice")
    await acknowledged(world, bob, log, 2)
    await world.restart()
    await asyncio.sleep(1)
    got = await explained(world, log, 2, "bob", "phone")
    assert got.outcome is DeliveryOutcome.DELIVERED
    for step in (Step.PUBLISHED, Step.OFFERED):
        forgotten = fact(got, step)
        assert (forgotten.state, forgotten.cause) == (UNKNOWN, FactCause.FORGOTTEN)
        assert got.entry is not None
        assert got.entry.commit_ms < forgotten.time_ms <= world.clock.now_ms()
    got_it = fact(got, Step.ACKNOWLEDGED, "phone")
    assert (got_it.state, got_it.source) == (YES, FactSource.CURSOR)
    assert "is not kept" in got_it.text


async def test_a_device_that_does_not_read(log: str, world: World) -> None:
    world = await World(limits=Limits(outbox_bytes=2_000), disk=world.disk).start()
    bob = world.device("bob")
    await bob.hello()
    bob.stop_reading()
    first = await world.post(log, "alice", "x" * 1_900)
    second = await world.post(log, "alice", "x" * 1_900)
    got = await explained(world, log, first, "bob")
    assert got.outcome is DeliveryOutcome.WAITING
    waiting = fact(got, Step.WRITTEN, "phone")
    assert (waiting.state, waiting.cause) == (UNKNOWN, FactCause.IN_OUTBOX)
    got = await explained(world, log, second, "bob")
    assert got.outcome is DeliveryOutcome.WAITING
    lagging = fact(got, Step.WRITTEN, "phone")
    assert (lagging.state, lagging.cause, lagging.seq) == (NO, FactCause.OUTBOX_FULL, first)
    bob.read_on()
    await until(lambda: bob.applied(log) == second)
    assert (await explained(world, log, second, "bob")).outcome is DeliveryOutcome.SENT
    await world.stop()


async def test_a_device_that_does_not_acknowledge(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello(window=3)
    for _ in range(3):
        await world.post(log, "alice")
    got = await explained(world, log, 4, "bob")
    assert got.outcome is DeliveryOutcome.WAITING
    waiting = fact(got, Step.WRITTEN, "phone")
    assert (waiting.state, waiting.cause, waiting.seq) == (NO, FactCause.WINDOW_FULL, 2)
    bob.send(acks=[(inbox_log("bob"), 1), (log, 2)])
    await until(lambda: bob.applied(log) == 4)
    got = await explained(world, log, 4, "bob")
    assert got.outcome is DeliveryOutcome.SENT
    # What held it up is told afterwards too.
    assert [n.text for n in got.notes] == [
        "opened",
        "fell behind: the device has too much to acknowledge",
        "was brought level",
    ]
    assert {(n.device_id, n.session_id) for n in got.notes} == {("phone", bob.session.id)}


async def test_a_device_that_misses_too_much_is_told_of_a_gap(world: World, log: str) -> None:
    bob = world.device("bob")
    await bob.hello()
    await acknowledged(world, bob, log, 1)
    bob.session.close()
    for _ in range(10):
        await world.post(log, "alice")
    bob = world.device("bob")
    await bob.hello({log: 1}, catch_up_limit=3)
    await acknowledged(world, bob, log, 11, start=1)
    got = await explained(world, log, 5, "bob")
    assert got.outcome is DeliveryOutcome.IN_A_GAP
    written = fact(got, Step.WRITTEN, "phone")
    assert (written.state, written.cause, written.seq) == (NO, FactCause.IN_A_GAP, 8)
    assert (await explained(world, log, 1, "bob")).outcome is DeliveryOutcome.DELIVERED
    assert (await explained(world, log, 9, "bob")).outcome is DeliveryOutcome.DELIVERED


async def test_a_device_without_cursors_has_no_gap_where_it_was_before(
    world: World, log: str
) -> None:
    bob = world.device("bob")
    await bob.hello()
    await world.post(log, "alice")
    await acknowledged(world, bob, log, 2)
    bob.session.close()
    bob = world.device("bob")
    await bob.hello()
    assert bob.of("gap"), "it named no cursor, and is told that there was something"
    assert (await explained(world, log, 2, "bob")).outcome is DeliveryOutcome.DELIVERED


async def test_a_device_that_has_just_connected(world: World, log: str) -> None:
    world.script.plan("user_logs", *[Happens.REFUSED] * 3)
    bob = world.device("bob")
    await bob.hello(synced=False)
    await asyncio.sleep(0.1)
    got = await explained(world, log, 1, "bob")
    assert got.outcome is DeliveryOutcome.WAITING
    assert fact(got, Step.WRITTEN, "phone").cause is FactCause.SYNCING
    await until(lambda: bob.of("sync_complete"))


async def test_a_device_that_catches_up(world: World, log: str) -> None:
    other = await beside_another(world)
    bob = Device(other, other.principal("bob"))
    await bob.hello()
    slots = other.node._services.catch_up_slots
    async with AsyncExitStack() as others:
        # Many sessions are brought level at once: this one waits for its turn.
        while not slots.locked():
            await others.enter_async_context(slots)
        await world.post(log, "alice")
        await world.post(log, "alice")
        # The bus has lost the pages, and brings the head.
        other.node.hub.on_publication(HeadPublished(log, 3))
        await asyncio.sleep(1)
        got = await explained(other, log, 2, "bob")
        assert got.outcome is DeliveryOutcome.WAITING
        written = fact(got, Step.WRITTEN, "phone")
        assert (written.state, written.cause) == (NO, FactCause.CATCHING_UP)
        assert written.seq == 1
        offered = [(f.node_id, f.cause) for f in got.facts if f.step is Step.OFFERED]
        assert offered == [("here", FactCause.NOT_FOLLOWED), ("there", FactCause.OTHER_NODE)]
    await until(lambda: bob.applied(log) == 3)
    assert (await explained(other, log, 2, "bob")).outcome is DeliveryOutcome.SENT
    await other.stop()


@pytest.mark.usefixtures("log")
async def test_an_inbox(world: World) -> None:
    bob = world.device("bob")
    await bob.hello()
    got = await explained(world, inbox_log("bob"), 1, "bob")
    assert got.outcome is DeliveryOutcome.SENT
    assert got.entry is not None
    assert got.entry.kind == "conversation_joined"
    assert fact(got, Step.DELIVERED).cause is FactCause.NOT_KEPT


# Other nodes


class TwoNodes(LocalLeases):
    """This node and another one, where some users are online."""

    def __init__(self, *online: str) -> None:
        super().__init__(NodeInfo("here"))
        self._users.update(online)

    def nodes(self) -> Mapping[str, NodeInfo]:
        return {**super().nodes(), "there": NodeInfo("there")}


async def beside_another(world: World, *online: str) -> World:
    """A node on the same store, which has been running for long."""
    other = World(disk=world.disk, shared=True, leases=TwoNodes(*online))
    other.node.trail._since_ms = 0
    return await other.start()


async def test_another_node_may_know_more(world: World, log: str) -> None:
    await world.post(log, "alice")
    other = await beside_another(world, "bob")
    got = await explained(other, log, 2, "bob", "phone")
    assert got.outcome is DeliveryOutcome.UNKNOWN, "a device of bob's may have it"
    committed = fact(got, Step.COMMITTED)
    assert (committed.node_id, committed.seq) == ("", 2), "a node that is not among those that live"
    assert fact(got, Step.OFFERED).state is NO
    assert fact(got, Step.WRITTEN, "phone").cause is FactCause.OTHER_NODE
    elsewhere = fact(got, Step.WRITTEN)
    assert (elsewhere.cause, elsewhere.node_id) == (FactCause.OTHER_NODE, "there")
    got = await explained(other, log, other.new_id(), "bob")
    nodes = [(f.node_id, f.cause) for f in got.facts if f.step is Step.ACCEPTED]
    assert nodes == [("here", FactCause.FORGOTTEN), ("there", FactCause.OTHER_NODE)]
    await other.stop()


async def test_the_node_that_committed_is_named(world: World, log: str) -> None:
    there = World(disk=world.disk, shared=True, leases=LocalLeases(NodeInfo("there")))
    await there.start()
    await there.post(log, "alice")
    other = await beside_another(world)
    got = await explained(other, log, 2, "bob")
    assert fact(got, Step.COMMITTED).node_id == "there"
    published = fact(got, Step.PUBLISHED)
    assert (published.state, published.cause) == (UNKNOWN, FactCause.OTHER_NODE)
    assert published.node_id == "there"
    for each in (there, other):
        await each.stop()


# Nodes that are asked


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    town = Town()
    for name in ("one", "two", "three"):
        await town.node(name)
    await settled()
    yield town
    town.silent.clear()
    await town.stop()


async def there(town: Town, home: str, *users: str) -> str:
    """A group whose home is a node."""
    world = town.worlds["one"]
    request, log = town.log_at(home, world, users[0])
    command = c.CreateConversation(ConversationKind.GROUP, users[1:], "T", world.change_id(request))
    await world.execute(users[0], command)
    return log


async def test_other_nodes_tell_what_they_know(town: Town) -> None:
    one, two = town.worlds["one"], town.worlds["two"]
    log = await there(town, "two", "alice", "bob")
    bob = two.device("bob")
    await bob.hello()
    await one.post(log, "alice")
    await until(lambda: bob.applied(log) == 2)
    got = await explained(one, log, 2, "bob")
    assert (got.outcome, got.node_id) == (DeliveryOutcome.SENT, "one")
    assert FactCause.OTHER_NODE not in {f.cause for f in got.facts}
    written = fact(got, Step.WRITTEN, "phone")
    assert (written.state, written.node_id) == (YES, "two")
    assert written.session_id == bob.session.id
    assert (Step.PUBLISHED, YES, "two") in {(f.step, f.state, f.node_id) for f in got.facts}
    offered = {f.node_id: f.state for f in got.facts if f.step is Step.OFFERED}
    assert offered == {"one": NO, "two": YES, "three": NO}
    assert "opened" in {note.text for note in got.notes}
    # The other one's device, by name: what this node can't say of it is said there.
    got = await explained(one, log, 2, "bob", "phone")
    assert [f.node_id for f in got.facts if f.step is Step.WRITTEN and f.state is YES] == ["two"]
    bob.send(acks=[(log, 2)])
    await settled()
    assert (await explained(one, log, 2, "bob")).outcome is DeliveryOutcome.DELIVERED


async def test_a_refusal_that_another_node_remembers(town: Town) -> None:
    one, two = town.worlds["one"], town.worlds["two"]
    log = await there(town, "one", "alice", "bob")
    message = two.message(log)
    await refusal(two, "mallory", message)
    got = await explained(one, log, message.id.text, "bob")
    assert got.outcome is DeliveryOutcome.NOT_COMMITTED
    refused = [f for f in got.facts if f.cause is FactCause.REFUSED]
    assert [(f.step, f.node_id) for f in refused] == [(Step.ACCEPTED, "two")]
    assert "mallory" in refused[0].text


async def test_who_does_not_answer_is_named(town: Town) -> None:
    one, two = town.worlds["one"], town.worlds["two"]
    log = await there(town, "one", "alice", "bob")
    bob = two.device("bob")
    await bob.hello()
    await one.post(log, "alice")
    town.silent.add("two")
    town.unreachable.add("three")
    began = asyncio.get_running_loop().time()
    got = await explained(one, log, 2, "bob")
    assert asyncio.get_running_loop().time() - began <= ANSWERED_WITHIN_S
    silent = {f.node_id for f in got.facts if f.cause is FactCause.OTHER_NODE}
    assert silent == {"two", "three"}
    got = await explained(one, log, one.new_id(), "bob")
    silent = {f.node_id for f in got.facts if f.cause is FactCause.OTHER_NODE}
    assert (got.outcome, silent) == (DeliveryOutcome.NOT_COMMITTED, {"two", "three"})


async def test_a_question_of_garbage(world: World) -> None:
    with pytest.raises(ValueError, match="WitnessRequest"):
        await world.node.witness(b"\xff")
    with pytest.raises(DomainError):
        await world.node.witness(b"")


# Honest about what can't be told


async def test_a_look_up_that_is_too_long(
    world: World, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings_server.messaging.lookup._MOST_PAGES", 2)
    monkeypatch.setattr("tidings_server.messaging.lookup._PAGES_AT_ONCE", 2)
    old = world.new_id()
    for _ in range(6):
        await world.post(log, "alice")
    await world.restart()
    await asyncio.sleep(3600)
    causes = []
    for _ in range(4):
        got = await explained(world, log, old, "bob")
        causes.append((got.outcome, fact(got, Step.COMMITTED).cause))
    # Who asks again gets further.
    given_up = (DeliveryOutcome.UNKNOWN, FactCause.LOOK_UP_TOO_LONG)
    assert causes[:3] == [given_up] * 3
    assert causes[3] == (DeliveryOutcome.NOT_COMMITTED, FactCause.ID_NOT_IN_LOG)


async def test_a_store_that_fails_is_no_answer(world: World, log: str) -> None:
    world.script.plan("presence", Happens.REFUSED)
    with pytest.raises(DomainError) as caught:
        await explained(world, log, 1, "bob")
    assert caught.value.reason is Reason.STORE_UNAVAILABLE
