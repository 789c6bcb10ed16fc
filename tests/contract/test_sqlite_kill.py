"""A process that is killed in the middle of its work loses nothing that it was told is there."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.media import SqliteMedium
from tests.contract.samples import append_of, page
from tidings_server.storage.base import APPLIED, StoreUnavailable

ROOT = Path(__file__).parents[2]
LOGS = ["log-a", "log-b", "log-c", "log-d"]


def start(path: Path, prefix: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.contract.appender", str(path), prefix, *LOGS]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


async def test_kill_9_loses_nothing(tmp_path: Path) -> None:
    rng = random.Random(5)
    medium = SqliteMedium(tmp_path)
    told: dict[tuple[str, int], str] = {}
    for kill in range(5):
        process = start(medium.options.path, f"{kill:04}")
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(rng.randint(1, 300))]
        if kill == 0:
            # The lock names the holder.
            with pytest.raises(StoreUnavailable, match=f"process with id {process.pid} "):
                await medium.store().open()
        process.kill()
        # What it had told before the kill and nobody has read so far; the last line may be cut off.
        lines += process.stdout.read().splitlines(keepends=True)
        process.stdout.close()
        process.wait()
        for line in lines:
            if line.endswith("\n"):
                log, first_seq, commit_id = line.split()
                told[log, int(first_seq)] = commit_id

        store = medium.store()
        await store.open()
        for log in LOGS:
            pages = await store.read(log, 0, max_bytes=1 << 40)
            due = 1
            for found in pages:
                assert found.first_seq == due
                due = found.last_seq + 1
            kept = {found.first_seq: found.commit_id.decode() for found in pages}
            owed = {seq: commit_id for (of, seq), commit_id in told.items() if of == log}
            assert owed.items() <= kept.items()
            # What was applied without anybody being told stays, too, and is owed from now on.
            told.update({(log, seq): commit_id for seq, commit_id in kept.items()})
        await store.close()
    assert len(told) > 100
    store = medium.store()
    await store.open()
    assert await store.append(append_of("log-z", page(1))) is APPLIED
    await store.close()
