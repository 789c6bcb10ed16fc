"""Effects are written until they are written, and again where a node that has died may have left them out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from ..core.entries import MESSAGE_CHANGES, Entry, UnknownBody
from ..core.state import ConversationState
from ..errors import DomainError
from ..storage.base import Store, StoreUnavailable
from .log_state import LogState
from .lookup import read_entry
from .proposals import Committed, Proposal

log = structlog.get_logger(__name__)

Effects = Callable[[str, Entry, ConversationState], Awaitable[None]]
"""Writes what one change of a log brings about outside it. It may be called again for the same change. Raises
StoreUnavailable and DomainError.
"""
_RETRY_FIRST_S = 0.01
_RETRY_MOST_S = 1.0


def by_kind(memberships: Effects, messages: Effects) -> Effects:
    """The effects of changes of memberships and of messages."""

    async def write(log: str, change: Entry, conversation: ConversationState) -> None:
        effects = messages if isinstance(change.body, MESSAGE_CHANGES) else memberships
        await effects(log, change, conversation)

    return write


async def write_effect(
    effects: Effects,
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
            await effects(name, change, conversation)
            return
        except (StoreUnavailable, DomainError):
            pass
        except Exception:
            # Who gave up would leave out a member, and nobody else would know.
            log.exception("effects_failed", log=name, seq=change.seq)
        tell_all(told)
        await asyncio.sleep(delay)
        delay = min(delay * 2, _RETRY_MOST_S)


def tell_all(told: list[tuple[Proposal, Committed]]) -> None:
    """Tells those who asked that they are done, each once."""
    while told:
        proposal, committed = told.pop()
        proposal.tell(committed)


async def repeat_effects(effects: Effects, store: Store, state: LogState) -> None:
    """Writes the effects that the node which made the pending changes may not have written. Raises
    StoreUnavailable.
    """
    for seq in state.pending:
        change = await read_entry(store, state.log, seq)
        assert change is not None, "a pending change is in the log"
        if isinstance(change.body, UnknownBody):
            # Its effects are for newer nodes to write: they must find it pending.
            state.conversation = replace(state.conversation, readable_only=True)
            return
        try:
            await effects(state.log, change, state.conversation)
        except DomainError as problem:
            raise StoreUnavailable(str(problem)) from problem
    state.pending = ()
