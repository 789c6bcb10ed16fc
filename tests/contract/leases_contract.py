"""The contract of leases: what every implementation does, and what those between nodes do besides."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from tidings_server.presence.base import Leases, NodeInfo

PATIENCE_S = 20.0
STRANGE = "ångström-{\N{DESERET CAPITAL LETTER LONG I}}:on:x"


async def until(condition: Callable[[], object]) -> None:
    """Waits for a condition."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # what it looks at tells nobody
            await asyncio.sleep(0.005)


async def until_online(leases: Leases, users: set[str], *asked: str) -> None:
    """Waits until just these of those asked for are online."""
    await _until_true(lambda: _is_online(leases, users, asked or tuple(users)))


async def _is_online(leases: Leases, users: set[str], asked: tuple[str, ...]) -> bool:
    return await leases.online(asked) == users


async def _until_true(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110  # what it looks at tells nobody
            await asyncio.sleep(0.005)


class LeaseNet(ABC):
    """Where leases are held."""

    @abstractmethod
    async def node(self, name: str) -> Leases:
        """The leases as a node sees them, started."""

    @abstractmethod
    async def vanish(self, leases: Leases) -> None:
        """A node ends as if it was killed."""

    @abstractmethod
    async def close(self) -> None:
        """Stops all that have not ended."""


class LeasesContract:
    """What holds for one node."""

    @pytest.fixture
    def net(self) -> LeaseNet:
        pytest.fail("a subclass gives the net")

    @pytest.fixture
    async def one(self, net: LeaseNet) -> AsyncIterator[Leases]:
        yield await net.node("one")
        await net.close()

    async def test_nobody_is_online_at_first(self, one: Leases) -> None:
        assert await one.online(["ann", "bob"]) == set()
        assert await one.online([]) == set()

    async def test_coming_and_leaving(self, one: Leases) -> None:
        one.came("ann")
        one.came("ann")
        one.came(STRANGE)
        assert await one.online(["ann", STRANGE, "bob"]) == {"ann", STRANGE}
        one.left("ann")
        one.left("bob")
        assert await one.online(["ann", STRANGE, "bob"]) == {STRANGE}
        one.came("ann")
        assert await one.online(["ann"]) == {"ann"}

    async def test_it_knows_itself(self, one: Leases) -> None:
        assert one.nodes()["one"] == NodeInfo("one", "one.example:50051", "1")

    async def test_it_is_informed_once_it_has_its_lease(self, one: Leases) -> None:
        await until(lambda: one.informed)


class ManyNodesLeasesContract(LeasesContract):
    """What holds between nodes."""

    async def test_users_of_other_nodes(self, net: LeaseNet, one: Leases) -> None:
        two = await net.node("two")
        two.came("bob")
        two.came(STRANGE)
        one.came("ann")
        await until_online(one, {"ann", "bob", STRANGE}, "ann", "bob", STRANGE, "carol")
        await until_online(two, {"ann", "bob"}, "ann", "bob", "carol")
        two.left("bob")
        await until_online(one, {"ann", STRANGE}, "ann", "bob", STRANGE)

    async def test_a_user_at_two_nodes_is_online_until_both_are_left(
        self, net: LeaseNet, one: Leases
    ) -> None:
        two, three = await net.node("two"), await net.node("three")
        for leases in (two, three):
            leases.came("ann")
        await until_online(one, {"ann"})
        two.left("ann")
        two.came("end")
        await until_online(one, {"ann", "end"})
        three.left("ann")
        await until_online(one, {"end"}, "ann", "end")

    async def test_nodes_come_and_go(self, net: LeaseNet, one: Leases) -> None:
        changes: list[set[str]] = []
        one.nodes_changed = lambda: changes.append(set(one.nodes()))
        two = await net.node("two")
        await until(lambda: set(one.nodes()) == {"one", "two"})
        assert set(two.nodes()) == {"one", "two"}
        assert one.nodes()["two"] == NodeInfo("two", "two.example:50051", "1")
        await until(lambda: changes == [{"one", "two"}])
        await two.stop()
        await until(lambda: set(one.nodes()) == {"one"})
        await until(lambda: changes == [{"one", "two"}, {"one"}])

    async def test_the_users_of_a_node_that_stops_or_vanishes_are_gone(
        self, net: LeaseNet, one: Leases
    ) -> None:
        two, three = await net.node("two"), await net.node("three")
        two.came("bob")
        three.came("carol")
        await until_online(one, {"bob", "carol"})
        await two.stop()
        await until_online(one, {"carol"}, "bob", "carol")
        await net.vanish(three)
        await until_online(one, set(), "bob", "carol")
        await until(lambda: set(one.nodes()) == {"one"})

    async def test_those_whom_a_node_leaves_behind_are_seen_to(
        self, net: LeaseNet, one: Leases
    ) -> None:
        two, three = await net.node("two"), await net.node("three")
        seen: dict[str, float] = {}
        faults = 2

        async def left_behind(users: Sequence[str], ago_s: float) -> None:
            nonlocal faults
            if faults:
                faults -= 1
                raise RuntimeError("the store is away")
            seen.update(dict.fromkeys(users, ago_s))

        for leases in (one, two):
            leases.left_behind = left_behind
        users = {f"user-{i}" for i in range(600)}
        for user in (*users, "left before"):
            three.came(user)
        three.left("left before")
        await until_online(one, users, *users, "left before")
        await net.vanish(three)
        await until(lambda: len(seen) == 600)
        assert set(seen) == users
        assert all(0 <= ago < PATIENCE_S for ago in seen.values())
        await until_online(one, set(), *users)

    async def test_many_users(self, net: LeaseNet, one: Leases) -> None:
        two = await net.node("two")
        users = [f"user-{i}" for i in range(3000)]
        for user in users:
            two.came(user)
        await until_online(one, set(users))
        for user in users[:2999]:
            two.left(user)
        await until_online(one, {users[2999]}, *users)
