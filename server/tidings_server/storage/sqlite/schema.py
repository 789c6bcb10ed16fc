"""Brings a database file to this version's schema, or refuses it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

import apsw

from tidings_server.storage.base import StoreCorrupt

APPLICATION_ID = 0x5444_4E47
"""In the header of each database file: "TDNG"."""

_NAME = re.compile(r"(\d{4})_(\w+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema. The checksum is the SHA-256 of the SQL text."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """What identifies the step's content."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


@cache
def known_migrations() -> tuple[Migration, ...]:
    """The steps of this version, by number, from 1 without gaps."""
    found = []
    for file in resources.files("tidings_server.storage.sqlite.migrations").iterdir():
        named = _NAME.fullmatch(file.name)
        if named:
            found.append(Migration(int(named[1]), named[2], file.read_text("utf-8")))
    found.sort(key=lambda m: m.number)
    assert [m.number for m in found] == list(range(1, len(found) + 1))
    return tuple(found)


def migrate(db: apsw.Connection, known: tuple[Migration, ...] | None = None) -> int:
    """Applies the steps that are missing, each in a transaction of its own, and gives their number.

    Raises StoreCorrupt when the file is another program's, is of a newer version, or was made by other steps.
    """
    known = known_migrations() if known is None else known
    _claim(db)
    applied = db.execute(
        "SELECT number, name, checksum FROM schema_migration ORDER BY number"
    ).fetchall()
    if len(applied) > len(known):
        raise StoreCorrupt(
            f"the database has schema version {applied[-1][0]}, this program knows {len(known)}: "
            "use the newer program, or restore a backup"
        )
    for row, step in zip(applied, known, strict=False):
        if row != (step.number, step.name, step.checksum):
            raise StoreCorrupt(
                f"the database was made by another version of migration {step.number}"
            )
    missing = known[len(applied) :]
    for step in missing:
        with db:
            db.execute(step.sql)
            db.execute(
                "INSERT INTO schema_migration (number, name, checksum) VALUES (?, ?, ?)",
                (step.number, step.name, step.checksum),
            )
    return len(missing)


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
