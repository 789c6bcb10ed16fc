"""Synchronising: what must be read when a device says hello, in the order that lets nothing fall
between: subscribe, heads, memberships, then the log, then live.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from ..codec.requests import cursor_problem
from ..core import commands as c
from ..core.ids import inbox_log
from ..core.limits import Limits
from ..core.memberships import Membership
from ..core.principal import Principal
from ..errors import DomainError, Reason, conversation_not_found
from ..messaging.log_state import LogView
from ..messaging.message_states import MessageStates
from ..messaging.sequencer import Sequencer
from ..storage.base import Head, Store
from .acks import AckBook
from .position import OPEN_END, Position
from .resume import start, visible_ranges

_AT_ONCE = 64
Passed = tuple[tuple[str, int, int], ...]
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """Where a session starts: a position for each log with what is passed over before it, the
    cursors that were not taken, and those that were remembered of the device, where there is a gap.
    `told` are the events that go before what is passed over, by log and first position of that.
    """

    starts: list[tuple[Position, Passed]]
    refused: tuple[c.RefusedCursor, ...]
    remembered: dict[str, int]
    told: dict[tuple[str, int], list[bytes]]


class Synchroniser:
    """Reads where devices are to start. One instance serves all sessions."""

    def __init__(
        self,
        store: Store,
        sequencer: Sequencer,
        states: MessageStates,
        acks: AckBook,
        limits: Limits,
    ) -> None:
        self._store = store
        self._sequencer = sequencer
        self._states = states
        self._acks = acks
        self._limits = limits

    async def plan(
        self,
        principal: Principal,
        hello: c.Hello,
        follow: Callable[[list[str]], Awaitable[None]],
    ) -> SyncPlan:
        """Where the session of a device starts in each log of its user.

        `follow` makes the session get what is published to logs from then on, and is called before
        heads are read. Raises StoreUnavailable, and DomainError; may be called again.
        """
        store = self._store
        user = principal.user_id
        inbox = inbox_log(user)
        conversations = await store.user_logs(user)
        await follow([inbox, *conversations])
        heads = await store.heads([inbox, *conversations])
        logs = await self._visible(user, heads)
        named, refused = _take_cursors(hello, logs, user)
        if hello.incarnation not in ("", store.incarnation):
            named = await self._clamp_to_restored(hello.incarnation, logs, named, refused)
        stored: dict[str, int] = {}
        # They serve where the device names no cursor, and tell what of a gap is news to it.
        if any(
            log not in named or head.last_seq - named[log] > hello.catch_up_limit
            for log, (head, _) in logs.items()
        ):
            stored = await self._stored(principal)
        limits = self._limits_of(logs, inbox, hello, new_device=not named and not stored)
        starts: list[tuple[Position, Passed]] = []
        for log, (head, ranges) in logs.items():
            end = min(head.last_seq, ranges[-1][1])
            begin = start(
                named=named.get(log),
                remembered=stored.get(log),
                end=end,
                ranges=ranges,
                limit=limits[log],
            )
            position = Position(log, begin.sent, head.last_seq, ranges, head.last_seq)
            if begin.passed:
                # Acknowledging what was passed over is news: it is what the server remembers of a gap.
                position.acked = begin.passed[0][1] - 1
                position.passed = [(first, last) for _, first, last in begin.passed]
            starts.append((position, begin.passed))
        told = {
            (position.log, first): await self._states.passed_over(
                user, position.log, position.ranges, first, last, position.checked
            )
            for position, passed in starts
            for _, first, last in passed
        }
        return SyncPlan(starts, tuple(refused), stored, told)

    async def _stored(self, principal: Principal) -> dict[str, int]:
        """The cursors that are kept of a device."""
        stored = await self._store.cursors(principal.user_id, principal.device_id)
        for log, seq in self._acks.remembered(principal).items():
            stored[log] = max(seq, stored.get(log, 0))
        return stored

    async def _visible(self, user: str, heads: dict[str, Head]) -> dict[str, tuple[Head, Ranges]]:
        """The logs that the user may see something of, each with its head and the visible ranges."""
        inbox = inbox_log(user)
        # The inbox is there for everybody, if only to be joined.
        found: dict[str, tuple[Head, Ranges]] = {
            inbox: (heads.get(inbox, Head(0, 0, 0, b"")), ((1, OPEN_END),))
        }
        conversations = [log for log in heads if log != inbox]
        rows = await self._store.memberships_of(user, conversations)
        views = await self._views(
            user, [log for log in conversations if _behind(heads[log], rows.get(log))]
        )
        for log in conversations:
            head = heads[log]
            membership: Membership | None = rows.get(log)
            if log in views:
                view = views[log]
                membership = view.membership
                head = Head(view.head, view.ordinal, view.stamp, head.commit_id)
            if membership is not None:
                if membership.as_of > head.last_seq:
                    # Appended after the heads were read. What ends a membership is to be sent, although the log is
                    # not followed any more.
                    head = replace(head, last_seq=membership.as_of)
                found[log] = (head, visible_ranges(membership))
        return found

    async def _views(self, user: str, logs: list[str]) -> dict[str, LogView]:
        """Logs whose memberships may be behind: the sequencer writes first what is missing."""
        found: dict[str, LogView] = {}
        for at in range(0, len(logs), _AT_ONCE):
            part = logs[at : at + _AT_ONCE]
            views = await asyncio.gather(*(self._sequencer.view(log, user) for log in part))
            found.update(zip(part, views, strict=True))
        return found

    async def _clamp_to_restored(
        self,
        incarnation: str,
        logs: dict[str, tuple[Head, Ranges]],
        named: dict[str, int],
        refused: list[c.RefusedCursor],
    ) -> dict[str, int]:
        """Takes cursors back to where the history that the device knows was cut off by a restore.

        What was appended after the restore has other content at positions that the device holds. An
        incarnation that this store never had shares nothing with it.
        """
        since = self._store.history_since(incarnation)
        clamped: dict[str, int] = {}
        for log, seq in named.items():
            shared = 0 if since is None else await self._head_at(log, logs[log][0], since)
            clamped[log] = min(seq, shared)
            if clamped[log] < seq:
                refused[:] = [r for r in refused if r.log != log]
                refused.append(c.RefusedCursor(log, clamped[log], _ahead(shared)))
        return clamped

    async def _head_at(self, log: str, head: Head, since: int) -> int:
        """The head that a log had before pages with a stamp of at least `since` were appended."""
        before = head.last_seq + 1
        while head.last_seq:
            pages = await self._store.read_ids(log, before=before, min_stamp=since, max_pages=500)
            if pages:
                before = pages[-1].first_seq
            if len(pages) < 500:
                break
        return before - 1

    def _limits_of(
        self,
        logs: dict[str, tuple[Head, Ranges]],
        inbox: str,
        hello: c.Hello,
        *,
        new_device: bool,
    ) -> dict[str, int]:
        """How many entries at most are sent of each log."""
        if not new_device:
            return dict.fromkeys(logs, hello.catch_up_limit)
        limits = self._limits
        newest = sorted(
            (log for log in logs if log != inbox), key=lambda log: logs[log][0].stamp, reverse=True
        )
        few = min(limits.new_device_messages, hello.catch_up_limit)
        taken = dict.fromkeys(newest, 0)
        taken.update(dict.fromkeys(newest[: limits.new_device_conversations], few))
        taken[inbox] = hello.catch_up_limit
        return taken


def _behind(head: Head, membership: Membership | None) -> bool:
    """Whether a membership may lack what a change brought about. Effects are written in the order of the changes: a row
    that has the newest of the pending ones lacks nothing.
    """
    return bool(head.pending) and (membership is None or membership.as_of < head.pending[-1])


def _take_cursors(
    hello: c.Hello, logs: dict[str, tuple[Head, Ranges]], user: str
) -> tuple[dict[str, int], list[c.RefusedCursor]]:
    named: dict[str, int] = {}
    refused: list[c.RefusedCursor] = []
    for log, seq in hello.cursors.items():
        problem = cursor_problem(log, seq, user)
        if problem is None and log not in logs:
            problem = conversation_not_found()
        if problem is not None:
            refused.append(c.RefusedCursor(log, 0, problem))
            continue
        head, ranges = logs[log]
        end = min(head.last_seq, ranges[-1][1])
        if seq > end:
            refused.append(c.RefusedCursor(log, end, _ahead(end)))
        named[log] = min(seq, end)
    return named, refused


def _ahead(end: int) -> DomainError:
    return DomainError(
        Reason.POSITION_AHEAD,
        "The cursor lies ahead of what the store holds of this log.",
        field="seq",
        metadata={"seq": str(end)},
    )
