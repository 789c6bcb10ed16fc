"""The contract of stores: intents, and heads of which nothing is under way any more."""

from __future__ import annotations

import asyncio

from tests.contract.contract_base import OnAMedium
from tests.contract.contract_rows import USERS_IN_ORDER
from tests.contract.samples import LOG, OTHER, append_of, page
from tidings_server.core.pages import BUCKET_SIZE, MAX_PAGE_ENTRIES
from tidings_server.storage.base import Store


async def all_intents(store: Store, node_id: str) -> dict[int, list[str]]:
    return {
        round_: await store.intents(node_id, round_, after="", limit=10_000)
        for round_ in await store.intent_rounds(node_id)
    }


class IntentContract(OnAMedium):
    async def test_intents_are_found_by_node_and_round(self, store: Store) -> None:
        assert await store.intent_nodes() == []
        assert await store.intent_rounds("one") == []
        assert await store.intents("one", 1, after="", limit=9) == []
        await store.put_intents("one", 7, [LOG, OTHER, LOG])
        await store.put_intents("one", 10, [LOG])
        await store.put_intents("one", 7, [LOG])
        await store.put_intents("one", 8, [])
        await store.put_intents("other", 0, [OTHER])
        assert sorted(await store.intent_nodes()) == ["one", "other"]
        assert await all_intents(store, "one") == {7: sorted([LOG, OTHER]), 10: [LOG]}
        assert await all_intents(store, "other") == {0: [OTHER]}

    async def test_logs_of_a_round_are_listed_in_code_point_order(self, store: Store) -> None:
        await store.put_intents("one", 3, list(reversed(USERS_IN_ORDER)))
        assert await store.intents("one", 3, after="", limit=100) == USERS_IN_ORDER
        assert await store.intents("one", 3, after="", limit=0) == []
        for n, name in enumerate(USERS_IN_ORDER):
            assert (
                await store.intents("one", 3, after=name, limit=2) == USERS_IN_ORDER[n + 1 : n + 3]
            )

    async def test_many_intents_at_once(self, store: Store) -> None:
        logs = sorted(f"log-{n}" for n in range(1_000))
        await asyncio.gather(
            store.put_intents("one", 5, logs[:700]), store.put_intents("one", 5, logs[500:])
        )
        assert await all_intents(store, "one") == {5: logs}

    async def test_rounds_are_cleared_up_to_one(self, store: Store) -> None:
        for round_ in (2, 3, 4, 9):
            await store.put_intents("one", round_, [LOG, OTHER])
        await store.put_intents("other", 2, [LOG])
        await store.clear_intents("one", 3)
        await store.clear_intents("one", 3)
        await store.clear_intents("nobody", 3)
        assert list(await all_intents(store, "one")) == [4, 9]
        assert sorted(await store.intent_nodes()) == ["one", "other"]
        await store.clear_intents("one", 8)
        # It goes on in later rounds, also when there was nothing left.
        await store.put_intents("one", 9, [LOG])
        assert await all_intents(store, "one") == {9: sorted([LOG, OTHER])}
        await store.clear_intents("one", 9)
        assert await store.intent_nodes() == ["other"]
        assert await store.intents("one", 9, after="", limit=9) == []
        await store.put_intents("one", 10, [OTHER])
        assert sorted(await store.intent_nodes()) == ["one", "other"]
        assert await all_intents(store, "one") == {10: [OTHER]}
        assert await all_intents(store, "other") == {2: [LOG]}

    async def test_clearing_old_rounds_leaves_a_node_that_went_on(self, store: Store) -> None:
        """Who clears may know of less than there is."""
        await store.put_intents("one", 5, [LOG])
        await store.put_intents("one", 6, [LOG])
        await store.clear_intents("one", 5)
        assert await store.intent_nodes() == ["one"]
        assert await all_intents(store, "one") == {6: [LOG]}

    async def test_settled_heads_are_the_heads(self, store: Store) -> None:
        for log, pages in ((LOG, 3), (OTHER, 1)):
            for n in range(pages):
                await store.append(append_of(log, page(n + 1)))
        first = 1
        while first <= BUCKET_SIZE:
            await store.append(append_of("long", page(first, MAX_PAGE_ENTRIES)))
            first += MAX_PAGE_ENTRIES
        await store.append(append_of("long", page(first, 2)))
        logs = [LOG, OTHER, "long", "nowhere"]
        found = await store.settled_heads(logs)
        assert {log: head.last_seq for log, head in found.items()} == {
            LOG: 3,
            OTHER: 1,
            "long": BUCKET_SIZE + 2,
        }
        assert found == await store.heads(logs)
