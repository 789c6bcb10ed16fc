"""The state file: what can't be used is refused, and let go of."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from tidings import FileStateStore, StateError


async def test_a_file_that_cannot_be_read_is_refused_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    store = FileStateStore(path)
    await store.open()
    await store.close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE outbox")
    db.close()
    async with asyncio.timeout(30):
        for _ in range(2):
            with pytest.raises(StateError, match="outbox"):
                await store.open()
