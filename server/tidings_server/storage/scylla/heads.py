"""Finds the newest positions of logs, whose buckets can't be listed: they are tried from the newest known one on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from tidings_server.core.pages import BUCKET_SIZE, bucket_of
from tidings_server.storage.base import Head
from tidings_server.storage.columns import load_positions
from tidings_server.storage.scylla.courier import Courier, Rows
from tidings_server.storage.scylla.statements import (
    Statements,
    parts,
    timestamp,
)


class Heads:
    """The heads of logs. `remembered` bounds how many newest buckets are kept in mind."""

    def __init__(self, courier: Courier, statements: Statements, *, remembered: int) -> None:
        self._courier = courier
        self._statements = statements
        self._remembered = remembered
        # Only of logs that have more than one.
        self._newest: OrderedDict[str, int] = OrderedDict()

    def opened(self, log: str, bucket: int) -> None:
        """Notes that a bucket is there."""
        if bucket > self._newest.get(log, 0):
            self._newest[log] = bucket
        if bucket:
            self._newest.move_to_end(log)
            if len(self._newest) > self._remembered:
                self._newest.popitem(last=False)

    async def note(self, log: str, bucket: int) -> None:
        """Writes down that a bucket is there, for those who don't know the log."""
        await self._courier.ask(
            self._statements.hint.bind((timestamp(bucket), bucket, log)),
        )

    async def find(self, logs: Iterable[str], *, settled: bool = False) -> dict[str, Head]:
        """The heads of the logs that have one. Raises StoreUnavailable."""
        found: dict[str, Head] = {}
        tries = {log: self._newest.get(log, 0) for log in logs}
        # A hint names a bucket that was opened; but a restore may have brought back an older log than hint. So it is
        # followed once, and only forwards.
        hinted: set[str] = set()
        while tries:
            heads = await self._read(tries, settled=settled)
            full = [log for log, bucket in tries.items() if _is_full(heads.get(log), bucket)]
            hints = await self._hints([log for log in full if log not in hinted])
            hinted.update(full)
            found |= heads
            following: dict[str, int] = {}
            for log in full:
                following[log] = max(tries[log] + 1, hints.get(log, 0))
            for log, bucket in tries.items():
                if log in heads:
                    continue
                due = bucket_of(found[log].last_seq) + 1 if log in found else 0
                if bucket > due:
                    # What was remembered, or hinted, is not there.
                    self._newest.pop(log, None)
                    hinted.add(log)
                    following[log] = due
            tries = following
        for log, head in found.items():
            self.opened(log, bucket_of(head.last_seq))
        return found

    async def _read(self, tries: dict[str, int], *, settled: bool) -> dict[str, Head]:
        if settled:
            # A serial read is of one partition.
            answers = await self._courier.ask_all(
                self._statements.settled_head.bind((log, bucket)) for log, bucket in tries.items()
            )
        else:
            answers = await self._read_many(tries)
        return {row[0]: _head(row) for rows in answers for row in rows if row[1] is not None}

    async def _read_many(self, tries: dict[str, int]) -> list[Rows]:
        by_bucket: dict[int, list[str]] = {}
        for log, bucket in tries.items():
            by_bucket.setdefault(bucket, []).append(log)
        return await self._courier.ask_all(
            self._statements.heads.bind((list(part), bucket))
            for bucket, logs in by_bucket.items()
            for part in parts(logs)
        )

    async def _hints(self, logs: Sequence[str]) -> dict[str, int]:
        if not logs:
            return {}
        answers = await self._courier.ask_all(
            self._statements.hints.bind((list(part),)) for part in parts(logs)
        )
        return dict(row for rows in answers for row in rows)


def bucket_end(bucket: int) -> int:
    """The last position of a bucket."""
    return (bucket + 1) * BUCKET_SIZE


def _is_full(head: Head | None, bucket: int) -> bool:
    return head is not None and head.last_seq == bucket_end(bucket)


def _head(row: Sequence[Any]) -> Head:
    _, last_seq, ordinal, stamp, commit_id, pending = row
    return Head(last_seq, ordinal, stamp, commit_id, load_positions(pending or b""))
