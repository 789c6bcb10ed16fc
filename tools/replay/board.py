"""The board: how far each message of the script has got, and who waits for it."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable

from .findings import Findings
from .script import Row, Script


class Board:
    """Ids and positions of the messages. Moments are seconds of the loop's clock.

    `on_ack` is called whenever a message is acknowledged for the first time.
    """

    def __init__(self, script: Script, findings: Findings) -> None:
        count = len(script.rows)
        self.script = script
        self.ids: list[str] = [""] * count
        self.seqs = array("q", bytes(8 * count))
        self.acked = 0
        self._settled = bytearray(count)
        self.longest_silence_s = 0.0
        """The longest time between two acknowledgements while messages were on their way; whoever asks sets it back."""
        self._last_ack = 0.0
        self.ack_seconds: dict[str, array[float]] = {}
        """By the way that messages went, how long each took."""
        self.on_ack: Callable[[Row], None] = lambda _: None
        self.heads: dict[str, int] = {}
        """By conversation id, the newest acknowledged position."""
        self._by_id: dict[str, Row] = {}
        self._begun: dict[int, tuple[float, str]] = {}
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}
        self._counts: list[tuple[int, asyncio.Future[None]]] = []
        self._findings = findings

    @property
    def total(self) -> int:
        """How many messages there are."""
        return len(self.ids)

    def begin(self, row: Row, way: str) -> None:
        """A message is handed to whoever sends it. `way` says how it goes."""
        now = asyncio.get_running_loop().time()
        if not self._begun:
            self._last_ack = now
        self._begun[row.index] = now, way

    def name(self, row: Row, message_id: str) -> None:
        """A message has its id, once."""
        assert not self.ids[row.index], "a message is named once"
        self.ids[row.index] = message_id
        self._by_id[message_id] = row

    def row(self, message_id: str) -> Row | None:
        """The message with an id."""
        return self._by_id.get(message_id)

    def reply_id(self, row: Row) -> str:
        """The id of the message that a message answers, or nothing."""
        return "" if row.reply_to is None else self.ids[row.reply_to.index]

    def ack(self, row: Row, seq: int) -> None:
        """The server has acknowledged a message at a position. The same one again must be the same."""
        known = self.seqs[row.index]
        if known:
            if known != seq:
                self._findings.add(
                    "moved",
                    f"{row.conversation.name}: message {row.index} was acknowledged at {known},"
                    f" then at {seq}",
                )
            return
        if seq <= 0:
            self._findings.add(
                "fault", f"message {row.index} was acknowledged at the position {seq}"
            )
            return
        self.seqs[row.index] = seq
        self._settle(row)
        conversation = row.conversation.id
        if self.heads.get(conversation, 0) < seq:
            self.heads[conversation] = seq

    def fail(self, row: Row, why: str) -> None:
        """A message was refused for good: the play goes on without it."""
        self._findings.add("refused", f"{row.conversation.name}: message {row.index}: {why}")
        self._settle(row)

    def is_done(self, row: Row) -> bool:
        """Whether a message was acknowledged, or refused for good."""
        return bool(self._settled[row.index])

    async def done(self, row: Row) -> None:
        """Waits until a message was acknowledged, or refused for good."""
        if self._settled[row.index]:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(row.index, []).append(waiter)
        await waiter

    def waiting(self) -> str:
        """The messages that were sent and are not acknowledged, in words."""
        found = [f"message {index} by {way}" for index, (_, way) in self._begun.items()]
        return ", ".join(found[:10]) + (f" and {len(found) - 10} more" if len(found) > 10 else "")

    async def reached(self, count: int) -> None:
        """Waits until so many messages were acknowledged."""
        if self.acked < count:
            waiter = asyncio.get_running_loop().create_future()
            self._counts.append((count, waiter))
            await waiter

    def _settle(self, row: Row) -> None:
        self.acked += 1
        self._settled[row.index] = 1
        begun, way = self._begun.pop(row.index)
        now = asyncio.get_running_loop().time()
        took = now - begun
        self.longest_silence_s = max(self.longest_silence_s, now - self._last_ack)
        self._last_ack = now
        self.ack_seconds.setdefault(way, array("f")).append(took)
        for waiter in self._waiters.pop(row.index, ()):
            if not waiter.done():
                waiter.set_result(None)
        for count, waiter in list(self._counts):
            if count <= self.acked:
                self._counts.remove((count, waiter))
                if not waiter.done():
                    waiter.set_result(None)
        self.on_ack(row)
