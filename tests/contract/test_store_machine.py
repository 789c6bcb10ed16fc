"""The SQLite store and the oracle, driven by the same random operations, never differ."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from tests.contract.media import MEMORY_DISK, SqliteMedium
from tests.contract.store_machine import LOGS, NEVER, StoreMachine, shapes
from tidings_server.storage.base import Outcome
from tidings_server.storage.sqlite import SqliteOptions


class SqliteMachine(StoreMachine):
    """With copies of the files, as a crash would leave them."""

    medium: SqliteMedium

    def __init__(self) -> None:
        super().__init__()
        where = MEMORY_DISK if MEMORY_DISK.is_dir() else None
        self.directory = Path(tempfile.mkdtemp(prefix="tidings-", dir=where))
        self.copies = 0

    @initialize(
        checkpoint_pages=st.sampled_from([1, NEVER, NEVER]),
        head_cache=st.sampled_from([1, 1_000]),
        max_batch=st.sampled_from([1, 3, 512]),
    )
    def begin(self, checkpoint_pages: int, head_cache: int, max_batch: int) -> None:
        options = SqliteOptions(
            self.directory / "tidings.db",
            checkpoint_pages=checkpoint_pages,
            head_cache=head_cache,
            max_batch=max_batch,
        )
        self.medium = SqliteMedium(self.directory, options)
        self.store = self.opened(self.medium)
        self.incarnation = self.store.incarnation

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.directory)

    @precondition(lambda self: self.medium.options.checkpoint_pages == NEVER)
    @rule(many=st.lists(shapes, max_size=6), pause=st.booleans())
    def crash(
        self, many: list[tuple[str, int, int, int, int, list[int], int]], *, pause: bool
    ) -> None:
        """What lies on the disk at some moment is a store that has everything that was answered before.

        Without checkpoints only the end of the write-ahead log changes, so copying takes one moment of it.
        """
        answered = self.heads_now()
        answers, expected = self.submitted([self.shaped(shape) for shape in many])
        if pause and answers:
            self.run(self.first_of(answers))
        self.copies += 1
        copy = SqliteMedium(self.directory / f"copy-{self.copies}")
        copy.directory.mkdir()
        for suffix in ("", "-wal"):
            name = self.medium.options.path.name + suffix
            shutil.copyfile(self.directory / name, copy.directory / name)
        survivor = self.opened(copy)
        assert self.run(self.all_of(answers)) == expected
        final = self.heads_now()
        found = {log: head.last_seq for log, head in self.run(survivor.heads(LOGS)).items()}
        for log in LOGS:
            head = found.get(log, 0)
            assert answered.get(log, 0) <= head <= final.get(log, 0)
            kept = self.run(survivor.read(log, 0, max_bytes=NEVER))
            assert kept == self.oracle.read(log, 0, NEVER, head)
        self.agrees_on_puts(survivor)
        self.run(survivor.close())

    @staticmethod
    async def first_of(answers: list[asyncio.Future[Outcome]]) -> None:
        await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)


TestStoreMachine = SqliteMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=15,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
