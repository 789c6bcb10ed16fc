"""A database file is brought to this version's schema, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from tidings_server.storage.base import StoreCorrupt
from tidings_server.storage.migrations import Migration
from tidings_server.storage.sqlite.schema import (
    APPLICATION_ID,
    check_ours,
    known_migrations,
    migrate,
)

FIRST = Migration(1, "first", "CREATE TABLE one (a); CREATE TABLE two (a)")
SECOND = Migration(2, "second", "ALTER TABLE one ADD COLUMN b")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[apsw.Connection]:
    db = apsw.Connection(str(tmp_path / "test.db"))
    yield db
    db.close()


def tables(db: apsw.Connection) -> set[str]:
    rows = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    return {str(name) for (name,) in rows}


def test_the_steps_of_this_version_make_a_database(db: apsw.Connection) -> None:
    assert migrate(db) == len(known_migrations()) >= 1
    assert {"page", "bucket", "membership", "receipt", "presence"} <= tables(db)
    assert db.pragma("application_id") == APPLICATION_ID
    assert migrate(db) == 0
    check_ours(db)


def test_missing_steps_are_applied_in_order(db: apsw.Connection) -> None:
    assert migrate(db, (FIRST,)) == 1
    assert migrate(db, (FIRST, SECOND)) == 1
    assert migrate(db, (FIRST, SECOND)) == 0
    assert db.execute("SELECT a, b FROM one").fetchall() == []
    assert tables(db) == {"schema_migration", "one", "two"}


def test_a_step_that_fails_leaves_nothing(db: apsw.Connection) -> None:
    broken = Migration(2, "broken", "CREATE TABLE three (a); CREATE TABLE one (a)")
    with pytest.raises(apsw.SQLError):
        migrate(db, (FIRST, broken))
    assert tables(db) == {"schema_migration", "one", "two"}
    assert migrate(db, (FIRST, SECOND)) == 1


def test_a_newer_database_is_refused(db: apsw.Connection) -> None:
    migrate(db, (FIRST, SECOND))
    with pytest.raises(StoreCorrupt, match="schema version 2, this program knows 1"):
        migrate(db, (FIRST,))


def test_a_step_that_was_changed_is_refused(db: apsw.Connection) -> None:
    migrate(db, (FIRST,))
    changed = Migration(1, "first", f"{FIRST.text};")
    with pytest.raises(StoreCorrupt, match="another version of migration 1"):
        migrate(db, (changed, SECOND))


def test_the_database_of_another_program_is_refused(db: apsw.Connection) -> None:
    db.execute("CREATE TABLE theirs (a)")
    with pytest.raises(StoreCorrupt, match="another program"):
        migrate(db, (FIRST,))
    assert tables(db) == {"theirs"}
    with pytest.raises(StoreCorrupt, match="not a Tidings database"):
        check_ours(db)
