"""A device that is the Python SDK: `tidings.Client` with its outbox, its resuming and its typed events."""

from __future__ import annotations

import asyncio
from pathlib import Path

import tidings

from .ledger import Run, facts_of
from .records import Records
from .script import Row
from .world import World

_KINDS = {
    tidings.ConversationCreated: "conversation_created",
    tidings.MembersAdded: "members_added",
    tidings.MemberRemoved: "member_removed",
    tidings.ConversationUpdated: "conversation_updated",
    tidings.MemberRoleSet: "member_role_set",
    tidings.MemberMuted: "member_muted",
    tidings.MemberBanned: "member_banned",
    tidings.InvitationSet: "invitation_set",
    tidings.ConversationJoined: "conversation_joined",
    tidings.ConversationLeft: "conversation_left",
}


class SdkDevice:
    """One device of a user. `state` is the file that it keeps its outbox and positions in, or None for memory.

    `records` is what the application was given, with sums of facts instead of bytes.
    """

    def __init__(self, world: World, user: str, name: str, state: Path | None) -> None:
        self.user = user
        self.name = name
        self.records = Records(f"{user}/{name} (SDK)", world.ledger, world.findings, by_facts=True)
        self._world = world
        self._state = state
        self._client: tidings.Client | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._rows: asyncio.Queue[Row] = asyncio.Queue()
        self._starts: dict[str, int] = {}
        self._early: dict[str, int] = {}
        self._left = 0.0
        self._status = tidings.ConnectionStatus.OFFLINE

    @property
    def connected(self) -> bool:
        """Whether it is online."""
        return self._status is tidings.ConnectionStatus.ONLINE

    @property
    def fetching(self) -> bool:
        """Whether it is fetching what a gap left out."""
        return False

    async def start(self) -> None:
        """Begins to connect."""
        world = self._world
        self._client = tidings.Client(
            world.target(self.user),
            token_provider=lambda: world.token(self.user, self.name),
            state=self._state,
            config=tidings.ClientConfig(
                backoff_base=0.1, backoff_cap=1.0, client_name="replay", tls=False
            ),
        )
        await self._client.__aenter__()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._read(self._client)),
            loop.create_task(self._write(self._client)),
        ]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    def post(self, row: Row) -> None:
        """Sends a message after all that were given before."""
        self._rows.put_nowait(row)

    async def stop(self) -> None:
        """Saves, acknowledges what was applied and leaves."""
        if self._client is not None:
            await self._client.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _write(self, client: tidings.Client) -> None:
        board = self._world.board
        while True:
            row = await self._rows.get()
            reply_to = board.reply_id(row) or None
            handle = await client.send(row.conversation.id, row.text, reply_to=reply_to)
            board.name(row, handle.message_id)
            seq = self._early.pop(handle.message_id, 0)
            if seq:
                board.ack(row, seq)

    async def _read(self, client: tidings.Client) -> None:
        board = self._world.board
        async for event in client.events():
            match event:
                case tidings.LogEntry():
                    self._entry(event)
                case tidings.MessageSent():
                    row = board.row(event.message_id)
                    if row is None:
                        self._early[event.message_id] = event.seq
                    else:
                        board.ack(row, event.seq)
                case tidings.MessageFailed():
                    row = board.row(event.message_id)
                    if row is not None:
                        board.fail(row, str(event.error))
                case tidings.Gap():
                    self.records.gap(event.conversation_id, event.from_seq, event.to_seq)
                case tidings.ConnectionState():
                    self._take_status(event.status)
                case _:
                    pass

    def _take_status(self, status: tidings.ConnectionStatus) -> None:
        was, self._status = self.connected, status
        now = asyncio.get_running_loop().time()
        if was and not self.connected:
            self._left = now
        elif self.connected and not was and self._left:
            tally = self._world.tally
            tally.sdk_longest_away_s = max(tally.sdk_longest_away_s, now - self._left)

    def _entry(self, event: tidings.LogEntry) -> None:
        ledger = self._world.ledger
        text, reply_to, kind = "", "", _KINDS.get(type(event), "")
        if isinstance(event, tidings.Message):
            text, reply_to, kind = event.text, event.reply_to or "", "message"
        elif isinstance(event, tidings.ConversationJoined):
            self._starts[event.conversation_id] = event.join_seq
        facts = facts_of(event.user_id, event.entry_id, event.ordinal, kind, text, reply_to)
        ledger.facts(event.log, event.seq, facts)
        record = self.records.log(event.log)
        start = self._starts.get(event.log, 1)
        if not record.seq and start > 1 and event.seq == start:
            # The SDK passes over what came before joining without a word.
            self.records.skip(event.log, 1, start - 1)
        self.records.take(Run(event.log, event.seq, event.seq, facts))

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._world.findings.add("fault", f"{self.records.device}: {problem!r}")
