"""The store over a cluster: opens it, puts its parts together, and lets nothing that was begun be left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cassandra.cluster import Cluster, Session

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
    StoreUnavailable,
    validate,
)
from tidings_server.storage.scylla.appender import Appender
from tidings_server.storage.scylla.connection import CONDITIONAL, begin, connect
from tidings_server.storage.scylla.counters import ScyllaCounters
from tidings_server.storage.scylla.courier import Courier
from tidings_server.storage.scylla.heads import Heads
from tidings_server.storage.scylla.history import History, read_history
from tidings_server.storage.scylla.intents import Intents
from tidings_server.storage.scylla.logs import Logs
from tidings_server.storage.scylla.messages import Messages
from tidings_server.storage.scylla.options import ScyllaOptions
from tidings_server.storage.scylla.registers import Registers
from tidings_server.storage.scylla.schema import migrate
from tidings_server.storage.scylla.statements import Statements, prepare

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Opened:
    """What opening, on a thread of its own, has made."""

    session: Session
    statements: Statements
    history: History


@dataclass(frozen=True, slots=True)
class _Parts:
    """What an open store consists of."""

    courier: Courier
    statements: Statements
    heads: Heads
    appender: Appender
    logs: Logs
    messages: Messages
    registers: Registers
    intents: Intents


class ScyllaStore(Store):
    """A store in a keyspace of ScyllaDB or Cassandra. Any number of nodes may have it open.

    `new_id` names the history when a keyspace is new, and this node to others. `counters` may be read at any time.
    """

    shared = True

    def __init__(self, options: ScyllaOptions, *, new_id: Callable[[], str]) -> None:
        self.counters = ScyllaCounters()
        self._options = options
        self._new_id = new_id
        self._history = History("", {})
        self._usable = False
        self._cluster: Cluster | None = None
        self._opening: asyncio.Task[_Opened] | None = None
        self._closing: asyncio.Task[None] | None = None
        # In the order of their beginning.
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._name = ""
        self._parts: _Parts | None = None

    @property
    def incarnation(self) -> str:
        return self._history.incarnation

    def history_since(self, incarnation: str) -> int | None:
        return self._history.ended.get(incarnation)

    @property
    def stamp_floor(self) -> int:
        return max(self._history.ended.values(), default=0)

    async def open(self) -> None:
        assert self._opening is None, "a store is opened once"
        self._name = self._new_id()
        self._opening = asyncio.create_task(asyncio.to_thread(self._connect))
        try:
            opened = await asyncio.shield(self._opening)
        except BaseException:
            await self.close()
            raise
        self._history = opened.history
        self._parts = self._assembled(opened)
        self._usable = self._closing is None

    def _assembled(self, opened: _Opened) -> _Parts:
        courier = Courier(
            asyncio.get_running_loop(),
            opened.session,
            self.counters,
            max_in_flight=self._options.max_in_flight,
        )
        statements = opened.statements
        heads = Heads(courier, statements, remembered=self._options.known_buckets)
        logs = Logs(courier, statements, heads)
        return _Parts(
            courier,
            statements,
            heads,
            Appender(courier, statements, heads, self.counters, self._spawn),
            logs,
            Messages(courier, statements, logs, self._spawn),
            Registers(courier, statements, self._spawn),
            Intents(courier, statements),
        )

    def _connect(self) -> _Opened:
        self._cluster = connect(self._options)
        session = begin(self._cluster)
        migrate(self._cluster, session, self._options, self._name)
        statements = prepare(session, self._options)
        return _Opened(session, statements, read_history(session, self._new_id))

    async def close(self) -> None:
        self._usable = False
        if self._opening is None:
            return
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        assert self._opening is not None
        await asyncio.wait([self._opening])
        if self._parts is not None:
            # What ends may have begun something more.
            while self._tasks or self.counters.in_flight:
                await self._parts.courier.drain()
                if self._tasks:
                    await asyncio.wait(self._tasks)
        if self._cluster is not None:
            await asyncio.to_thread(self._cluster.shutdown)

    async def check(self) -> None:
        # As an append does it: a quorum has to take part in a transaction.
        parts = self._open
        await parts.courier.ask(parts.statements.probe.bind((self._name,)), CONDITIONAL)

    # Logs

    def append(self, request: Append) -> asyncio.Future[Outcome]:
        validate(request)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if self._usable and self._parts is not None:
            self._parts.appender.begin(request, future)
        else:
            future.set_exception(StoreUnavailable("the store is closed"))
        return future

    async def heads(self, logs: Sequence[str]) -> dict[str, Head]:
        return await self._open.heads.find(logs)

    async def settled_heads(self, logs: Sequence[str]) -> dict[str, Head]:
        return await self._open.heads.find(logs, settled=True)

    async def snapshot(self, log: str) -> Snapshot | None:
        return await self._open.logs.snapshot(log)

    async def read(
        self, log: str, after: int, *, max_bytes: int, upto: int | None = None
    ) -> list[Page]:
        return await self._open.logs.read(log, after, max_bytes, upto)

    async def read_back(self, log: str, before: int, *, max_bytes: int) -> list[Page]:
        return await self._open.logs.read_back(log, before, max_bytes)

    async def read_flagged(self, log: str, after: int, flag: int, *, limit: int) -> list[Page]:
        return await self._open.logs.read_flagged(log, after, flag, limit)

    async def read_ids(
        self, log: str, *, before: int, min_stamp: int, max_pages: int
    ) -> list[PageIds]:
        return await self._open.logs.read_ids(log, before, min_stamp, max_pages)

    async def rewrite(self, log: str, page: Page) -> bool:
        return await self._finish(self._open.messages.rewrite(log, page))

    # What became of messages

    async def put_overlays(self, log: str, rows: Sequence[OverlayRow]) -> None:
        self.counters.puts += len(rows)
        await self._finish(self._open.messages.put_overlays(log, tuple(rows)))

    async def overlays(self, log: str, first: int, last: int) -> list[OverlayRow]:
        return await self._open.messages.overlays(log, first, last)

    async def put_reactions(self, log: str, rows: Sequence[ReactionRow]) -> None:
        self.counters.puts += len(rows)
        await self._finish(self._open.messages.put_reactions(log, tuple(rows)))

    async def reactions_of(
        self, log: str, user_id: str, seqs: Sequence[int]
    ) -> dict[int, ReactionRow]:
        return await self._open.messages.reactions_of(log, user_id, seqs)

    async def list_reactions(
        self, log: str, seq: int, *, after_user: str, limit: int
    ) -> list[ReactionRow]:
        return await self._open.messages.list_reactions(log, seq, after_user, limit)

    async def put_mentions(self, log: str, rows: Sequence[MentionRow]) -> None:
        self.counters.puts += len(rows)
        await self._finish(self._open.messages.put_mentions(log, tuple(rows)))

    async def mentions(self, log: str, user_id: str, *, after: int, limit: int) -> list[MentionRow]:
        return await self._open.messages.mentions(log, user_id, after, limit)

    # Intents

    async def put_intents(self, node_id: str, round_: int, logs: Sequence[str]) -> None:
        noted = tuple(logs)
        self.counters.puts += len(noted)
        if noted:
            await self._finish(self._open.intents.put(node_id, round_, noted))

    async def intent_nodes(self) -> list[str]:
        return await self._open.intents.nodes()

    async def intent_rounds(self, node_id: str) -> list[int]:
        return await self._open.intents.rounds(node_id)

    async def intents(self, node_id: str, round_: int, *, after: str, limit: int) -> list[str]:
        return await self._open.intents.logs(node_id, round_, after, limit)

    async def clear_intents(self, node_id: str, upto: int) -> None:
        await self._finish(self._open.intents.clear(node_id, upto))

    # Memberships

    async def put_memberships(self, log: str, rows: Sequence[Membership]) -> None:
        self.counters.puts += len(rows)
        await self._finish(self._open.registers.put_memberships(log, tuple(rows)))

    async def memberships(self, log: str, users: Sequence[str]) -> dict[str, Membership]:
        return await self._open.registers.memberships(log, users)

    async def memberships_of(self, user_id: str, logs: Sequence[str]) -> dict[str, Membership]:
        return await self._open.registers.memberships_of(user_id, logs)

    async def list_memberships(self, log: str, *, after_user: str, limit: int) -> list[Membership]:
        return await self._open.registers.list_memberships(log, after_user, limit)

    async def put_user_logs(self, log: str, users: Iterable[str]) -> None:
        noted = tuple(users)
        self.counters.puts += len(noted)
        await self._finish(self._open.registers.put_user_logs(log, noted))

    async def user_logs(self, user_id: str) -> list[str]:
        return await self._open.registers.user_logs(user_id)

    # Registers

    async def put_cursors(self, rows: Sequence[CursorRow]) -> None:
        self.counters.puts += len(rows)
        await self._finish(self._open.registers.put_cursors(tuple(rows)))

    async def cursors(self, user_id: str, device_id: str) -> dict[str, int]:
        return await self._open.registers.cursors(user_id, device_id)

    async def put_receipts(self, rows: Sequence[Receipt]) -> None:
        self.counters.puts += len(rows)
        await self._finish(self._open.registers.put_receipts(tuple(rows)))

    async def receipts_of(self, user_id: str, logs: Sequence[str]) -> dict[str, Receipt]:
        return await self._open.registers.receipts_of(user_id, logs)

    async def list_receipts(self, log: str, *, after_user: str, limit: int) -> list[Receipt]:
        return await self._open.registers.list_receipts(log, after_user, limit)

    # Presence

    async def put_presence(self, rows: Sequence[PresenceRow]) -> None:
        self.counters.puts += len(rows)
        await self._finish(self._open.registers.put_presence(tuple(rows)))

    async def presence(self, users: Sequence[str]) -> dict[str, PresenceRow]:
        return await self._open.registers.presence(users)

    # How calls are carried out

    @property
    def _open(self) -> _Parts:
        if not self._usable or self._parts is None:
            raise StoreUnavailable("the store is closed")
        return self._parts

    async def _finish(self, writing: Coroutine[Any, Any, T]) -> T:
        return await asyncio.shield(self._spawn(writing))

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        del self._tasks[task]
        # Looked at here, in case that who waited for it was cancelled.
        if not task.cancelled():
            task.exception()
