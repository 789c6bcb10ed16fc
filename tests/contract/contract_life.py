"""The contract of stores: opening, closing, and histories."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.contract.contract_base import OnAMedium, all_pages, calls, everything
from tests.contract.media import Medium
from tests.contract.samples import LOG, OTHER, append_of, fill, page
from tidings_server.storage.base import (
    APPLIED,
    Conflict,
    CursorRow,
    Store,
    StoreUnavailable,
)


class LifeContract(OnAMedium):
    # Opening and closing

    async def test_what_was_answered_outlives_the_store(self, medium: Medium) -> None:
        store = medium.store()
        await store.open()
        for name, call in calls():
            if name.startswith("put_"):
                await call(store)
        pages = await fill(store, LOG, [1, 100, 3])
        before = await everything(store)
        incarnation = store.incarnation
        await store.close()
        again = medium.store()
        await again.open()
        assert again.incarnation == incarnation
        assert await everything(again) == before
        assert await all_pages(again, LOG) == pages
        assert await again.append(append_of(LOG, page(9))) == Conflict(104)
        assert await again.append(append_of(LOG, page(105))) is APPLIED
        await again.close()

    async def test_closing_finishes_what_was_begun(self, medium: Medium) -> None:
        store = medium.store()
        await store.open()
        appends = [store.append(append_of(f"log-{n}", page(1))) for n in range(100)]
        putting = asyncio.create_task(store.put_cursors([CursorRow("ann", "phone", LOG, 1)]))
        await asyncio.sleep(0)
        await store.close()
        assert [future.result() for future in appends] == [APPLIED] * 100
        await putting
        again = medium.store()
        await again.open()
        assert len(await again.heads([f"log-{n}" for n in range(100)])) == 100
        assert await again.cursors("ann", "phone") == {LOG: 1}
        await again.close()

    async def test_a_store_may_be_closed_twice_and_before_it_is_open(self, medium: Medium) -> None:
        store = medium.store()
        await store.close()
        store = medium.store()
        await store.open()
        await asyncio.gather(store.close(), store.close())
        await store.close()

    @pytest.mark.parametrize("call", [c for _, c in calls()], ids=[n for n, _ in calls()])
    async def test_a_closed_store_answers_nothing(
        self, medium: Medium, call: Callable[[Store], Awaitable[object]]
    ) -> None:
        store = medium.store()
        with pytest.raises(StoreUnavailable):
            await call(store)
        await store.open()
        await call(store)
        await store.close()
        with pytest.raises(StoreUnavailable):
            await call(store)

    async def test_check_says_that_the_store_can_be_written(self, store: Store) -> None:
        await store.check()
        await store.check()

    # Histories

    async def test_an_incarnation_is_one_history(self, medium: Medium, store: Store) -> None:
        assert store.incarnation
        assert store.stamp_floor == 0
        assert store.history_since(store.incarnation) is None
        assert store.history_since("another") is None

    async def test_a_restored_store_is_another_history(self, medium: Medium, store: Store) -> None:
        await store.append(append_of(LOG, page(1, stamp=500)))
        await store.append(append_of(OTHER, page(1, stamp=700)))
        await store.append(append_of(LOG, page(2, 2, stamp=600)))
        for name, call in calls():
            if name.startswith("put_"):
                await call(store)
        before = await everything(store)
        other = medium.restored_elsewhere()
        await store.append(append_of(LOG, page(4, stamp=9_000)))
        restored = other.store()
        await restored.open()
        assert restored.incarnation not in {"", store.incarnation}
        assert restored.history_since(store.incarnation) == 701
        assert restored.history_since(restored.incarnation) is None
        assert restored.stamp_floor == 701
        assert await everything(restored) == before
        assert await restored.append(append_of(LOG, page(4, stamp=701))) is APPLIED

        # Once more, from the restored one: both earlier histories are known.
        twice = other.restored_elsewhere().store()
        await twice.open()
        assert twice.incarnation not in {"", store.incarnation, restored.incarnation}
        assert twice.history_since(store.incarnation) == 701
        assert twice.history_since(restored.incarnation) == 702
        assert twice.stamp_floor == 702
        await twice.close()

        incarnation = restored.incarnation
        await restored.close()
        again = other.store()
        await again.open()
        assert again.incarnation == incarnation
        assert again.stamp_floor == 701
        await again.close()
