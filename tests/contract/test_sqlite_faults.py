"""The SQLite store on a failing disk: nothing acknowledged is lost, nothing refused comes back, it heals by itself."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import pytest

from tests.contract.faulty_vfs import (
    FaultyVFS,
    failed_read,
    failed_sync,
    failed_write,
    full,
)
from tests.contract.honest_client import Acknowledged, HonestClient, at_last
from tests.contract.media import new_id
from tests.contract.samples import append_of, fill, page
from tidings_server.storage.base import APPLIED, UNKNOWN, Conflict, Store, StoreUnavailable
from tidings_server.storage.sqlite import SqliteOptions, SqliteStore
from tidings_server.storage.sqlite.backup import verify

LOGS = ["log a", "log b", "log c"]
EVERYTHING = 1 << 40


@pytest.fixture
def vfs() -> Iterator[FaultyVFS]:
    vfs = FaultyVFS(random.Random(1))
    yield vfs
    vfs.unregister()


def options(path: Path, vfs: FaultyVFS | None) -> SqliteOptions:
    return SqliteOptions(
        path,
        vfs=None if vfs is None else vfs.name,
        checkpoint_pages=4,
        retry_first_s=0.001,
        retry_most_s=0.01,
        busy_ms=50,
    )


@asynccontextmanager
async def opened(path: Path, vfs: FaultyVFS | None) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(options(path, vfs), new_id=new_id)
    await store.open()
    try:
        yield store
    finally:
        if vfs is not None:
            vfs.fault = lambda _do, _what: None
        await store.close()


@dataclass
class FailAt:
    """Lets `times` things in a row fail, beginning with the `first` (from 1) of those that are like them."""

    dos: tuple[str, ...]
    make: Callable[[], Exception]
    first: int
    times: int = 1
    whats: tuple[str, ...] = ("db", "wal")
    seen: int = 0

    def __call__(self, do: str, what: str) -> Exception | None:
        if do not in self.dos or what not in self.whats:
            return None
        self.seen += 1
        return self.make() if self.first <= self.seen < self.first + self.times else None


def healthy(store: SqliteStore) -> bool:
    return store.counters.healthy


def never(_do: str, _what: str) -> None:
    return None


@dataclass
class EverythingFromASyncOn:
    """The next sync fails, and after it everything does, so that the files stay as they are then."""

    failing: bool = False

    def __call__(self, do: str, _what: str) -> Exception | None:
        self.failing |= do == "sync"
        return failed_sync() if self.failing and do != "read" else None


@dataclass
class PowerCuts:
    """Keeps what power cuts at some moments leave, with what the store owed by then."""

    vfs: FaultyVFS
    path: Path
    client: HonestClient
    images: list[tuple[Path, Acknowledged]] = field(default_factory=list)

    def cut(self) -> None:
        owed = self.client.so_far()
        target = self.path.parent / f"cut-{len(self.images)}" / "tidings.db"
        self.vfs.power_cut(self.path, target)
        self.images.append((target, owed))

    async def verify(self) -> None:
        for image, owed in self.images:
            async with opened(image, None) as store:
                await self.client.verify(store, owed=owed)


FAULTS = {
    "full": (("write",), full, 1),
    "full for long": (("write",), full, 8),
    "write error": (("write", "truncate"), failed_write, 1),
    "write errors for long": (("write", "truncate"), failed_write, 8),
    "sync error": (("sync",), failed_sync, 1),
    "sync errors for long": (("sync",), failed_sync, 5),
    "sync errors while opening fails too": (("sync", "open"), failed_sync, 6),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_whatever_step_fails(name: str, tmp_path: Path, vfs: FaultyVFS) -> None:
    dos, make, times = FAULTS[name]
    path = tmp_path / "tidings.db"
    rng = random.Random(name)
    async with opened(path, vfs) as store:
        client = HonestClient(store, LOGS)
        cuts = PowerCuts(vfs, path, client)
        first, failed = 0, True
        while failed:
            first += 1
            fault = FailAt(dos, make, first, times)
            after = rng.randrange(80)

            def fault_and_cut(
                do: str, what: str, fault: FailAt = fault, end: int = vfs.steps + after
            ) -> Exception | None:
                if vfs.steps == end:
                    cuts.cut()
                return fault(do, what)

            vfs.fault = fault_and_cut
            await client.work(3)
            vfs.fault = never
            failed = fault.seen >= first
            await client.verify()
        cuts.cut()
        assert store.counters.failures >= first - 1
        assert first > 5
        await store.check()
    async with opened(path, None) as store:
        await client.verify(store)
    await cuts.verify()


async def test_whenever_the_power_is_cut(tmp_path: Path, vfs: FaultyVFS) -> None:
    path = tmp_path / "tidings.db"
    async with opened(path, vfs) as store:
        client = HonestClient(store, LOGS)
        cuts = PowerCuts(vfs, path, client)

        def cut(do: str, _what: str) -> None:
            if do != "read":
                cuts.cut()

        vfs.fault = cut
        await client.work(5)
        vfs.fault = never
        assert store.counters.checkpoints > 0
    assert len(cuts.images) > 50
    await cuts.verify()


@pytest.mark.parametrize("seed", range(4))
async def test_what_a_killed_process_left_is_made_durable_before_it_is_shown(
    tmp_path: Path, seed: int
) -> None:
    """A sync fails, the process is killed, the next one shows what it finds.

    The power may be cut whenever it will: what was acknowledged or shown stays, and nothing is there in parts.
    """
    vfs = FaultyVFS(random.Random(seed))
    path = tmp_path / "tidings.db"
    async with opened(path, vfs) as store:
        pages = await fill(store, LOGS[0], [2, 2])
        vfs.fault = EverythingFromASyncOn()
        # The last to be written concerns an index that the log has nothing of so far.
        torn = page(5, 2, flags=1, body=bytes(9_000))
        assert await store.append(append_of(LOGS[0], torn)) is UNKNOWN
        vfs.killed(path, tmp_path / "next" / "tidings.db")
    cuts: list[Path] = []

    def cut(do: str = "", _what: str = "") -> None:
        if do != "read":
            cuts.append(tmp_path / f"cut-{len(cuts)}" / "tidings.db")
            vfs.power_cut(tmp_path / "next" / "tidings.db", cuts[-1])

    vfs.fault = cut
    async with opened(tmp_path / "next" / "tidings.db", vfs) as store:
        vfs.fault = never
        shown = await store.read(LOGS[0], 0, max_bytes=EVERYTHING)
        assert shown in (pages, [*pages, torn])
        cut()
    assert len(cuts) > 5
    found = []
    for image in cuts:
        async with opened(image, None) as store:
            found = await store.read(LOGS[0], 0, max_bytes=EVERYTHING)
            assert found in (pages, [*pages, torn])
        with closing(apsw.Connection(str(image))) as db:
            assert verify(db).entries == found[-1].last_seq
    # The last one was cut after it had been shown.
    assert found == shown
    vfs.unregister()


@pytest.mark.parametrize("seed", range(12))
async def test_a_definite_answer_outlives_a_power_cut_right_after_it(
    tmp_path: Path, seed: int
) -> None:
    """What became of a commit whose sync failed is settled once it is said, and once the store has healed."""
    rng = random.Random(seed)
    vfs = FaultyVFS(rng)
    path = tmp_path / "tidings.db"
    async with opened(path, vfs) as store:
        await fill(store, LOGS[0], [2, 2])
        vfs.fault = FailAt(("sync",), failed_sync, 1, rng.choice([1, 1, 2, 3]))
        request = append_of(LOGS[0], page(5, 2, body=bytes(rng.choice([10, 9_000]))))
        try:
            answer: object = await store.append(request)
        except StoreUnavailable:
            answer = StoreUnavailable
        if answer is UNKNOWN:
            await at_last(store.check)
        shown = await store.read(LOGS[0], 0, max_bytes=EVERYTHING)
        vfs.power_cut(path, tmp_path / "cut" / "tidings.db")
        there = shown[-1].commit_id == request.page.commit_id
        assert answer is UNKNOWN or (answer is APPLIED) == there
    async with opened(tmp_path / "cut" / "tidings.db", None) as store:
        assert await store.read(LOGS[0], 0, max_bytes=EVERYTHING) == shown
    vfs.unregister()


async def test_a_full_disk_refuses_writes_and_goes_on_reading(
    tmp_path: Path, vfs: FaultyVFS
) -> None:
    async with opened(tmp_path / "tidings.db", vfs) as store:
        pages = await fill(store, LOGS[0], [1, 1])
        vfs.fault = FailAt(("write",), full, 1, EVERYTHING)
        request = append_of(LOGS[0], page(3))
        assert await store.append(request) is UNKNOWN
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="SQLITE_FULL"):
                await store.append(append_of(LOGS[1], page(1)))
        with pytest.raises(StoreUnavailable, match="SQLITE_FULL"):
            await store.append(request)
        with pytest.raises(StoreUnavailable, match="SQLITE_FULL"):
            await store.check()
        with pytest.raises(StoreUnavailable, match="SQLITE_FULL"):
            await store.put_user_logs(LOGS[0], ["ann"])
        assert healthy(store) is False
        assert await store.read(LOGS[0], 0, max_bytes=EVERYTHING) == pages
        vfs.fault = never
        await at_last(store.check)
        assert healthy(store) is True
        assert await store.append(request) is APPLIED
        assert await store.append(append_of(LOGS[1], page(1))) is APPLIED
        assert await store.user_logs("ann") == []


async def test_a_failed_sync_is_unknown_until_the_store_has_healed(
    tmp_path: Path, vfs: FaultyVFS
) -> None:
    async with opened(tmp_path / "tidings.db", vfs) as store:
        await fill(store, LOGS[0], [1])
        vfs.fault = FailAt(("sync",), failed_sync, 1, EVERYTHING)
        requests = [append_of(LOGS[0], page(2)), append_of(LOGS[1], page(1))]
        answers = await asyncio.gather(
            *(store.append(request) for request in requests), return_exceptions=True
        )
        # They went together, or the second came when the store had failed.
        assert answers[0] is UNKNOWN
        assert answers[1] is UNKNOWN or isinstance(answers[1], StoreUnavailable)
        assert store.counters.unknown == sum(answer is UNKNOWN for answer in answers)
        with pytest.raises(StoreUnavailable):
            await store.check()
        vfs.fault = never
        await at_last(store.check)
        for request in requests:
            answer = await store.append(request)
            if isinstance(answer, Conflict):
                found = await store.read(request.log, request.expected_head, max_bytes=1)
                assert found == [request.page]
            else:
                assert answer is APPLIED
        assert {log: head.last_seq for log, head in (await store.heads(LOGS)).items()} == {
            LOGS[0]: 2,
            LOGS[1]: 1,
        }


async def test_a_single_failure_is_resolved_without_unknown(tmp_path: Path, vfs: FaultyVFS) -> None:
    """When the store heals at once it can tell what became of the append."""
    async with opened(tmp_path / "tidings.db", vfs) as store:
        await fill(store, LOGS[0], [1])
        vfs.fault = FailAt(("sync",), failed_sync, 1)
        request = append_of(LOGS[0], page(2))
        try:
            answer = await store.append(request)
        except StoreUnavailable:
            assert (await store.heads([LOGS[0]]))[LOGS[0]].last_seq == 1
        else:
            assert answer is APPLIED
            assert await store.read(LOGS[0], 1, max_bytes=1) == [request.page]
        assert (store.counters.failures, store.counters.recoveries) == (1, 1)
        assert store.counters.unknown == 0


async def test_a_failure_before_the_commit_is_no_unknown(tmp_path: Path, vfs: FaultyVFS) -> None:
    async with opened(tmp_path / "tidings.db", vfs) as store:
        await fill(store, LOGS[0], [1])
    async with opened(tmp_path / "tidings.db", vfs) as store:
        # The writer must look up the head of the log, and can't read.
        vfs.fault = FailAt(("read", "write", "open"), failed_read, 1, EVERYTHING)
        with pytest.raises(StoreUnavailable):
            await store.append(append_of(LOGS[0], page(2)))
        assert store.counters.unknown == 0
        vfs.fault = never
        await at_last(store.check)
        assert await store.append(append_of(LOGS[0], page(2))) is APPLIED


async def test_a_read_that_fails_is_refused_and_the_next_one_works(
    tmp_path: Path, vfs: FaultyVFS
) -> None:
    async with opened(tmp_path / "tidings.db", vfs) as store:
        content = page(1, body=bytes(100_000))
        await store.append(append_of(LOGS[0], content))
        vfs.fault = FailAt(("read",), failed_read, 1)
        with pytest.raises(StoreUnavailable):
            await store.read(LOGS[0], 0, max_bytes=EVERYTHING)
        assert store.counters.read_failures == 1
        assert await store.read(LOGS[0], 0, max_bytes=EVERYTHING) == [content]
        assert await store.append(append_of(LOGS[0], page(2))) is APPLIED
        assert store.counters.failures == 0


async def test_readers_open_nothing_while_the_writer_has_failed(
    tmp_path: Path, vfs: FaultyVFS
) -> None:
    """A new connection might see commits in the log that failed."""
    async with opened(tmp_path / "tidings.db", vfs) as store:
        content = page(1, body=bytes(100_000))
        await store.append(append_of(LOGS[0], content))
        vfs.fault = FailAt(("sync", "read"), failed_sync, 1, EVERYTHING)
        assert await store.append(append_of(LOGS[0], page(2))) is UNKNOWN
        with pytest.raises(StoreUnavailable):
            await store.read(LOGS[0], 0, max_bytes=EVERYTHING)
        vfs.fault = FailAt(("sync",), failed_sync, 1, EVERYTHING)
        with pytest.raises(StoreUnavailable, match="database failed"):
            await store.read(LOGS[0], 0, max_bytes=EVERYTHING)
        vfs.fault = never
        found = await at_last(lambda: store.read(LOGS[0], 0, max_bytes=EVERYTHING))
        assert found[0] == content


async def test_a_database_that_can_only_be_read_is_not_opened(
    tmp_path: Path, vfs: FaultyVFS
) -> None:
    path = tmp_path / "tidings.db"
    async with opened(path, vfs) as store:
        pages = await fill(store, LOGS[0], [1])
    vfs.readonly = True
    store = SqliteStore(options(path, vfs), new_id=new_id)
    # SQLite says that it is read-only, or that it can't open the log for writing.
    with pytest.raises(StoreUnavailable, match=r"READONLY|CANTOPEN"):
        await store.open()
    await store.close()
    vfs.readonly = False
    async with opened(path, vfs) as store:
        assert await store.read(LOGS[0], 0, max_bytes=EVERYTHING) == pages


async def test_a_database_that_becomes_readonly_is_written_again_when_it_can_be(
    tmp_path: Path, vfs: FaultyVFS
) -> None:
    async with opened(tmp_path / "tidings.db", vfs) as store:
        await fill(store, LOGS[0], [1])
        vfs.readonly = True
        vfs.fault = FailAt(("write",), failed_write, 1)
        request = append_of(LOGS[0], page(2))
        assert await store.append(request) is UNKNOWN
        with pytest.raises(StoreUnavailable, match="SQLITE_"):
            await store.append(append_of(LOGS[1], page(1)))
        vfs.readonly = False
        await at_last(store.check)
        assert await store.append(request) in (APPLIED, Conflict(2))
        assert (await store.heads([LOGS[0]]))[LOGS[0]].commit_id == request.page.commit_id


async def test_a_lock_of_another_program_refuses_writes(tmp_path: Path) -> None:
    path = tmp_path / "tidings.db"
    async with opened(path, None) as store:
        await fill(store, LOGS[0], [1])
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="BUSY"):
            await store.append(append_of(LOGS[0], page(2)))
        with pytest.raises(StoreUnavailable, match="BUSY"):
            await store.check()
        other.execute("ROLLBACK")
        other.close()
        assert await store.append(append_of(LOGS[0], page(2))) is APPLIED
        assert store.counters.failures == 0


async def test_what_was_decided_in_a_failed_transaction_is_forgotten(
    tmp_path: Path, vfs: FaultyVFS
) -> None:
    """Appends that follow on each other go into one transaction; when it fails none of them is believed."""

    async def outcomes(store: Store) -> list[object]:
        requests = [append_of(LOGS[0], page(seq)) for seq in (2, 3, 4, 3)]
        return await asyncio.gather(
            *(store.append(request) for request in requests), return_exceptions=True
        )

    async with opened(tmp_path / "tidings.db", vfs) as store:
        await fill(store, LOGS[0], [1])
        vfs.fault = FailAt(("write",), full, 1, EVERYTHING)
        for outcome in await outcomes(store):
            assert outcome is UNKNOWN or isinstance(outcome, StoreUnavailable)
        vfs.fault = never
        await at_last(store.check)
        assert await outcomes(store) == [APPLIED, APPLIED, APPLIED, Conflict(4)]
