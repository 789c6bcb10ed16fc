"""Every store keeps the whole contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.keyspaces import Keyspaces
from tests.contract.media import Medium, MemoryMedium, SqliteMedium
from tests.contract.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def medium(self) -> Medium:
        return MemoryMedium()


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def medium(self, tmp_path: Path) -> Medium:
        return SqliteMedium(tmp_path)


class TestScyllaStore(StoreContract):
    """On a real Cassandra."""

    @pytest.fixture
    def medium(self, keyspaces: Keyspaces) -> Medium:
        return keyspaces.take()
