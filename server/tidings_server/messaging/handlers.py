"""Handlers: one for each command, whether it comes by stream or by unary call. What has no handler
is denied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from ..core import commands as c
from ..core.principal import Principal
from ..errors import DomainError, Reason, store_unavailable
from ..storage.base import StoreUnavailable
from ..telemetry.counters import Counters
from ..telemetry.tracing import Span
from ..telemetry.trail import Trail
from .conversations import Conversations
from .history import History
from .messages import Messages
from .proposals import Committed, PostMessage, Submits
from .receipts import Receipts

log = structlog.get_logger(__name__)

Handler = Callable[[Principal, Any], Awaitable[c.Result]]
Finished = Callable[[c.Result | DomainError], None]


class Handlers:
    """Executes commands for a verified caller. Each handler checks the caller's rights itself,
    where it knows the state.
    """

    def __init__(
        self,
        submits: Submits,
        conversations: Conversations,
        messages: Messages,
        history: History,
        receipts: Receipts,
        counters: Counters,
        trail: Trail,
        *,
        others: dict[type, Handler],
    ) -> None:
        self._submits = submits
        self._counters = counters
        self._trail = trail
        self._handlers: dict[type, Handler] = {
            c.SendMessage: self._send,
            c.EditMessage: messages.edit,
            c.DeleteMessage: messages.delete,
            c.SetReaction: messages.react,
            c.ListReactions: history.reactions,
            c.SetPin: messages.pin,
            c.ListPins: history.pins,
            c.CreateConversation: conversations.create,
            c.AddMembers: conversations.add,
            c.RemoveMember: conversations.remove,
            c.LeaveConversation: conversations.leave,
            c.UpdateConversation: conversations.update,
            c.SetRole: conversations.set_role,
            c.TransferOwnership: conversations.transfer,
            c.SetMute: conversations.mute,
            c.SetBan: conversations.ban,
            c.SetInvitation: conversations.invite,
            c.JoinConversation: conversations.join,
            c.GetConversation: conversations.get,
            c.ListConversations: conversations.list_conversations,
            c.ListMembers: conversations.list_members,
            c.ListHistory: history.list_entries,
            c.GetMessage: history.get,
            c.MarkDelivered: receipts.mark_delivered,
            c.MarkRead: receipts.mark_read,
            c.ListReceipts: receipts.list_receipts,
            c.GetUnread: receipts.unread,
            **others,
        }
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def commands(self) -> frozenset[type]:
        """The commands that are allowed to whom their handlers allow them."""
        return frozenset(self._handlers)

    def submit(
        self,
        caller: Principal,
        command: c.Command,
        done: Finished,
        span: Span | None = None,
    ) -> None:
        """Begins a command and calls `done` once with its outcome, later. Messages take no task of
        their own.
        """
        if type(command) is c.SendMessage:
            log, change_id, user = command.conversation_id, command.id, caller.user_id

            def decided(outcome: Committed | DomainError) -> None:
                if type(outcome) is Committed:
                    done(c.Sent(outcome.seq, outcome.time_ms))
                else:
                    self._trail.refused(log, user, change_id.text, outcome.reason.name)  # type: ignore[union-attr]
                    done(outcome)  # type: ignore[arg-type]

            proposal = PostMessage(log, change_id, user, decided, command.content, command.after)
            proposal.span = span
            self._submits.submit(proposal)
            return
        task = asyncio.get_running_loop().create_task(self._finish(caller, command, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def execute(
        self, caller: Principal, command: c.Command, span: Span | None = None
    ) -> c.Result:
        """Executes a command. Raises DomainError, and nothing else."""
        handler = self._handlers.get(type(command))
        if handler is None:
            raise DomainError(Reason.DENIED, "No rule allows this.")
        try:
            if span is not None and isinstance(command, c.SendMessage):
                return await self._send(caller, command, span)
            return await handler(caller, command)
        except DomainError:
            raise
        except StoreUnavailable as problem:
            self._counters.store_errors += 1
            log.warning("store_unavailable", command=type(command).__name__, cause=str(problem))
            raise store_unavailable() from None
        except Exception:
            log.exception("command_failed", command=type(command).__name__)
            raise DomainError(
                Reason.INTERNAL, "The server met a fault of its own; it is in its log."
            ) from None

    async def close(self) -> None:
        """Awaits the commands under way."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _send(
        self, caller: Principal, command: c.SendMessage, span: Span | None = None
    ) -> c.Result:
        future: asyncio.Future[c.Result | DomainError] = asyncio.get_running_loop().create_future()
        self.submit(
            caller,
            command,
            lambda outcome: None if future.done() else future.set_result(outcome),
            span,
        )
        outcome = await future
        if isinstance(outcome, DomainError):
            raise outcome
        return outcome

    async def _finish(self, caller: Principal, command: c.Command, done: Finished) -> None:
        outcome: c.Result | DomainError
        try:
            outcome = await self.execute(caller, command)
        except DomainError as problem:
            outcome = problem
        done(outcome)
