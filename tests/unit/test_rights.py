"""Who may do what: docs/rights.md is what is found, and no operation is missing from it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit import rights
from tests.unit.world import World, refusal
from tidings_server.errors import Reason
from tidings_server.operations.access import RULES, Access

pytestmark = pytest.mark.virtual_time

PAGE = Path(__file__).parents[2] / "docs" / "rights.md"
WRITE = "TIDINGS_WRITE_RIGHTS"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World().start()
    yield world
    await world.stop()


async def test_the_documentation_is_what_is_found(world: World) -> None:
    tables = [rights.written(await rights.rows(world)), rights.elsewhere()]
    page = PAGE.read_text()
    parts = page.split("<!-- found -->\n")
    assert len(parts) == 2 * len(tables) + 1, "each table stands between two marks"
    for at, table in enumerate(tables):
        parts[2 * at + 1] = f"{table}\n"
    found = "<!-- found -->\n".join(parts)
    if os.environ.get(WRITE):
        PAGE.write_text(found)
    assert page == found, f"{WRITE}=1 writes what is found; look at what changed"


def test_every_operation_is_in_the_table() -> None:
    named = {operation.partition(":")[0] for operation in rights.OPERATIONS}
    asked = {name for name, _ in rights.requests()}
    assert not named & set(rights.ELSEWHERE)
    assert named | set(rights.ELSEWHERE) == asked | {"Chat"}


def test_every_method_has_a_rule() -> None:
    methods = {path.rpartition("/")[2]: rule for path, rule in RULES.items() if "tidings" in path}
    assert {name for name, rule in methods.items() if rule is Access.ADMIN} == rights.operators()
    users = {name for name, rule in methods.items() if rule is Access.USER}
    named = {operation.partition(":")[0] for operation in rights.OPERATIONS}
    assert users <= named | set(rights.ELSEWHERE)


@pytest.mark.parametrize("operation", rights.OPERATIONS)
async def test_a_stranger_learns_nothing(world: World, operation: str) -> None:
    there = await rights.place(world, "stranger")
    absent = replace(there, log=world.new_id())
    change = world.new_id()
    told = []
    for at in (there, absent):
        if operation in ("GetUnread", "JoinConversation: by an invitation"):
            told.append(await rights.outcome(world, at, operation))
            continue
        command = world.node.reader.read(rights.OPERATIONS[operation](at, change))
        problem = await refusal(world, rights.ME, command)
        assert problem.reason is Reason.CONVERSATION_NOT_FOUND
        told.append(repr((problem, problem.metadata, problem.retry_after_ms)))
    assert (told[0] == told[1]) is (operation != "JoinConversation: by an invitation")
