"""How SQLite answers the store's questions: it looks rows up, and scans no table."""

import re
from pathlib import Path

import apsw
import pytest

from tidings_server.storage.sqlite import queries
from tidings_server.storage.sqlite.schema import migrate

STATEMENTS = {
    name: text
    for name, text in vars(queries).items()
    if isinstance(text, str) and text.lstrip().startswith("SELECT")
}
OF_LISTS = [name for name, text in STATEMENTS.items() if "carray(" in text]


@pytest.fixture
def database(tmp_path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(tmp_path / "tidings.db"))
    migrate(connection)
    return connection


def plan(database: apsw.Connection, statement: str) -> list[str]:
    without_bindings = re.sub(r"\?\d*", "NULL", statement)
    return [row[-1] for row in database.execute(f"EXPLAIN QUERY PLAN {without_bindings}")]


def test_the_statements_are_found() -> None:
    assert {*OF_LISTS} == {
        "_HEADS",
        "_MEMBERSHIPS",
        "_MEMBERSHIPS_OF",
        "_REACTIONS_OF",
        "_RECEIPTS_OF",
        "_PRESENCE",
    }
    assert {"_READ", "_READ_BACK", "_READ_IDS", "_LIST_MEMBERSHIPS"} <= {*STATEMENTS}


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_table_is_scanned(database: apsw.Connection, name: str) -> None:
    scans = [step for step in plan(database, STATEMENTS[name]) if step.startswith("SCAN")]
    assert [step for step in scans if not step.startswith("SCAN asked ")] == []


@pytest.mark.parametrize("name", OF_LISTS)
def test_what_is_asked_for_is_looked_up(database: apsw.Connection, name: str) -> None:
    """SQLite would rather scan all members of a room, and the list once for each of them."""
    assert plan(database, STATEMENTS[name])[0].startswith("SCAN asked ")
