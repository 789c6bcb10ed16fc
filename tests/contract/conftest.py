"""Failed assertions of the shipped contract are explained like those of test modules; and keyspaces for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite(
    "tests.contract.bus_contract",
    "tests.contract.contract_base",
    "tests.contract.contract_intents",
    "tests.contract.contract_life",
    "tests.contract.contract_logs",
    "tests.contract.contract_rows",
    "tests.contract.honest_client",
    "tests.contract.leases_contract",
    "tests.contract.store_machine",
)

if TYPE_CHECKING:
    from tests.contract.keyspaces import Keyspaces
    from tools.stack.cassandra import CassandraNodes


@pytest.fixture(scope="session")
def all_keyspaces(cassandra: CassandraNodes) -> Iterator[Keyspaces]:
    from tests.contract.keyspaces import Keyspaces  # noqa: PLC0415  # after the rewriting above

    keyspaces = Keyspaces(cassandra.port)
    yield keyspaces
    keyspaces.close()


@pytest.fixture
def keyspaces(all_keyspaces: Keyspaces) -> Keyspaces:
    """All of them, none handed out."""
    all_keyspaces.reset()
    return all_keyspaces
