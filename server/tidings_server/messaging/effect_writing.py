"""Effects are written until they are written, and again where a node that has died may have left them out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from ..core.entries import MESSAGE_CHANGES, Entry, MessagePosted, UnknownBody
from ..core.state import ConversationState
from ..errors import DomainError
from ..storage.base import Store, StoreUnavailable
from .batch import Batch
from .intents import Intents
from .log_queue import LogQueue
from .log_state import LogState
from .lookup import read_entry
from .proposals import Committed, Proposal

log = structlog.get_logger(__name__)

Effects = Callable[[str, Entry, ConversationState], Awaitable[None]]
"""Writes what one change of a log brings about outside it. It may be called again for the same change. Raises
StoreUnavailable and DomainError.
"""
OF_MESSAGES = (MessagePosted, *MESSAGE_CHANGES)
EFFECTS_WITHIN_S = 2.0
"""How long whoever asked for a change waits for its effects: it is durable, and they will be written."""
_RETRY_FIRST_S = 0.01
_RETRY_MOST_S = 1.0


def by_kind(memberships: Effects, messages: Effects) -> Effects:
    """The effects of changes of memberships and of messages."""

    async def write(log: str, change: Entry, conversation: ConversationState) -> None:
        effects = messages if isinstance(change.body, OF_MESSAGES) else memberships
        await effects(log, change, conversation)

    return write


class EffectWriter:
    """Writes the effects of what is committed to logs, in the order of each log. `effects` is set before anything is
    committed. What is under way is in `tasks`, and held against `intents`.
    """

    effects: Effects

    def __init__(
        self, store: Store, tasks: dict[asyncio.Task[None], None], intents: Intents | None
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._intents = intents

    def begin(self, entry: LogQueue, batch: Batch) -> None:
        """Begins to write the effects of a batch, and tells those who asked for them when they are written."""
        assert entry.state is not None
        told = [(p, c) for p, c in batch.accepted if p.changes_state]
        task = asyncio.get_running_loop().create_task(
            self._write(entry, entry.state.conversation, batch.changes, told, entry.effects)
        )
        entry.effects = task
        if any(isinstance(change.body, OF_MESSAGES) for change in batch.changes):
            entry.folding = task
        if self._intents is not None:
            self._intents.hold(entry.name, task)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    async def _write(
        self,
        entry: LogQueue,
        conversation: ConversationState,
        changes: list[Entry],
        told: list[tuple[Proposal, Committed]],
        before: asyncio.Task[None] | None,
    ) -> None:
        # Whoever asked from another node takes silence for a home that is lost.
        told_at_last = asyncio.get_running_loop().call_later(EFFECTS_WITHIN_S, _tell_all, told)
        try:
            if before is not None:
                await asyncio.wait([before])
            for change in changes:
                await self._write_one(entry.name, change, conversation, told)
                if entry.state is not None:
                    pending = entry.state.pending
                    entry.state.pending = tuple(seq for seq in pending if seq != change.seq)
        finally:
            told_at_last.cancel()
            _tell_all(told)
            if entry.effects is asyncio.current_task():
                entry.effects = None
            if entry.folding is asyncio.current_task():
                entry.folding = None

    async def _write_one(
        self,
        name: str,
        change: Entry,
        conversation: ConversationState,
        told: list[tuple[Proposal, Committed]],
    ) -> None:
        """Writes the effects of a committed change, however long it takes. At the first failure those in `told`, who
        asked for changes, are told that they are done: the change is durable, and its effects will be.
        """
        delay = _RETRY_FIRST_S
        while True:
            try:
                await self.effects(name, change, conversation)
                return
            except (StoreUnavailable, DomainError):
                pass
            except Exception:
                # Who gave up would leave out a member, and nobody else would know.
                log.exception("effects_failed", log=name, seq=change.seq)
            _tell_all(told)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _RETRY_MOST_S)

    async def repeat(self, state: LogState) -> None:
        """Writes the effects that the node which made the pending changes may not have written. Raises
        StoreUnavailable.
        """
        for seq in state.pending:
            change = await read_entry(self._store, state.log, seq)
            assert change is not None, "a pending change is in the log"
            if isinstance(change.body, UnknownBody):
                # Its effects are for newer nodes to write: they must find it pending.
                state.conversation = replace(state.conversation, readable_only=True)
                return
            try:
                await self.effects(state.log, change, state.conversation)
            except DomainError as problem:
                raise StoreUnavailable(str(problem)) from problem
        state.pending = ()


def _tell_all(told: list[tuple[Proposal, Committed]]) -> None:
    """Tells those who asked that they are done, each once."""
    while told:
        proposal, committed = told.pop()
        proposal.tell(committed)
