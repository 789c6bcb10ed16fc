"""The store over an SQLite database: hands writes to the writer thread and questions to the reader thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

import apsw

from tidings_server.core.memberships import Membership
from tidings_server.core.pages import Page
from tidings_server.storage.base import (
    Append,
    CursorRow,
    Head,
    MentionRow,
    Outcome,
    OverlayRow,
    PageIds,
    PresenceRow,
    ReactionRow,
    Receipt,
    Snapshot,
    Store,
    StoreCorrupt,
    StoreUnavailable,
    validate,
)
from tidings_server.storage.sqlite import queries
from tidings_server.storage.sqlite.counters import SqliteCounters
from tidings_server.storage.sqlite.database import Database, History
from tidings_server.storage.sqlite.options import SqliteOptions
from tidings_server.storage.sqlite.reader import Reader
from tidings_server.storage.sqlite.statements import (
    CLEARED_INTENTS,
    CURSORS,
    INTENTS,
    MEMBERSHIPS,
    MENTIONS,
    OVERLAYS,
    PRESENCE,
    REACTIONS,
    RECEIPTS,
    REWRITTEN,
    USER_LOGS,
    Row,
    Statement,
    cursor_rows,
    membership_rows,
    presence_rows,
    receipt_rows,
)
from tidings_server.storage.sqlite.writer import Put, Signal, Writer

T = TypeVar("T")


class SqliteStore(Store):
    """A store in one database file. One process at a time may have it open.

    `new_id` names the history when a database is new, or was a backup. `counters` may be read at any time.
    """

    def __init__(self, options: SqliteOptions, *, new_id: Callable[[], str]) -> None:
        self.counters = SqliteCounters()
        self._options = options
        self._new_id = new_id
        self._history = History("", {})
        self._usable = False
        self._opened: asyncio.Future[History] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop
        self._writer: Writer
        self._reader: Reader

    @property
    def incarnation(self) -> str:
        return self._history.incarnation

    def history_since(self, incarnation: str) -> int | None:
        return self._history.ended.get(incarnation)

    @property
    def stamp_floor(self) -> int:
        return max(self._history.ended.values(), default=0)

    async def open(self) -> None:
        assert self._opened is None, "a store is opened once"
        self._loop = asyncio.get_running_loop()
        database = Database(self._options)
        self._writer = Writer(self._loop, database, self._options, self.counters)
        self._reader = Reader(self._loop, database.connect_reader, self.counters)
        self._opened = self._writer.start(self._new_id)
        try:
            self._history = await asyncio.shield(self._opened)
        except (StoreUnavailable, StoreCorrupt):
            await self.close()
            raise
        # From the first connection on there is always one, so that the log's index stays as it is when the writer
        # opens the file anew.
        await self._reader.ask(lambda _: None)
        self._usable = self._closing is None

    async def close(self) -> None:
        self._usable = False
        if self._opened is None:
            return
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        assert self._opened is not None
        await asyncio.wait([self._opened])
        await self._reader.stop()
        if self._opened.exception() is None:
            await self._write(Signal.STOP)

    async def check(self) -> None:
        self._must_be_usable()
        await self._write(Signal.CHECK)

    # Logs

    def append(self, request: Append) -> asyncio.Future[Outcome]:
        validate(request)
        if not self._usable:
            refused: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            refused.set_exception(StoreUnavailable("the store is closed"))
            return refused
        future: asyncio.Future[Outcome] = self._loop.create_future()
        self._writer.submit((future, request))
        return future

    async def heads(self, logs: Sequence[str]) -> dict[str, Head]:
        return await self._ask(partial(queries.heads, logs=tuple(logs)))

    async def snapshot(self, log: str) -> Snapshot | None:
        return await self._ask(partial(queries.snapshot, log=log))

    async def read(
        self, log: str, after: int, *, max_bytes: int, upto: int | None = None
    ) -> list[Page]:
        return await self._ask(
            partial(queries.read, log=log, after=after, max_bytes=max_bytes, upto=upto)
        )

    async def read_back(self, log: str, before: int, *, max_bytes: int) -> list[Page]:
        return await self._ask(
            partial(queries.read_back, log=log, before=before, max_bytes=max_bytes)
        )

    async def read_flagged(self, log: str, after: int, flag: int, *, limit: int) -> list[Page]:
        return await self._ask(
            partial(queries.read_flagged, log=log, after=after, flag=flag, limit=limit)
        )

    async def read_ids(
        self, log: str, *, before: int, min_stamp: int, max_pages: int
    ) -> list[PageIds]:
        return await self._ask(
            partial(
                queries.read_ids, log=log, before=before, min_stamp=min_stamp, max_pages=max_pages
            )
        )

    async def rewrite(self, log: str, page: Page) -> bool:
        row = (page.body, page.rev, log, page.first_seq, page.rev - 1)
        await self._put(REWRITTEN, [row])
        stored = await self.read(log, page.first_seq - 1, max_bytes=1, upto=page.first_seq)
        return any(
            (p.first_seq, p.rev, p.body) == (page.first_seq, page.rev, page.body) for p in stored
        )

    # What became of messages

    async def put_overlays(self, log: str, rows: Sequence[OverlayRow]) -> None:
        await self._put(OVERLAYS, [(log, r.seq, r.as_of, r.body) for r in rows])

    async def overlays(self, log: str, first: int, last: int) -> list[OverlayRow]:
        return await self._ask(partial(queries.overlays, log=log, first=first, last=last))

    async def put_reactions(self, log: str, rows: Sequence[ReactionRow]) -> None:
        await self._put(REACTIONS, [(log, r.seq, r.user_id, r.as_of, r.reaction) for r in rows])

    async def reactions_of(
        self, log: str, user_id: str, seqs: Sequence[int]
    ) -> dict[int, ReactionRow]:
        return await self._ask(
            partial(queries.reactions_of, log=log, user_id=user_id, seqs=tuple(seqs))
        )

    async def list_reactions(
        self, log: str, seq: int, *, after_user: str, limit: int
    ) -> list[ReactionRow]:
        return await self._ask(
            partial(queries.list_reactions, log=log, seq=seq, after_user=after_user, limit=limit)
        )

    async def put_mentions(self, log: str, rows: Sequence[MentionRow]) -> None:
        await self._put(MENTIONS, [(log, r.user_id, r.seq, r.as_of, r.author) for r in rows])

    async def mentions(self, log: str, user_id: str, *, after: int, limit: int) -> list[MentionRow]:
        return await self._ask(
            partial(queries.mentions, log=log, user_id=user_id, after=after, limit=limit)
        )

    # Intents

    async def put_intents(self, node_id: str, round_: int, logs: Sequence[str]) -> None:
        await self._put(INTENTS, [(node_id, round_, log) for log in logs])

    async def intent_nodes(self) -> list[str]:
        return await self._ask(queries.intent_nodes)

    async def intent_rounds(self, node_id: str) -> list[int]:
        return await self._ask(partial(queries.intent_rounds, node_id=node_id))

    async def intents(self, node_id: str, round_: int, *, after: str, limit: int) -> list[str]:
        return await self._ask(
            partial(queries.intents, node_id=node_id, round_=round_, after=after, limit=limit)
        )

    async def clear_intents(self, node_id: str, upto: int) -> None:
        await self._put(CLEARED_INTENTS, [(node_id, upto)])

    # Memberships

    async def put_memberships(self, log: str, rows: Sequence[Membership]) -> None:
        await self._put(MEMBERSHIPS, membership_rows(log, rows))

    async def memberships(self, log: str, users: Sequence[str]) -> dict[str, Membership]:
        return await self._ask(partial(queries.memberships, log=log, users=tuple(users)))

    async def memberships_of(self, user_id: str, logs: Sequence[str]) -> dict[str, Membership]:
        return await self._ask(partial(queries.memberships_of, user_id=user_id, logs=tuple(logs)))

    async def list_memberships(self, log: str, *, after_user: str, limit: int) -> list[Membership]:
        return await self._ask(
            partial(queries.list_memberships, log=log, after_user=after_user, limit=limit)
        )

    async def put_user_logs(self, log: str, users: Iterable[str]) -> None:
        await self._put(USER_LOGS, [(user, log) for user in users])

    async def user_logs(self, user_id: str) -> list[str]:
        return await self._ask(partial(queries.user_logs, user_id=user_id))

    # Registers

    async def put_cursors(self, rows: Sequence[CursorRow]) -> None:
        await self._put(CURSORS, cursor_rows(rows))

    async def cursors(self, user_id: str, device_id: str) -> dict[str, int]:
        return await self._ask(partial(queries.cursors, user_id=user_id, device_id=device_id))

    async def put_receipts(self, rows: Sequence[Receipt]) -> None:
        await self._put(RECEIPTS, receipt_rows(rows))

    async def receipts_of(self, user_id: str, logs: Sequence[str]) -> dict[str, Receipt]:
        return await self._ask(partial(queries.receipts_of, user_id=user_id, logs=tuple(logs)))

    async def list_receipts(self, log: str, *, after_user: str, limit: int) -> list[Receipt]:
        return await self._ask(
            partial(queries.list_receipts, log=log, after_user=after_user, limit=limit)
        )

    # Presence

    async def put_presence(self, rows: Sequence[PresenceRow]) -> None:
        await self._put(PRESENCE, presence_rows(rows))

    async def presence(self, users: Sequence[str]) -> dict[str, PresenceRow]:
        return await self._ask(partial(queries.presence, users=tuple(users)))

    # The threads

    async def _ask(self, question: Callable[[apsw.Connection], T]) -> T:
        self._must_be_usable()
        return await self._reader.ask(question)

    async def _put(self, statement: Statement, rows: list[Row]) -> None:
        self._must_be_usable()
        if rows:
            self.counters.puts += len(rows)
            await self._write(Put(statement, rows))

    async def _write(self, request: Put | Signal) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._writer.submit((future, request))
        await future

    def _must_be_usable(self) -> None:
        if not self._usable:
            raise StoreUnavailable("the store is closed")
