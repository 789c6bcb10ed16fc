"""The memory store: the port over a `MemoryDisk`, with faults and delays on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from tidings_server.core.memberships import Membership
from tidings_server.core.pages import Page
from tidings_server.storage.base import (
    UNKNOWN,
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
from tidings_server.storage.memory.disk import MemoryDisk
from tidings_server.storage.memory.faults import Call, Fate, Faults
from tidings_server.storage.memory.flight import Flight

T = TypeVar("T")


class MemoryStore(Store):
    """A store whose data is a `MemoryDisk`. Several may share one, as nodes share a database.

    `new_id` names the incarnation when the disk has none. `faults` is asked what happens to each
    call; without it every call is done as asked, at once. `shared` tells that others append too.
    """

    def __init__(
        self,
        disk: MemoryDisk,
        *,
        new_id: Callable[[], str],
        faults: Faults | None = None,
        shared: bool = False,
    ) -> None:
        self.shared = shared
        self._disk = disk
        self._new_id = new_id
        self._faults = faults
        self._usable = False
        # Calls that have not been answered, oldest first.
        self._flights: dict[Flight[Any], None] = {}
        self._quiet: asyncio.Future[None] | None = None

    @property
    def incarnation(self) -> str:
        return self._disk.incarnation

    def history_since(self, incarnation: str) -> int | None:
        return self._disk.ended.get(incarnation)

    @property
    def stamp_floor(self) -> int:
        return max(self._disk.ended.values(), default=0)

    async def open(self) -> None:
        self._disk.incarnation = self._disk.incarnation or self._new_id()
        self._usable = True

    async def close(self) -> None:
        self._usable = False
        while self._flights:
            if self._quiet is None:
                self._quiet = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._quiet)

    def crash(self, survives: Callable[[], bool]) -> None:
        """Ends the store as if its process were killed: nothing is answered any more.

        `survives` is asked of each write that has not taken effect, in the order of their calls:
        those that survive are done now, the others never. Late writes are beyond the process and
        come nevertheless.
        """
        self._usable = False
        for flight in self._flights:
            flight.crash(survives)
        self._flights.clear()

    async def check(self) -> None:
        await self._call("check", "", lambda: None)

    # Logs

    def append(self, request: Append) -> asyncio.Future[Outcome]:
        validate(request)
        return self._begin(
            Call("append", request.log), partial(self._disk.append, request), UNKNOWN
        )

    async def heads(self, logs: Sequence[str]) -> dict[str, Head]:
        return await self._call("heads", "", partial(self._disk.heads, logs))

    async def snapshot(self, log: str) -> Snapshot | None:
        return await self._call("snapshot", log, partial(self._disk.snapshot, log))

    async def read(
        self, log: str, after: int, *, max_bytes: int, upto: int | None = None
    ) -> list[Page]:
        return await self._call("read", log, partial(self._disk.read, log, after, max_bytes, upto))

    async def read_back(self, log: str, before: int, *, max_bytes: int) -> list[Page]:
        return await self._call(
            "read_back", log, partial(self._disk.read_back, log, before, max_bytes)
        )

    async def read_flagged(self, log: str, after: int, flag: int, *, limit: int) -> list[Page]:
        return await self._call(
            "read_flagged", log, partial(self._disk.read_flagged, log, after, flag, limit)
        )

    async def read_ids(
        self, log: str, *, before: int, min_stamp: int, max_pages: int
    ) -> list[PageIds]:
        return await self._call(
            "read_ids", log, partial(self._disk.read_ids, log, before, min_stamp, max_pages)
        )

    async def rewrite(self, log: str, page: Page) -> bool:
        return await self._call("rewrite", log, partial(self._disk.rewrite, log, page))

    # What became of messages

    async def put_overlays(self, log: str, rows: Sequence[OverlayRow]) -> None:
        await self._call("put_overlays", log, partial(self._disk.put_overlays, log, tuple(rows)))

    async def overlays(self, log: str, first: int, last: int) -> list[OverlayRow]:
        return await self._call("overlays", log, partial(self._disk.overlays, log, first, last))

    async def put_reactions(self, log: str, rows: Sequence[ReactionRow]) -> None:
        await self._call("put_reactions", log, partial(self._disk.put_reactions, log, tuple(rows)))

    async def reactions_of(
        self, log: str, user_id: str, seqs: Sequence[int]
    ) -> dict[int, ReactionRow]:
        asked = tuple(seqs)
        return await self._call(
            "reactions_of", log, partial(self._disk.reactions_of, log, user_id, asked)
        )

    async def list_reactions(
        self, log: str, seq: int, *, after_user: str, limit: int
    ) -> list[ReactionRow]:
        return await self._call(
            "list_reactions", log, partial(self._disk.list_reactions, log, seq, after_user, limit)
        )

    async def put_mentions(self, log: str, rows: Sequence[MentionRow]) -> None:
        await self._call("put_mentions", log, partial(self._disk.put_mentions, log, tuple(rows)))

    async def mentions(self, log: str, user_id: str, *, after: int, limit: int) -> list[MentionRow]:
        return await self._call(
            "mentions", log, partial(self._disk.mentions, log, user_id, after, limit)
        )

    # Intents

    async def put_intents(self, node_id: str, round_: int, logs: Sequence[str]) -> None:
        noted = tuple(logs)
        put = partial(self._disk.put_intents, node_id, round_, noted)
        await self._call("put_intents", node_id, put)

    async def intent_nodes(self) -> list[str]:
        return await self._call("intent_nodes", "", self._disk.intent_nodes)

    async def intent_rounds(self, node_id: str) -> list[int]:
        return await self._call(
            "intent_rounds", node_id, partial(self._disk.intent_rounds, node_id)
        )

    async def intents(self, node_id: str, round_: int, *, after: str, limit: int) -> list[str]:
        return await self._call(
            "intents", node_id, partial(self._disk.intents, node_id, round_, after, limit)
        )

    async def clear_intents(self, node_id: str, upto: int) -> None:
        await self._call("clear_intents", node_id, partial(self._disk.clear_intents, node_id, upto))

    # Memberships

    async def put_memberships(self, log: str, rows: Sequence[Membership]) -> None:
        await self._call(
            "put_memberships", log, partial(self._disk.put_memberships, log, tuple(rows))
        )

    async def memberships(self, log: str, users: Sequence[str]) -> dict[str, Membership]:
        return await self._call("memberships", log, partial(self._disk.memberships, log, users))

    async def memberships_of(self, user_id: str, logs: Sequence[str]) -> dict[str, Membership]:
        return await self._call(
            "memberships_of", user_id, partial(self._disk.memberships_of, user_id, logs)
        )

    async def list_memberships(self, log: str, *, after_user: str, limit: int) -> list[Membership]:
        return await self._call(
            "list_memberships", log, partial(self._disk.list_memberships, log, after_user, limit)
        )

    async def put_user_logs(self, log: str, users: Iterable[str]) -> None:
        noted = tuple(users)
        await self._call("put_user_logs", log, partial(self._disk.put_user_logs, log, noted))

    async def user_logs(self, user_id: str) -> list[str]:
        return await self._call("user_logs", user_id, partial(self._disk.user_logs, user_id))

    # Registers

    async def put_cursors(self, rows: Sequence[CursorRow]) -> None:
        await self._call("put_cursors", "", partial(self._disk.put_cursors, tuple(rows)))

    async def cursors(self, user_id: str, device_id: str) -> dict[str, int]:
        return await self._call("cursors", user_id, partial(self._disk.cursors, user_id, device_id))

    async def put_receipts(self, rows: Sequence[Receipt]) -> None:
        await self._call("put_receipts", "", partial(self._disk.put_receipts, tuple(rows)))

    async def receipts_of(self, user_id: str, logs: Sequence[str]) -> dict[str, Receipt]:
        return await self._call(
            "receipts_of", user_id, partial(self._disk.receipts_of, user_id, logs)
        )

    async def list_receipts(self, log: str, *, after_user: str, limit: int) -> list[Receipt]:
        return await self._call(
            "list_receipts", log, partial(self._disk.list_receipts, log, after_user, limit)
        )

    # Presence

    async def put_presence(self, rows: Sequence[PresenceRow]) -> None:
        await self._call("put_presence", "", partial(self._disk.put_presence, tuple(rows)))

    async def presence(self, users: Sequence[str]) -> dict[str, PresenceRow]:
        return await self._call("presence", "", partial(self._disk.presence, users))

    # How a call is carried out

    async def _call(self, method: str, about: str, apply: Callable[[], T]) -> T:
        if self._usable and self._faults is None:
            return apply()
        return await self._begin(Call(method, about), apply)

    def _begin(
        self, call: Call, apply: Callable[[], T], lost: T | None = None
    ) -> asyncio.Future[T]:
        """Begins a call. `lost` is answered when the answer is lost; None: StoreUnavailable."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if not self._usable:
            future.set_exception(StoreUnavailable("the store is closed"))
            return future
        fate = Fate() if self._faults is None else self._faults(call)
        flight = Flight(call, fate, apply, lost, future, self._landed)
        self._flights[flight] = None
        flight.start()
        return future

    def _landed(self, flight: Flight[Any]) -> None:
        del self._flights[flight]
        if not self._flights and self._quiet is not None and not self._quiet.done():
            self._quiet.set_result(None)
