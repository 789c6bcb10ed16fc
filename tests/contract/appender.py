"""A process that appends to an SQLite store until it is killed, and tells each page that was applied.

    python -m tests.contract.appender DATABASE COMMIT_PREFIX LOG...

Prints "LOG FIRST_SEQ COMMIT_ID" once an append is answered; all logs at once, one append each.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from tests.contract.samples import append_of, page
from tidings_server.storage.base import APPLIED
from tidings_server.storage.sqlite import SqliteOptions, SqliteStore


async def main(path: str, prefix: str, *logs: str) -> None:
    options = SqliteOptions(Path(path), checkpoint_pages=20)
    store = SqliteStore(options, new_id=lambda: "killed now and then")
    await store.open()
    heads = await store.heads(logs)
    commits = itertools.count()

    async def work(log: str) -> None:
        head = heads[log].last_seq if log in heads else 0
        while True:
            commit_id = f"{prefix}{next(commits):012}".encode()
            size = 10 + head % 50 * 150
            content = page(head + 1, 1 + head % 3, body=bytes(size), commit_id=commit_id)
            assert await store.append(append_of(log, content)) is APPLIED
            sys.stdout.write(f"{log} {content.first_seq} {commit_id.decode()}\n")
            sys.stdout.flush()
            head = content.last_seq

    await asyncio.gather(*map(work, logs))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
