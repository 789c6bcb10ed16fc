"""The small parts of the SQLite store."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from tests.contract.samples import append_of, fill, page
from tidings_server.core.entries import Role
from tidings_server.core.memberships import Interval, Membership
from tidings_server.storage.base import (
    APPLIED,
    Conflict,
    CursorRow,
    StoreCorrupt,
    StoreUnavailable,
)
from tidings_server.storage.columns import (
    dump_details,
    dump_intervals,
    dump_positions,
    dump_role,
    load_membership,
    load_positions,
)
from tidings_server.storage.sqlite import SqliteOptions, SqliteStore
from tidings_server.storage.sqlite.connection import describe
from tidings_server.storage.sqlite.heads import HeadCache
from tidings_server.storage.sqlite.lock import FileLock
from tidings_server.storage.sqlite.statements import (
    CURSORS,
    ROWS_A_STATEMENT,
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(SqliteOptions(tmp_path / "tidings.db"), new_id=lambda: "history")
    await store.open()
    yield store
    await store.close()


# The cache of heads


def test_the_cache_keeps_those_used_last() -> None:
    cache = HeadCache(3)
    for n in range(100):
        cache.set(f"log-{n}", (n, n))
        assert cache.get("log-0") == (0, 0)
        for back in range(min(n, 2)):
            assert cache.get(f"log-{n - back}") == (n - back, n - back)
    assert cache.get("log-50") is None
    cache.set("log-0", (0, 7))
    assert cache.get("log-0") == (0, 7)
    cache.clear()
    assert cache.get("log-0") is None


def test_the_cache_is_bounded() -> None:
    cache = HeadCache(3)
    for n in range(100):
        cache.set(f"log-{n}", (n, n))
    assert 3 <= sum(cache.get(f"log-{n}") is not None for n in range(100)) <= 6


# The lock


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "db.lock"), FileLock(tmp_path / "db.lock")
    first.acquire()
    with pytest.raises(StoreUnavailable, match=f"process with id {os.getpid()} "):
        second.acquire()
    first.release()
    first.release()
    second.acquire()
    assert (tmp_path / "db.lock").read_text() == f"{os.getpid()}\n"
    second.release()


def test_a_lock_that_can_not_be_made_says_why(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="No such file"):
        FileLock(tmp_path / "nowhere" / "db.lock").acquire()


async def test_a_second_store_on_a_file_is_refused(store: SqliteStore, tmp_path: Path) -> None:
    second = SqliteStore(SqliteOptions(tmp_path / "tidings.db"), new_id=lambda: "another")
    with pytest.raises(StoreUnavailable, match="in use"):
        await second.open()
    await second.close()
    assert await store.append(append_of("log", page(1))) is APPLIED


# Files


async def test_the_files_are_private(store: SqliteStore, tmp_path: Path) -> None:
    await store.append(append_of("log", page(1)))
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in _files(tmp_path)}
    names = {"tidings.db", "tidings.db-wal", "tidings.db-shm", "tidings.db.lock"}
    assert modes == dict.fromkeys(names, 0o600)


def _files(directory: Path) -> list[Path]:
    return list(directory.iterdir())


async def test_a_directory_is_made(tmp_path: Path) -> None:
    options = SqliteOptions(tmp_path / "some" / "where" / "tidings.db")
    store = SqliteStore(options, new_id=lambda: "history")
    await store.open()
    await store.close()
    # Closed in order, all is in one file, but for the lock's.
    assert {file.name for file in _files(options.path.parent)} == {"tidings.db", "tidings.db.lock"}


@pytest.mark.parametrize("content", [b"this is text " * 1000, b"SQLite format 3\0" + bytes(9000)])
async def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tidings.db"
    path.write_bytes(content)
    store = SqliteStore(SqliteOptions(path), new_id=lambda: "history")
    with pytest.raises(StoreCorrupt, match="not a sound database"):
        await store.open()
    await store.close()
    assert path.read_bytes() == content


async def test_a_path_that_can_not_be_used_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "tidings.db", tmp_path):
        store = SqliteStore(SqliteOptions(path), new_id=lambda: "history")
        with pytest.raises(StoreUnavailable, match=str(tmp_path)):
            await store.open()
        await store.close()


async def test_a_store_that_was_not_opened_leaves_no_threads(
    store: SqliteStore, tmp_path: Path
) -> None:
    before = threading.active_count()
    second = SqliteStore(SqliteOptions(tmp_path / "tidings.db"), new_id=lambda: "another")
    with pytest.raises(StoreUnavailable):
        await second.open()
    async with asyncio.timeout(10):
        while threading.active_count() > before:  # noqa: ASYNC110  # a thread tells nobody of its end
            await asyncio.sleep(0.001)


async def test_opening_may_be_given_up(tmp_path: Path) -> None:
    options = SqliteOptions(tmp_path / "tidings.db")
    store = SqliteStore(options, new_id=lambda: "history")
    opening = asyncio.create_task(store.open())
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    with pytest.raises(StoreUnavailable):
        await store.check()
    await store.close()
    # Nothing holds the file any more.
    again = SqliteStore(options, new_id=lambda: "another")
    await again.open()
    await again.close()


# Transactions


async def test_what_waits_goes_together(store: SqliteStore) -> None:
    logs = [f"log-{n}" for n in range(400)]
    before = store.counters.transactions
    await asyncio.gather(
        *(store.append(append_of(log, page(1))) for log in logs),
        *(store.put_cursors([CursorRow("ann", "phone", log, 1)]) for log in logs),
    )
    # A few: the first are taken before the last are submitted.
    assert store.counters.transactions - before < 100
    assert store.counters.appends == 400
    assert store.counters.puts == 400
    assert store.counters.largest_batch > 8
    assert store.counters.commit_seconds >= store.counters.slowest_commit_seconds > 0


async def test_appends_that_follow_on_each_other_can_go_together(store: SqliteStore) -> None:
    requests = [append_of("log", page(seq)) for seq in [1, 2, 3, 3, 4, 9]]
    answers = await asyncio.gather(*map(store.append, requests))
    assert answers == [APPLIED, APPLIED, APPLIED, Conflict(3), APPLIED, Conflict(4)]
    assert store.counters.conflicts == 2


async def test_values_that_no_column_holds_are_refused_and_harm_nobody(store: SqliteStore) -> None:
    await fill(store, "log", [1])
    with pytest.raises(StoreUnavailable):
        await store.append(append_of("log", page(2, stamp=1 << 63)))
    with pytest.raises(StoreUnavailable):
        await store.append(append_of("log", page(2), pending=[-1]))
    with pytest.raises(StoreUnavailable):
        await store.put_cursors([CursorRow("ann", "phone", "log", 1 << 63)])
    assert await store.append(append_of("log", page(2))) is APPLIED
    assert store.counters.failures == 0
    assert store.counters.unavailable == 3


async def test_the_log_is_copied_when_it_is_long(tmp_path: Path) -> None:
    options = SqliteOptions(tmp_path / "tidings.db", checkpoint_pages=50)
    store = SqliteStore(options, new_id=lambda: "history")
    await store.open()
    for seq in range(1, 200):
        await store.append(append_of("log", page(seq, body=bytes(1_000))))
    assert store.counters.checkpoints > 2
    assert store.counters.checkpoint_seconds > 0
    # It is begun anew after each copying instead of growing on.
    assert (tmp_path / "tidings.db-wal").stat().st_size < 150 * 4200
    await store.close()


# Statements and encodings


@pytest.mark.parametrize("count", [0, 1, ROWS_A_STATEMENT, ROWS_A_STATEMENT + 1, 300])
def test_rows_are_written_in_few_statements(count: int) -> None:
    rows = [("ann", "phone", f"log-{n}", n) for n in range(count)]
    statements = CURSORS.statements(rows)
    assert len(statements) == -(-count // ROWS_A_STATEMENT)
    bound = [value for _, bindings in statements for value in bindings]
    assert bound == [value for row in rows for value in row]
    for text, bindings in statements:
        assert text.count("?") == len(bindings)


@pytest.mark.parametrize("positions", [(), (1,), (1, 2, 1 << 60)])
def test_positions_come_back(positions: tuple[int, ...]) -> None:
    assert load_positions(dump_positions(positions)) == positions


def test_intervals_come_back() -> None:
    stays = (Interval(1, 0, 7), Interval(9, 5))
    assert dump_intervals(stays) == "[[1, 0, 7], [9, 5, 0]]"
    assert load_membership("ann", 9, 2, dump_intervals(stays), "").intervals == stays


@pytest.mark.parametrize("role", Role)
def test_what_the_first_version_does_not_know_comes_back(role: Role) -> None:
    stays = (Interval(1, 0, 5), Interval(9, 4, from_seq=role % 2))
    known = Membership("ann", role, 9, stays, 17 * (role % 2), 18 * (role % 3))
    # The first version reads this column, and knows two roles.
    stored = dump_role(role)
    assert stored in (1, 2)
    again = load_membership("ann", 9, stored, dump_intervals(known.intervals), dump_details(known))
    assert again == known


def test_memberships_of_the_first_version_are_read() -> None:
    assert load_membership("ann", 9, 2, "[[1, 0, 0]]", None).role is Role.OWNER


def test_failures_are_called_by_their_names() -> None:
    assert describe(apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)) == "SQLITE_IOERR_FSYNC"
    assert describe(apsw.exception_for(apsw.SQLITE_FULL)) == "SQLITE_FULL"
    assert describe(OSError("why")) == "OSError: why"
