"""What operators see of nodes, sessions and conversations, and how they drain a node."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from tests.unit.neighbours import Town
from tests.unit.world import World, settled, until
from tidings_server.core import admin as a
from tidings_server.core import commands as c
from tidings_server.core.entries import ConversationKind
from tidings_server.core.ids import inbox_log
from tidings_server.core.principal import ADMIN_SCOPE, Principal
from tidings_server.delivery.hub import Hub
from tidings_server.errors import DomainError, Reason
from tidings_server.presence.base import NodeInfo
from tidings_server.presence.local import LocalLeases
from tidings_server.storage.memory import Happens

pytestmark = pytest.mark.virtual_time

OPERATOR = Principal("operator", "cli", 1 << 60, frozenset({"other", ADMIN_SCOPE}))
ME = NodeInfo("m", "10.0.0.1:1", "1.2")


class ThreeNodes(LocalLeases):
    def __init__(self) -> None:
        super().__init__(ME)

    def nodes(self) -> Mapping[str, NodeInfo]:
        others = {"z": NodeInfo("z", "10.0.0.2:1"), "a": NodeInfo("a", version="1.1")}
        return {**super().nodes(), **others}


@pytest.fixture
async def one() -> World:
    """One node of three."""
    return await World(leases=ThreeNodes()).start()


async def ask(world: World, command: a.AdminCommand) -> c.Result:
    return await world.node.handlers.execute(OPERATOR, command)


async def refused(world: World, command: a.AdminCommand) -> tuple[Reason, str]:
    with pytest.raises(DomainError) as caught:
        await ask(world, command)
    return caught.value.reason, caught.value.field


async def sessions(world: World, user: str = "", size: int = 100) -> list[a.SessionView]:
    """All pages."""
    found: list[a.SessionView] = []
    token = ""
    while True:
        got = await ask(world, a.ListSessions(user, size, token))
        assert isinstance(got, a.SessionsListed)
        assert len(got.sessions) <= size
        found += got.sessions
        token = got.next_page_token
        if not token:
            return found


async def test_nodes(one: World) -> None:
    log = await one.group("alice", "bob")
    for user, device in (("alice", "phone"), ("alice", "desk"), ("bob", "phone")):
        await one.device(user, device).hello()
    got = await ask(one, a.ListNodes())
    assert isinstance(got, a.NodesListed)
    others = a.NodeView("a", "", "1.1"), a.NodeView("z", "10.0.0.2:1", "")
    assert (got.nodes[0], got.nodes[2]) == others
    me = got.nodes[1]
    assert (me.node_id, me.address, me.version, me.draining) == ("m", "10.0.0.1:1", "1.2", False)
    assert me.load is not None
    assert (me.load.sessions, me.load.users) == (3, 2)
    # The group and the two inboxes.
    assert me.load.followed_logs == 3
    assert me.load.loaded_logs >= 3
    await one.post(log, "alice")
    await one.stop()


async def test_sessions(one: World) -> None:
    log = await one.group("alice", "bob")
    opened = one.clock.now_ms()
    devices = [one.device("alice", f"device-{i}") for i in range(5)]
    for device in devices:
        await device.hello(window=9)
    bob = one.device("bob")
    await bob.hello()
    got = await ask(one, a.ListSessions("", 100, ""))
    assert isinstance(got, a.SessionsListed)
    assert got.other_node_ids == ("a", "z")
    for size in (1, 2, 3, 100):
        found = await sessions(one, "", size)
        assert [s.session_id for s in found] == sorted(d.session.id for d in (*devices, bob))
    (his,) = await sessions(one, "bob")
    assert (his.session_id, his.user_id, his.device_id) == (bob.session.id, "bob", "phone")
    assert (his.node_id, his.syncing, his.lagging_logs) == ("m", False, 0)
    assert opened <= his.open_ms <= one.clock.now_ms()
    assert his.token_expire_ms == bob.session.principal.expires_at_ms
    assert his.logs == 2
    assert his.unacknowledged == 2
    hers = await sessions(one, "alice")
    assert {s.window for s in hers} == {9}
    assert await sessions(one, "carol") == []
    for _ in range(10):
        await one.post(log, "bob")
    assert {s.lagging_logs for s in await sessions(one, "alice")} == {1}
    assert {s.unacknowledged for s in await sessions(one, "alice")} == {9}
    await one.stop()


async def test_a_page_of_sessions_looks_at_no_others(
    one: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = [one.device(f"user-{i}") for i in range(60)]
    for device in devices:
        await device.hello(synced=False)
    # Another session of a device ends the one before.
    devices[7] = one.device("user-7")
    await devices[7].hello(synced=False)
    devices[9].session.close()
    ids = sorted(d.session.id for d in devices if d is not devices[9])
    monkeypatch.setattr(Hub, "sessions", property(lambda _: pytest.fail("all are looked at")))
    found: list[str] = []
    token = ""
    while True:
        got = await ask(one, a.ListSessions("", 7, token))
        assert isinstance(got, a.SessionsListed)
        found += [s.session_id for s in got.sessions]
        token = got.next_page_token
        if not token:
            break
    monkeypatch.undo()
    assert found == ids
    for device in devices:
        device.session.close()
    assert not one.node.hub.sessions_after("", 100)
    await one.stop()


async def test_a_conversation(one: World) -> None:
    created = one.clock.now_ms()
    log = await one.group("alice", "bob", "carol")
    bob = one.device("bob")
    await bob.hello()
    await asyncio.sleep(60)
    await one.post(log, "alice")
    bob.send(acks=[(log, 1)])
    got = await ask(one, a.GetConversationState(log))
    assert isinstance(got, a.ConversationStateGot)
    state = got.state
    assert (state.log, state.head_seq, state.message_count) == (log, 2, 1)
    assert state.head_ms == one.clock.now_ms()
    assert (state.pending, state.home_node_id, state.following) == ((), "m", 1)
    assert state.loaded == a.LoadedState(ConversationKind.GROUP, 3, created, read_only=False)
    assert got.sessions == (a.Following(bob.session.id, "bob", "phone", 2, 1, lagging=False),)
    assert got.other_node_ids == ("a", "z")
    inbox = await ask(one, a.GetConversationState(inbox_log("bob")))
    assert isinstance(inbox, a.ConversationStateGot)
    assert (inbox.state.head_seq, inbox.state.following) == (1, 1)
    assert inbox.state.loaded == a.LoadedState(None, 0, 0, read_only=False)
    absent = await refused(one, a.GetConversationState(one.new_id()))
    assert absent == (Reason.CONVERSATION_NOT_FOUND, "conversation_id")
    await one.stop()


async def test_effects_that_are_not_written_are_seen(world: World) -> None:
    world.script.plan("put_memberships", *[Happens.REFUSED] * 5)
    creating = asyncio.ensure_future(world.group("alice", "bob"))
    await until(lambda: world.script.calls["put_memberships"] > 1)
    (log,) = await world.store.user_logs("alice")
    got = await ask(world, a.GetConversationState(log))
    assert isinstance(got, a.ConversationStateGot)
    assert got.state.pending == (1,)
    await creating
    await until(lambda: world.script.calls["put_memberships"] > 5)


async def test_conversations_are_listed(one: World) -> None:
    logs = [await one.group("alice", f"user-{i}") for i in range(5)]
    await one.restart()
    await one.device("user-3").hello()

    async def listed(user: str, size: int) -> list[a.LogStanding]:
        found: list[a.LogStanding] = []
        token = ""
        while True:
            got = await ask(one, a.ListConversationStates(user, size, token))
            assert isinstance(got, a.ConversationStatesListed)
            assert len(got.states) <= size
            found += got.states
            token = got.next_page_token
            if not token:
                return found

    for size in (1, 2, 100):
        assert [s.log for s in await listed("alice", size)] == sorted(logs)
        # What sessions here follow.
        followed = [s.log for s in await listed("", size)]
        assert followed == sorted([logs[3], inbox_log("user-3")])
    assert await listed("nobody", 100) == []
    # Nothing is loaded for it.
    before = {s.log for s in await listed("alice", 100) if s.loaded is not None}
    assert logs[0] not in before
    await one.post(logs[0], "alice")
    after = {s.log for s in await listed("alice", 100) if s.loaded is not None}
    assert after == {*before, logs[0]}
    await one.stop()


async def test_homes_are_told_and_a_node_that_drains_is_none() -> None:
    town = Town()
    one, two = await town.node("one"), await town.node("two")
    await settled()
    request, log = town.log_at("two", one, "alice")
    create = c.CreateConversation(ConversationKind.GROUP, ("bob",), "T", one.change_id(request))
    await one.execute("alice", create)
    await one.post(log, "alice")

    async def home() -> str:
        got = await ask(one, a.GetConversationState(log))
        assert isinstance(got, a.ConversationStateGot)
        return got.state.home_node_id

    assert await home() == "two"
    told = await ask(one, a.ExplainDelivery(log, 2, None, "bob", ()))
    assert isinstance(told, a.DeliveryExplained)
    assert told.facts[0].step is a.DeliveryStep.COMMITTED
    assert told.facts[0].node_id == "two", "it was sent to one, and its home is two"
    await ask(two, a.DrainNode("", 0))
    await settled()
    assert await home() == "one"
    assert await one.post(log, "alice") == 3
    told = await ask(two, a.ExplainDelivery(log, 3, None, "bob", ()))
    assert isinstance(told, a.DeliveryExplained)
    assert told.facts[0].node_id == "one"
    await town.stop()


async def test_a_drain(one: World) -> None:
    assert await refused(one, a.DrainNode("nobody", 0)) == (Reason.INVALID_FIELD, "node_id")
    assert await refused(one, a.DrainNode("z", 0)) == (Reason.OTHER_NODE, "node_id")
    assert not one.node.draining.is_set()
    bob = one.device("bob")
    await bob.hello()
    for node_id in ("m", ""):
        assert await ask(one, a.DrainNode(node_id, 5000)) == a.NodeDrained("m", 1)
    assert one.node.draining.is_set()
    await until(lambda: len(bob.of("going_away")) == 2)
    assert all(0 <= e.going_away.reconnect_delay_ms <= 5000 for e in bob.of("going_away"))
    # Whoever stays is served, nobody comes any more.
    log = await one.group("alice", "bob")
    await until(lambda: bob.applied(log) == 1)
    carol = one.device("carol")
    await carol.hello(synced=False)
    await until(lambda: carol.of("session_ended"))
    got = await ask(one, a.ListNodes())
    assert isinstance(got, a.NodesListed)
    assert [n.draining for n in got.nodes] == [None, True, None]
    await one.stop()
