"""A real server for each test, in this process, on a SQLite store of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.streams.raw import Server, server_on


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server with nothing in it."""
    async with server_on(tmp_path) as running:
        yield running
