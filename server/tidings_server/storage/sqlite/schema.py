"""Brings a database file to this version's schema, or refuses it."""

from __future__ import annotations

import apsw

from tidings_server.storage.base import StoreCorrupt
from tidings_server.storage.migrations import Migration, migrations_in, missing

APPLICATION_ID = 0x5444_4E47
"""In the header of each database file: "TDNG"."""


def known_migrations() -> tuple[Migration, ...]:
    """The steps of this version."""
    return migrations_in("tidings_server.storage.sqlite.migrations", "sql")


def migrate(db: apsw.Connection, known: tuple[Migration, ...] | None = None) -> int:
    """Applies the steps that are missing, each in a transaction of its own, and gives their number.

    Raises StoreCorrupt when the file is another program's, is of a newer version, or was made by other steps.
    """
    known = known_migrations() if known is None else known
    _claim(db)
    applied = db.execute(
        "SELECT number, name, checksum FROM schema_migration ORDER BY number"
    ).fetchall()
    due = missing(known, applied, "the database")
    for step in due:
        with db:
            db.execute(step.text)
            db.execute(
                "INSERT INTO schema_migration (number, name, checksum) VALUES (?, ?, ?)",
                (step.number, step.name, step.checksum),
            )
    return len(due)


def check_ours(db: apsw.Connection) -> None:
    """Raises StoreCorrupt when the file is not a database of this program in this version's schema."""
    try:
        if db.pragma("application_id") != APPLICATION_ID:
            raise StoreCorrupt(f"{db.filename} is not a Tidings database")
        numbers = db.execute("SELECT number FROM schema_migration ORDER BY number").fetchall()
    except (apsw.NotADBError, apsw.CorruptError) as problem:
        raise StoreCorrupt(f"{db.filename} is not a sound database: {problem}") from problem
    if len(numbers) > len(known_migrations()):
        raise StoreCorrupt(f"{db.filename} is of a newer version")


def _claim(db: apsw.Connection) -> None:
    if db.pragma("application_id") == APPLICATION_ID:
        return
    if db.execute("SELECT count(*) FROM sqlite_schema").get:
        raise StoreCorrupt(f"{db.filename} is the database of another program")
    with db:
        db.execute(
            "CREATE TABLE schema_migration ("
            "number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL) STRICT"
        )
        db.pragma("application_id", APPLICATION_ID)
