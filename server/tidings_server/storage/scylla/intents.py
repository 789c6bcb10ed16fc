"""Intents: which logs a node may have appended to and not told of. Plain writes, each of which may be repeated."""

from __future__ import annotations

from collections.abc import Sequence

from tidings_server.storage.scylla.courier import Courier
from tidings_server.storage.scylla.statements import Statements, batches, timestamp


class Intents:
    """Writes and reads them. Each call may raise StoreUnavailable."""

    def __init__(self, courier: Courier, statements: Statements) -> None:
        self._courier = courier
        self._statements = statements
        # Of which node and round it is written that there are some.
        self._noted: tuple[str, int] | None = None

    async def put(self, node_id: str, round_: int, logs: Sequence[str]) -> None:
        prepared = self._statements
        writes = batches([prepared.put_intent.bind((node_id, round_, log)) for log in logs])
        if self._noted == (node_id, round_):
            await self._courier.ask_all(writes)
            return
        node = prepared.put_intent_node.bind((node_id, round_, timestamp(round_)))
        await self._courier.ask_all(
            [node, prepared.put_intent_round.bind((node_id, round_)), *writes]
        )
        self._noted = (node_id, round_)

    async def nodes(self) -> list[str]:
        rows = await self._courier.ask(self._statements.intent_nodes.bind(()))
        return [node_id for (node_id,) in rows]

    async def rounds(self, node_id: str) -> list[int]:
        rows = await self._courier.ask(self._statements.intent_rounds.bind((node_id,)))
        return [round_ for (round_,) in rows]

    async def logs(self, node_id: str, round_: int, after: str, limit: int) -> list[str]:
        if limit < 1:
            return []
        rows = await self._courier.ask(
            self._statements.intents.bind((node_id, round_, after, limit))
        )
        return [log for (log,) in rows]

    async def clear(self, node_id: str, upto: int) -> None:
        prepared = self._statements
        rounds = [round_ for round_ in await self.rounds(node_id) if round_ <= upto]
        # What leads to the rest goes last, so that it is found when this fails half-way.
        await self._courier.ask_all(
            prepared.clear_intents.bind((node_id, round_)) for round_ in rounds
        )
        await self._courier.ask(prepared.clear_intent_rounds.bind((node_id, upto)))
        await self._courier.ask(prepared.clear_intent_node.bind((timestamp(upto), node_id)))
