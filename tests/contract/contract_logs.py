"""The contract of stores: logs."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import pytest

from tests.contract.contract_base import MEGABYTE, OnAMedium, all_pages
from tests.contract.samples import INBOX, LOG, OTHER, append_of, fill, membership, page
from tidings_server.core.pages import BUCKET_SIZE, Page, PageFlag
from tidings_server.storage.base import (
    APPLIED,
    Append,
    Conflict,
    CursorRow,
    Head,
    PageIds,
    Receipt,
    Snapshot,
    Store,
)


def bad_appends() -> list[tuple[str, Append]]:
    good = append_of(LOG, page(1, 2))
    first = good.page
    late = page(BUCKET_SIZE - 1, 3)
    return [
        ("not after the expected head", replace(good, expected_head=1, snapshot=None)),
        ("no entry", replace(good, page=replace(first, count=0, ids=b""))),
        ("an id too few", replace(good, page=replace(first, ids=first.ids[:16]))),
        ("half an id", replace(good, page=replace(first, ids=first.ids[:-8]))),
        ("two buckets", Append(LOG, BUCKET_SIZE - 2, late)),
        ("no snapshot for a bucket", replace(good, snapshot=None)),
        ("a snapshot in a bucket", Append(LOG, 1, page(2), (), b"state")),
        ("a short commit id", replace(good, page=replace(first, commit_id=b"short"))),
        ("a rewritten page", replace(good, page=replace(first, rev=1))),
    ]


class LogContract(OnAMedium):
    # Appending

    async def test_a_log_without_pages_has_nothing(self, store: Store) -> None:
        assert await store.heads([LOG]) == {}
        assert await store.snapshot(LOG) is None
        assert await store.read(LOG, 0, max_bytes=MEGABYTE) == []
        assert await store.read_back(LOG, 10, max_bytes=MEGABYTE) == []
        assert await store.read_flagged(LOG, 0, 7, limit=10) == []
        assert await store.read_ids(LOG, before=10, min_stamp=0, max_pages=10) == []

    async def test_an_append_at_the_head_is_applied_as_it_was_given(self, store: Store) -> None:
        first = page(1, 3, flags=5, ordinal=2, stamp=77)
        second = page(4, 2, flags=0, ordinal=4, stamp=77, body=b"")
        assert await store.append(append_of(LOG, first, [2])) is APPLIED
        assert await store.heads([LOG]) == {LOG: Head(3, 2, 77, first.commit_id, (2,))}
        assert await store.append(append_of(LOG, second, [2, 4])) is APPLIED
        assert await store.heads([LOG]) == {LOG: Head(5, 4, 77, second.commit_id, (2, 4))}
        assert await all_pages(store, LOG) == [first, second]

    async def test_pending_is_replaced_by_each_append(self, store: Store) -> None:
        for seq, pending in enumerate([(), tuple(range(1, 400)), (1,), ((1 << 40) + 1,), ()], 1):
            await store.append(append_of(LOG, page(seq), pending))
            assert (await store.heads([LOG]))[LOG].pending == pending

    @pytest.mark.parametrize("expected", [0, 1, 2, 3, 4, 6, 7, 105, 9_999, 10_000])
    async def test_an_append_elsewhere_is_refused_and_writes_nothing(
        self, store: Store, expected: int
    ) -> None:
        pages = await fill(store, LOG, [1, 2, 2])
        before = await store.heads([LOG])
        answer = await store.append(append_of(LOG, page(expected + 1), [expected + 1]))
        assert answer == Conflict(5)
        assert await store.heads([LOG]) == before
        assert await all_pages(store, LOG) == pages
        assert await store.snapshot(LOG) == Snapshot(0, b"state at 0")

    @pytest.mark.parametrize("expected", [1, 10_000])
    async def test_an_append_beyond_an_empty_log_is_refused(
        self, store: Store, expected: int
    ) -> None:
        assert await store.append(append_of(LOG, page(expected + 1))) == Conflict(0)
        assert await store.heads([LOG]) == {}
        assert await store.snapshot(LOG) is None
        assert await store.append(append_of(LOG, page(1))) is APPLIED

    async def test_an_append_repeated_is_refused_and_known_by_its_commit_id(
        self, store: Store
    ) -> None:
        await fill(store, LOG, [2])
        request = append_of(LOG, page(3, 4))
        assert await store.append(request) is APPLIED
        await fill(store, LOG, [1], start=7)
        assert await store.append(request) == Conflict(7)
        (found, _) = await store.read(LOG, request.expected_head, max_bytes=MEGABYTE)
        assert (found.first_seq, found.commit_id) == (3, request.page.commit_id)

    @pytest.mark.parametrize(
        "request_", [r for _, r in bad_appends()], ids=[n for n, _ in bad_appends()]
    )
    async def test_a_bad_append_is_refused_at_once(self, store: Store, request_: Append) -> None:
        with pytest.raises(ValueError, match=r"page|snapshot|id"):
            store.append(request_)
        assert await store.heads([LOG]) == {}

    async def test_logs_are_independent(self, store: Store) -> None:
        logs = [LOG, OTHER, INBOX, "inbox:ann", "inbox:Ann", "ann"]
        pages = {log: await fill(store, log, [n, 1]) for n, log in enumerate(logs, 1)}
        heads = await store.heads([*logs, "inbox:nobody", LOG])
        assert {log: head.last_seq for log, head in heads.items()} == {
            log: n + 1 for n, log in enumerate(logs, 1)
        }
        for log in logs:
            assert await all_pages(store, log) == pages[log]

    async def test_appends_to_many_logs_at_once(self, store: Store) -> None:
        logs = [f"log-{n}" for n in range(300)]
        for seq in (1, 2, 3):
            answers = await asyncio.gather(
                *(store.append(append_of(log, page(seq, body=log.encode()))) for log in logs)
            )
            assert answers == [APPLIED] * len(logs)
        heads = await store.heads(logs)
        assert {log: heads[log].last_seq for log in logs} == dict.fromkeys(logs, 3)
        for log in logs[::50]:
            assert [p.body for p in await all_pages(store, log)] == [log.encode()] * 3

    async def test_of_two_appends_at_one_position_one_is_applied(self, store: Store) -> None:
        for seq in range(1, 30):
            rivals = [append_of(LOG, page(seq)), append_of(LOG, page(seq))]
            answers = await asyncio.gather(*(store.append(rival) for rival in rivals))
            assert sorted(map(str, answers)) == sorted(map(str, [APPLIED, Conflict(seq)]))
            head = (await store.heads([LOG]))[LOG]
            winner = rivals[answers.index(APPLIED)]
            assert (head.last_seq, head.commit_id) == (seq, winner.page.commit_id)

    async def test_appends_and_puts_at_once(self, store: Store) -> None:
        await asyncio.gather(
            store.append(append_of(LOG, page(1))),
            store.put_cursors([CursorRow("ann", "phone", LOG, 1)]),
            store.append(append_of(OTHER, page(1))),
            store.put_memberships(LOG, [membership("ann", 1)]),
            store.put_cursors([CursorRow("bob", "phone", LOG, 2), CursorRow("ann", "pc", LOG, 3)]),
            store.put_receipts([Receipt(LOG, "ann", 1)]),
            store.check(),
            store.append(append_of(OTHER, page(7))),
        )
        assert set(await store.heads([LOG, OTHER])) == {LOG, OTHER}
        assert await store.cursors("ann", "phone") == {LOG: 1}
        assert await store.cursors("bob", "phone") == {LOG: 2}
        assert await store.cursors("ann", "pc") == {LOG: 3}
        assert set(await store.memberships(LOG, ["ann"])) == {"ann"}

    async def test_reads_see_what_was_answered_before(self, store: Store) -> None:
        for seq in range(1, 50):
            content = page(seq)
            await store.append(append_of(LOG, content))
            await store.put_cursors([CursorRow("ann", "phone", LOG, seq)])
            assert (await store.heads([LOG]))[LOG].last_seq == seq
            assert await store.read(LOG, seq - 1, max_bytes=1) == [content]
            assert await store.cursors("ann", "phone") == {LOG: seq}

    async def test_reads_while_others_append_have_no_gaps(self, store: Store) -> None:
        async def write() -> None:
            await fill(store, LOG, [1, 3, 2] * 20)

        writing = asyncio.create_task(write())
        seen = 0
        while seen < 120:
            pages = await all_pages(store, LOG)
            starts = list(itertools.accumulate((p.count for p in pages), initial=1))
            assert [p.first_seq for p in pages] == starts[:-1]
            assert starts[-1] - 1 >= seen
            seen = starts[-1] - 1
            await asyncio.sleep(0)
        await writing

    async def test_large_pages_are_kept_as_they_are(self, store: Store) -> None:
        full = page(1, 100, body=bytes(range(256)) * 512)
        small = page(101, body=b"\0")
        for content in (full, small):
            assert await store.append(append_of(LOG, content)) is APPLIED
        assert await all_pages(store, LOG) == [full, small]
        assert (await store.heads([LOG]))[LOG].last_seq == 101

    async def test_cancelling_who_waits_undoes_nothing(self, store: Store) -> None:
        async def wait_for(future: asyncio.Future[object]) -> None:
            await future

        waiting = asyncio.create_task(wait_for(store.append(append_of(LOG, page(1)))))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        waiting.cancel()
        rows = [membership(f"user-{n}", 1) for n in range(200)]
        putting = asyncio.create_task(store.put_memberships(LOG, rows))
        await asyncio.sleep(0)
        putting.cancel()
        await asyncio.gather(waiting, putting, return_exceptions=True)
        async with asyncio.timeout(20):
            # A store need not do things in their order, and tells nobody else when they are done.
            users = [r.user_id for r in rows]
            while not await store.heads([LOG]) or len(await store.memberships(LOG, users)) < 200:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert (await store.heads([LOG]))[LOG].last_seq == 1
        assert await store.append(append_of(LOG, page(2))) is APPLIED

    # Reading

    async def test_read_gives_the_pages_that_hold_the_positions(self, store: Store) -> None:
        a, b, c, d = await fill(store, LOG, [3, 1, 4, 2])  # 1-3, 4, 5-8, 9-10
        expected = {
            0: [a, b, c, d],
            2: [a, b, c, d],
            3: [b, c, d],
            4: [c, d],
            7: [c, d],
            8: [d],
            9: [d],
            10: [],
            11: [],
        }
        for after, pages in expected.items():
            assert await store.read(LOG, after, max_bytes=MEGABYTE) == pages, after
        bounded = {
            (0, 0): [],
            (0, 1): [a],
            (0, 3): [a],
            (0, 4): [a, b],
            (3, 3): [],
            (3, 4): [b],
            (3, 5): [b, c],
            (4, 9): [c, d],
            (5, 6): [c],
            (7, 5): [c],
            (8, 5): [],
            (9, 100): [d],
            (10, 100): [],
        }
        for (after, upto), pages in bounded.items():
            found = await store.read(LOG, after, max_bytes=MEGABYTE, upto=upto)
            assert found == pages, (after, upto)

    async def test_read_back_gives_them_from_the_newest(self, store: Store) -> None:
        a, b, c, d = await fill(store, LOG, [3, 1, 4, 2])
        expected = {
            100: [d, c, b, a],
            11: [d, c, b, a],
            10: [d, c, b, a],
            9: [c, b, a],
            6: [c, b, a],
            5: [b, a],
            4: [a],
            2: [a],
            1: [],
            0: [],
        }
        for before, pages in expected.items():
            assert await store.read_back(LOG, before, max_bytes=MEGABYTE) == pages, before

    async def test_reading_stops_before_max_bytes_but_gives_a_page(self, store: Store) -> None:
        pages = [page(n, body=bytes(size)) for n, size in enumerate([10, 20, 0, 30], 1)]
        for content in pages:
            await store.append(append_of(LOG, content))
        for max_bytes, count in [(0, 1), (9, 1), (10, 1), (29, 1), (30, 3), (59, 3), (60, 4)]:
            assert await store.read(LOG, 0, max_bytes=max_bytes) == pages[:count], max_bytes
        back = pages[::-1]
        for max_bytes, count in [(0, 1), (29, 1), (30, 2), (49, 2), (50, 3), (59, 3), (60, 4)]:
            assert await store.read_back(LOG, 5, max_bytes=max_bytes) == back[:count], max_bytes

    async def test_read_flagged_finds_each_flag(self, store: Store) -> None:
        state, removal, personal = PageFlag.STATE, PageFlag.REMOVAL, PageFlag.PERSONAL
        flags = [0, state, 0, state | removal, personal, 0, state | personal]
        pages = []
        at = 1
        for flag in flags:
            pages.append(page(at, 2, flags=int(flag)))
            await store.append(append_of(LOG, pages[-1]))
            at += 2
        _, b, _, d, e, _, g = pages  # 3, 7, 9, 13

        async def found(after: int, flag: int, limit: int = 10) -> list[Page]:
            return await store.read_flagged(LOG, after, flag, limit=limit)

        assert await found(0, state) == [b, d, g]
        assert await found(0, removal) == [d]
        assert await found(0, personal) == [e, g]
        assert await found(0, removal | personal) == [d, e, g]
        assert await found(0, state, limit=2) == [b, d]
        assert await found(0, state, limit=0) == []
        assert await found(2, state) == [b, d, g]
        # A page that begins at or before `after` is left out, even if it goes on behind it.
        assert await found(3, state) == [d, g]
        assert await found(12, state) == [g]
        assert await found(13, state) == []
        assert await found(0, 8) == []

    async def test_read_ids_gives_the_newest_that_are_recent_enough(self, store: Store) -> None:
        stamps = [100, 100, 105, 110, 110]
        pages = []
        for n, stamp in enumerate(stamps):
            pages.append(page(3 * n + 1, 3, stamp=stamp))
            await store.append(append_of(LOG, pages[-1]))
        ids = [PageIds(p.first_seq, p.stamp, p.ids) for p in reversed(pages)]  # 13, 10, 7, 4, 1

        async def found(before: int, min_stamp: int, max_pages: int) -> list[PageIds]:
            return await store.read_ids(
                LOG, before=before, min_stamp=min_stamp, max_pages=max_pages
            )

        assert await found(100, 0, 100) == ids
        assert await found(14, 0, 100) == ids
        assert await found(13, 0, 100) == ids[1:]
        assert await found(1, 0, 100) == []
        assert await found(100, 105, 100) == ids[:3]
        assert await found(100, 106, 100) == ids[:2]
        assert await found(100, 111, 100) == []
        assert await found(100, 0, 2) == ids[:2]
        assert await found(10, 100, 1) == [ids[2]]
        assert await found(100, 0, 0) == []

    async def test_snapshots_are_taken_at_bucket_borders(self, store: Store) -> None:
        await fill(store, LOG, [1])
        assert await store.snapshot(LOG) == Snapshot(0, b"state at 0")
        await fill(store, LOG, [99, *[100] * 98, 99], start=2)
        assert await store.snapshot(LOG) == Snapshot(0, b"state at 0")
        await fill(store, LOG, [1], start=BUCKET_SIZE)
        assert await store.snapshot(LOG) == Snapshot(0, b"state at 0")
        border = append_of(LOG, page(BUCKET_SIZE + 1, 100), [9])
        assert border.snapshot is not None
        assert await store.append(border) is APPLIED
        assert await store.snapshot(LOG) == Snapshot(BUCKET_SIZE, b"state at 10000")
        assert (await store.heads([LOG]))[LOG].last_seq == BUCKET_SIZE + 100
        assert await store.append(border) == Conflict(BUCKET_SIZE + 100)
        await fill(store, OTHER, [1])
        assert await store.snapshot(OTHER) == Snapshot(0, b"state at 0")
        # Reading goes over the border.
        pages = await store.read(LOG, BUCKET_SIZE - 50, max_bytes=MEGABYTE)
        assert [p.first_seq for p in pages] == [BUCKET_SIZE - 99, BUCKET_SIZE, BUCKET_SIZE + 1]
        pages = await store.read_back(LOG, BUCKET_SIZE + 2, max_bytes=1)
        assert [p.first_seq for p in pages] == [BUCKET_SIZE + 1]

    async def test_a_snapshot_may_be_empty(self, store: Store) -> None:
        await store.append(Append(LOG, 0, page(1), (), b""))
        assert await store.snapshot(LOG) == Snapshot(0, b"")

    async def test_heads_of_many_logs(self, store: Store) -> None:
        logs = [f"log-{n}" for n in range(2_000)]
        await asyncio.gather(
            *(store.append(append_of(log, page(1, body=b"x"))) for log in logs[::2])
        )
        heads = await store.heads(logs)
        assert sorted(heads) == sorted(logs[::2])
        assert {head.last_seq for head in heads.values()} == {1}
        assert await store.heads([]) == {}
