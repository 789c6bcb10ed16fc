"""Reactions: counts, one's own, who; and that they are exact, whatever fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.unit.test_messages_delete import deleted
from tests.unit.test_messages_edit import edited, states
from tests.unit.world import World, refusal
from tidings_server.core import commands as c
from tidings_server.core.entries import ReactionSet
from tidings_server.core.overlays import MAX_REACTIONS
from tidings_server.errors import Reason
from tidings_server.storage.memory import Happens

pytestmark = pytest.mark.virtual_time


@pytest.fixture(params=[False, True], ids=["alone", "shared"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world = await World(shared=request.param).start()
    yield world
    await world.stop()


def reaction(world: World, log: str, seq: int, text: str, *, change_id: str = "") -> c.SetReaction:
    return c.SetReaction(log, world.change_id(change_id), seq, text)


async def react(world: World, user: str, log: str, seq: int, text: str) -> int:
    got = await world.execute(user, reaction(world, log, seq, text))
    assert isinstance(got, c.MessageChanged)
    return got.seq


async def counts(world: World, user: str, log: str, seq: int) -> tuple[dict[str, int], str]:
    state = (await states(world, user, log)).get(seq)
    if state is None:
        return {}, ""
    return {r.reaction: r.count for r in state.reactions}, state.own_reaction


async def who(world: World, user: str, log: str, seq: int, size: int = 2) -> dict[str, str]:
    found: dict[str, str] = {}
    token = ""
    while True:
        got = await world.execute(user, c.ListReactions(log, seq, size, token))
        assert isinstance(got, c.ReactionsListed)
        assert len(got.reactions) <= size
        found.update(got.reactions)
        token = got.next_page_token
        if not token:
            return found


async def test_counts_own_and_who(world: World) -> None:
    log = await world.group("alice", "bob", "carol")
    seq = await world.post(log, "bob")
    await react(world, "alice", log, seq, "👍")
    await react(world, "bob", log, seq, "👍")
    await react(world, "carol", log, seq, "🎉")
    assert await counts(world, "alice", log, seq) == ({"👍": 2, "🎉": 1}, "👍")
    assert await counts(world, "carol", log, seq) == ({"👍": 2, "🎉": 1}, "🎉")
    assert await who(world, "bob", log, seq) == {"alice": "👍", "bob": "👍", "carol": "🎉"}
    await react(world, "alice", log, seq, "🎉")
    assert world.entries(log)[-1].body == ReactionSet(seq, "🎉", "👍")
    assert await counts(world, "alice", log, seq) == ({"🎉": 2, "👍": 1}, "🎉")
    await react(world, "alice", log, seq, "")
    await react(world, "carol", log, seq, "")
    assert await counts(world, "alice", log, seq) == ({"👍": 1}, "")
    assert await who(world, "carol", log, seq) == {"bob": "👍"}
    await edited(world, "bob", log, seq, "edited")
    assert await counts(world, "bob", log, seq) == ({"👍": 1}, "👍")


async def test_what_is_so_already_is_no_change(world: World) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "bob")
    assert await react(world, "alice", log, seq, "") == 0
    change = world.new_id()
    first = await world.execute("alice", reaction(world, log, seq, "👍", change_id=change))
    assert await react(world, "alice", log, seq, "👍") == 0
    await react(world, "alice", log, seq, "🎉")
    again = await world.execute("alice", reaction(world, log, seq, "👍", change_id=change))
    assert again == first, "the same id is the same change, whatever came later"
    assert await counts(world, "alice", log, seq) == ({"🎉": 1}, "🎉")
    other = reaction(world, log, seq, "👎", change_id=change)
    assert (await refusal(world, "alice", other)).reason is Reason.ID_REUSED


async def test_who_may_not(world: World) -> None:
    log = await world.group("alice", "bob", "carol")
    seq = await world.post(log, "bob")
    await world.add(log, "alice", "late")
    await world.remove(log, "alice", "carol")
    gone = await world.post(log, "bob")
    await react(world, "alice", log, gone, "👍")
    await deleted(world, "bob", log, gone)
    head = len(world.entries(log))
    for user, about, expected in [
        ("late", seq, Reason.MESSAGE_NOT_FOUND),
        ("late", 99, Reason.MESSAGE_NOT_FOUND),
        ("bob", 1, Reason.MESSAGE_NOT_FOUND),
        ("bob", gone, Reason.MESSAGE_NOT_FOUND),
        ("carol", seq, Reason.CONVERSATION_NOT_FOUND),
        ("stranger", seq, Reason.CONVERSATION_NOT_FOUND),
    ]:
        problem = await refusal(world, user, reaction(world, log, about, "👍"))
        assert problem.reason is expected, (user, about)
        if about not in (1, gone):
            listing = await refusal(world, user, c.ListReactions(log, about, 10, ""))
            assert listing.reason is expected, (user, about)
    assert len(world.entries(log)) == head
    assert await who(world, "bob", log, gone) == {}
    assert not world.disk.list_reactions(log, gone, "", 10), "nobody has reacted to it any more"
    (state,) = (await states(world, "alice", log)).values()
    assert state.deleted
    assert not state.reactions


async def test_so_many_different_ones_and_no_more(world: World) -> None:
    users = [f"user{n:03}" for n in range(MAX_REACTIONS + 1)]
    log = await world.group("alice", *users)
    seq = await world.post(log, "alice")
    for n, user in enumerate(users[:-1]):
        await react(world, user, log, seq, f"r{n}")
    problem = await refusal(world, users[-1], reaction(world, log, seq, "one too many"))
    assert problem.reason is Reason.REACTION_LIMIT
    await react(world, users[-1], log, seq, "r7")
    found, own = await counts(world, users[-1], log, seq)
    assert (len(found), found["r7"], own) == (MAX_REACTIONS, 2, "r7")


@pytest.mark.parametrize("method", ["put_overlays", "put_reactions"])
@pytest.mark.parametrize("happens", [Happens.REFUSED, Happens.UNSURE_DONE, Happens.UNSURE_LOST])
async def test_counts_are_exact_however_often_writing_fails(
    world: World, method: str, happens: Happens
) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "bob")
    for text in ("a", "b", "", "c"):
        world.script.plan(method, happens, happens)
        await react(world, "alice", log, seq, text)
        await react(world, "bob", log, seq, "b")
        expected: dict[str, int] = {"b": 1}
        if text:
            expected[text] = expected.get(text, 0) + 1
        assert await counts(world, "alice", log, seq) == (expected, text)


@pytest.mark.parametrize("method", ["put_overlays", "put_reactions"])
async def test_counts_are_exact_after_a_crash(world: World, method: str) -> None:
    log = await world.group("alice", "bob")
    seq = await world.post(log, "bob")
    await react(world, "alice", log, seq, "a")
    world.script.plan(method, *[Happens.REFUSED] * 50)
    await react(world, "alice", log, seq, "b")
    world.store.crash(lambda: False)
    world.script._planned.clear()
    world.node = world._make()
    await world.start()
    assert await counts(world, "alice", log, seq) == ({"b": 1}, "b")
    assert await who(world, "bob", log, seq) == {"alice": "b"}


async def test_counts_of_many_at_once_are_exact(world: World) -> None:
    users = [f"user{n}" for n in range(8)]
    log = await world.group("alice", *users)
    seq = await world.post(log, "alice")
    await asyncio.gather(
        *(react(world, user, log, seq, f"{n % 3}") for n in range(6) for user in users)
    )
    found, _ = await counts(world, "alice", log, seq)
    listed = await who(world, "alice", log, seq, 3)
    assert sum(found.values()) == len(listed) == len(users)
    assert found == {one: list(listed.values()).count(one) for one in set(listed.values())}
