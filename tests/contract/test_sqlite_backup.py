"""Backups are taken while the store is written, and come back as another history."""

from __future__ import annotations

import asyncio
import shutil
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from tests.contract.media import SqliteMedium, new_id
from tests.contract.samples import LOG, OTHER, append_of, fill, page
from tidings_server.storage.base import StoreCorrupt, StoreUnavailable
from tidings_server.storage.sqlite import SqliteStore
from tidings_server.storage.sqlite.backup import Contents, backup, restore

EVERYTHING = 1 << 40


@pytest.fixture
def medium(tmp_path: Path) -> SqliteMedium:
    return SqliteMedium(tmp_path / "store")


@pytest.fixture
async def store(medium: SqliteMedium) -> AsyncIterator[SqliteStore]:
    store = medium.store()
    await store.open()
    yield store
    await store.close()


def partial_files(directory: Path) -> list[Path]:
    return list(directory.glob("*partial*"))


async def test_a_backup_is_one_moment_of_a_store_that_is_written(
    medium: SqliteMedium, store: SqliteStore, tmp_path: Path
) -> None:
    for seq in range(1, 101):
        await store.append(append_of(LOG, page(seq, body=bytes(100_000))))
    saved = tmp_path / "saved.db"
    copied: list[tuple[int, int]] = []
    written = threading.Event()

    def progress(done: int, total: int) -> None:
        # The next piece is copied after another commit.
        copied.append((done, total))
        written.clear()
        assert done == total or written.wait(20)

    before = (await store.heads([LOG]))[LOG].last_seq
    saving = asyncio.create_task(
        asyncio.to_thread(backup, medium.options.path, saved, progress=progress)
    )
    turn = 0
    while not saving.done():
        await fill(store, LOG, [7], start=before + 7 * turn + 1)
        turn += 1
        await fill(store, OTHER, [1], start=turn)
        written.set()
    contents = await saving
    assert contents.logs in {1, 2}
    assert len(copied) > 1
    assert copied[-1][0] == copied[-1][1]

    other = SqliteMedium(tmp_path / "restored")
    assert restore(saved, other.options.path, new_id=new_id) == contents
    restored = other.store()
    await restored.open()
    found = await restored.read(LOG, 0, max_bytes=EVERYTHING)
    pages = await store.read(LOG, 0, max_bytes=EVERYTHING)
    assert found == pages[: len(found)]
    assert before <= found[-1].last_seq <= pages[-1].last_seq
    beside = await restored.read(OTHER, 0, max_bytes=EVERYTHING)
    # Both logs as of one moment: pages were written to them in turns.
    assert len(found) - 100 - len(beside) in {0, 1}
    await restored.close()


async def test_a_backup_is_one_private_file(
    medium: SqliteMedium, store: SqliteStore, tmp_path: Path
) -> None:
    await fill(store, LOG, [3, 2])
    saved = tmp_path / "saves" / "saved.db"
    saved.parent.mkdir()
    contents = backup(medium.options.path, saved)
    assert contents == Contents(1, 5, saved.stat().st_size)
    assert [file.name for file in saved.parent.iterdir()] == ["saved.db"]
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert stat.S_IMODE(medium.options.path.stat().st_mode) == 0o600
    restore(saved, tmp_path / "r" / "tidings.db", new_id=new_id)
    assert stat.S_IMODE((tmp_path / "r" / "tidings.db").stat().st_mode) == 0o600


async def test_a_backup_put_in_place_by_hand_is_a_new_history_too(
    medium: SqliteMedium, store: SqliteStore, tmp_path: Path
) -> None:
    await fill(store, LOG, [3])
    saved = tmp_path / "saved.db"
    backup(medium.options.path, saved)
    other = SqliteMedium(tmp_path / "elsewhere")
    other.directory.mkdir()
    shutil.copyfile(saved, other.options.path)
    copy = other.store()
    await copy.open()
    assert copy.incarnation not in {"", store.incarnation}
    assert copy.history_since(store.incarnation) == page(1).stamp + 1
    await copy.close()


async def test_a_database_file_can_be_restored_from_without_a_backup(
    medium: SqliteMedium, store: SqliteStore, tmp_path: Path
) -> None:
    await fill(store, LOG, [3])
    old = store.incarnation
    await store.close()
    other = SqliteMedium(tmp_path / "elsewhere")
    restore(medium.options.path, other.options.path, new_id=new_id)
    copy = other.store()
    await copy.open()
    assert copy.incarnation != old
    assert copy.history_since(old) == page(1).stamp + 1
    await copy.close()


async def test_nothing_is_overwritten(
    medium: SqliteMedium, store: SqliteStore, tmp_path: Path
) -> None:
    saved = tmp_path / "saved.db"
    backup(medium.options.path, saved)
    before = saved.read_bytes()
    with pytest.raises(FileExistsError, match="exists"):
        backup(medium.options.path, saved)
    assert saved.read_bytes() == before
    # A store that has its database open, a database that nobody has open, and the rest of one.
    with pytest.raises(StoreUnavailable, match="in use"):
        restore(saved, medium.options.path, new_id=new_id)
    await store.close()
    with pytest.raises(FileExistsError, match="exists"):
        restore(saved, medium.options.path, new_id=new_id)
    rest = tmp_path / "rest.db"
    rest.with_name("rest.db-wal").write_bytes(b"a commit")
    with pytest.raises(FileExistsError, match=r"rest\.db-wal"):
        restore(saved, rest, new_id=new_id)
    assert not rest.exists()


async def test_what_is_no_sound_database_is_refused(
    medium: SqliteMedium, store: SqliteStore, tmp_path: Path
) -> None:
    await fill(store, LOG, [1] * 200)
    target = tmp_path / "target.db"
    with pytest.raises(StoreUnavailable, match="no database"):
        backup(tmp_path / "nothing.db", target)
    text = tmp_path / "text.db"
    text.write_text("this is text " * 1000)
    with pytest.raises(StoreCorrupt):
        restore(text, target, new_id=new_id)
    foreign = tmp_path / "foreign.db"
    apsw.Connection(str(foreign)).execute("CREATE TABLE page (log)")
    with pytest.raises(StoreCorrupt, match="not a Tidings database"):
        restore(foreign, target, new_id=new_id)
    saved = tmp_path / "saved.db"
    backup(medium.options.path, saved)
    newer = tmp_path / "newer.db"
    shutil.copyfile(saved, newer)
    with apsw.Connection(str(newer)) as db:
        db.execute("INSERT INTO schema_migration VALUES (99, 'later', '')")
    with pytest.raises(StoreCorrupt, match="newer version"):
        restore(newer, target, new_id=new_id)
    damaged = tmp_path / "damaged.db"
    content = bytearray(saved.read_bytes())
    for at in range(4096 * 8, len(content), 4096):
        content[at : at + 64] = bytes(64)
    damaged.write_bytes(content)
    with pytest.raises(StoreCorrupt):
        restore(damaged, target, new_id=new_id)
    gap = tmp_path / "gap.db"
    shutil.copyfile(saved, gap)
    with apsw.Connection(str(gap)) as db:
        db.execute("DELETE FROM page WHERE first_seq = 7")
    with pytest.raises(StoreCorrupt, match=f"log {LOG} has a gap before 8"):
        restore(gap, target, new_id=new_id)
    assert not target.exists()
    assert partial_files(tmp_path) == []
