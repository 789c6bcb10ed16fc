"""Sessions: one connected device, whatever its transport. Frames go in and out as bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from functools import partial
from typing import Any

import structlog

from ..bus.base import HeadPublished, NoticePublished, PagePublished
from ..codec import events
from ..codec.entries import decode_entries
from ..core import commands as c
from ..core.entries import ConversationJoined
from ..core.ids import inbox_log
from ..core.pages import Page, PageFlag
from ..core.principal import Principal
from ..errors import DomainError, Reason
from ..storage.base import StoreUnavailable
from ..telemetry.tracing import Span
from ..telemetry.trail import SessionDid
from .catch_up import CatchUp
from .expiry import Expiry
from .outbox import Outbox, Sink
from .position import Position, Window
from .recheck import Recheck
from .resume import visible_ranges
from .services import SessionServices
from .sync import SyncPlan

log = structlog.get_logger(__name__)

_FAREWELL_S = 2.0
_LAST_ANSWERS_S = 10.0
_SYNC_RETRY_S = 0.5


class Session:
    """One connected device.

    The transport calls `receive` with each frame, waits for `ready` before the next, and calls
    `close` when the device is gone. It ends the connection when `ended` is done, whose result is
    the reason.
    """

    def __init__(
        self, session_id: str, principal: Principal, sink: Sink, services: SessionServices
    ) -> None:
        self.id = session_id
        self.principal = principal
        self.ended: asyncio.Future[DomainError | None] = asyncio.get_running_loop().create_future()
        self.outbox = Outbox(
            sink, services.limits.outbox_bytes, services.counters, self._emptied, self.close
        )
        self.positions: dict[str, Position] = {}
        self.trace_link = ""
        """The W3C trace context that the session was opened with."""
        self.window = Window(services.limits.window)
        self.gaps: dict[str, list[tuple[int, int]]] = {}
        """What of each log was announced as a gap when the session began, beyond what the device had acknowledged."""
        self._services = services
        self._catch_up = CatchUp(
            services.pages,
            self.outbox,
            self.window,
            services.counters,
            services.catch_up_slots,
            self._ranges,
            partial(services.states.passed_over, principal.user_id),
            self._inbox_page,
            self._level,
            self.fail,
        )
        self._commands_open = 0
        self._answered: asyncio.Future[None] | None = None
        self._greeted = False
        # The logs that are still to be brought to the heads at hello; None once the device was level.
        self._syncing: set[str] | None = None
        self._early: dict[str, int] = {}
        # The logs that are being joined, and how far they are known to go by what was published meanwhile.
        self._joining: dict[str, int] = {}
        self._following: list[str] = []
        self._recheck = Recheck(
            services,
            session_id,
            self.positions,
            lambda position: self._lag(position, SessionDid.HEAD_MOVED),
            self._spawn,
        )
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._expiry = Expiry(
            services.clock,
            services.limits.beacon_interval_ms,
            services.token_warning_ms,
            lambda expires_ms: self.outbox.put(events.token_expiring_event(expires_ms)),
            lambda problem: self.end(problem, reconnect=True),
        )
        self._closed = False

    # The transport's side

    def receive(self, frame: bytes) -> None:
        """Takes a frame from the device. Raises nothing: what is wrong with it is told to the
        device.
        """
        services = self._services
        services.counters.frames_in += 1
        services.counters.frame_bytes_in += len(frame)
        try:
            taken = services.reader.read_frame(frame)
        except DomainError as problem:
            self._result(0, "", problem)
            return
        for name, seq in taken.acks:
            self._ack(name, seq)
        for command_id, name, command in taken.commands:
            self._take(command_id, name, command)

    async def ready(self) -> None:
        """Returns when the next frame may be received: what the device does not read must not pile
        up here.
        """
        if self.outbox.congested:
            await self.outbox.relieved()

    async def finish(self) -> None:
        """The device says no more: returns when what it asked for is answered, or after some time.

        A device that has said hello has asked to be brought level.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_ANSWERS_S):
                while self._commands_open or self._syncing is not None:
                    self._answered = asyncio.get_running_loop().create_future()
                    await self._answered
                await self.outbox.finish()

    def close(self) -> None:
        """The device is gone, or the session has ended. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._catch_up.close()
        self.outbox.close()
        for task in list(self._tasks):
            task.cancel()
        self._expiry.close()
        if self._greeted:
            self._services.hub.close(self)
            self._services.counters.sessions -= 1
        if not self.ended.done():
            self._services.counters.sessions_ended["CLIENT_LEFT"] += 1
            self.ended.set_result(None)
        if self._greeted:
            ended = self.ended.result()
            self._note(
                SessionDid.ENDED, detail="CLIENT_LEFT" if ended is None else ended.reason.name
            )

    def end(self, problem: DomainError, *, reconnect: bool) -> None:
        """Tells the device why the session ends, and ends it."""
        if self.ended.done() or self._catch_up.closed:
            return
        self._services.counters.sessions_ended[problem.reason.name] += 1
        self._services.hub.close(self)
        self._catch_up.close()
        self.outbox.put_last(events.session_ended_event(problem, reconnect=reconnect))
        self._spawn(self._finish(problem))

    def fail(self) -> None:
        """The server has met a fault of its own here: the device connects anew, and gets what it misses."""
        self.end(DomainError(Reason.INTERNAL, "The server met a fault of its own."), reconnect=True)

    # The hub's side

    def offer(self, publication: PagePublished, *, deferred: bool) -> bool:
        """A page was committed: pushes it if it comes next and there is room. Returns whether it
        was put into the outbox and, being deferred, is to be flushed.
        """
        position = self.positions.get(publication.log)
        page = publication.page
        if position is None:
            self._note_early(publication.log, page.last_seq)
            return False
        position.head = max(position.head, page.last_seq)
        if position.lagging:
            return False
        sent = position.sent
        if page.last_seq <= sent:
            return False
        window, body = self.window, page.body
        if (
            page.first_seq != sent + 1
            # The log was joined, and it is not known yet whether the user is a member again.
            or not position.open
            or window.unacked + page.count > window.size
            or not self.outbox.room(len(body))
        ):
            did = SessionDid.OUTBOX_FULL
            if page.first_seq != sent + 1:
                did = SessionDid.GAP_SEEN
            elif not position.open:
                did = SessionDid.MEMBERSHIP_UNSURE
            else:
                self._services.counters.outbox_overflows += 1
                if window.unacked + page.count > window.size:
                    did = SessionDid.WINDOW_FULL
            self._lag(position, did)
            return False
        position.sent = position.checked = page.last_seq
        window.unacked += page.count
        self._services.counters.delivered_entries += page.count
        if page.flags & PageFlag.STATE and publication.log == inbox_log(self.principal.user_id):
            self._inbox_page(page)
        if deferred:
            self.outbox.put_deferred(body)
            return True
        self.outbox.put(body)
        return False

    def notice(self, publication: NoticePublished) -> None:
        """Something that is not kept was published: sent to members unless the outbox is full."""
        position = self.positions.get(publication.log)
        if position is None or not position.open or self._syncing is not None:
            return
        if self.outbox.room(len(publication.frame)):
            self.outbox.put(publication.frame)

    def head_moved(self, publication: HeadPublished) -> None:
        """A log goes up to a position that was not pushed: catches up."""
        position = self.positions.get(publication.log)
        if position is None:
            self._note_early(publication.log, publication.seq)
        elif publication.seq > position.head:
            position.head = publication.seq
            self._lag(position, SessionDid.HEAD_MOVED)

    def _note_early(self, name: str, seq: int) -> None:
        """A log has moved before it is known where in it the device is."""
        if self._syncing is not None:
            self._early[name] = max(self._early.get(name, 0), seq)
        if name in self._joining:
            self._joining[name] = max(self._joining[name], seq)

    def removed(self, name: str, seq: int) -> None:
        """The user's membership ended at a position; the hub has let go of the log."""
        position = self.positions.get(name)
        if position is not None:
            position.close_at(seq)
            self._spawn(self._rejoin(name))

    def recheck(self) -> None:
        """Publications may have been lost: reads the heads again and catches up where they
        moved.
        """
        # Whoever is about to join a log may have read its head before: it reads it again.
        self._recheck.times += 1
        self._recheck.soon()

    def going_away(self, delay_ms: int) -> None:
        """The server is about to stop."""
        self.outbox.put(events.going_away_event(delay_ms))

    def beat(self, now_ms: int) -> None:
        """The heartbeat: a beacon, and a look at the token."""
        level = self._syncing is None and self._catch_up.idle
        positions = [(p.log, p.sent) for p in self.positions.values() if p.sent] if level else None
        if self.outbox.room(100):
            self.outbox.put(events.beacon_event(now_ms, positions))
        self._expiry.watch(self.principal.expires_at_ms)

    @property
    def syncing(self) -> bool:
        """Whether the device is still to be brought to the heads that it found at hello."""
        return self._syncing is not None

    def logs(self) -> list[str]:
        """The logs that the session has joined, and perhaps some that it has left."""
        return [*self.positions, *self._following]

    async def _follow(self, logs: list[str]) -> None:
        """Joins the logs of the user before it is known where in them the device is."""
        self._following = logs
        await self._services.hub.join(logs, self)

    # Commands

    def _take(self, command_id: int, name: str, command: c.Command | DomainError) -> None:
        if isinstance(command, DomainError):
            self._result(command_id, name, command)
            return
        if isinstance(command, c.Hello):
            self._hello(command_id, command)
            return
        if not self._greeted:
            self._result(
                command_id,
                name,
                DomainError(Reason.HELLO_EXPECTED, "The first command must be hello."),
            )
            return
        if self._commands_open >= self._services.limits.max_commands_in_flight:
            self._result(
                command_id,
                name,
                DomainError(
                    Reason.TOO_MANY_IN_FLIGHT,
                    "Too many commands are waiting for their results.",
                    retry_after_ms=100,
                ),
            )
            return
        self._commands_open += 1
        if isinstance(command, c.RefreshToken):
            self._spawn(self._refresh(command_id, command))
            return
        span = self._services.tracer.command(name, link=self.trace_link)

        def done(outcome: c.Result | DomainError) -> None:
            self._commands_open -= 1
            self._result(command_id, name, outcome, span)

        self._services.handlers.submit(self.principal, command, done, span)

    def _result(
        self,
        command_id: int,
        name: str,
        outcome: c.Result | DomainError,
        span: Span | None = None,
    ) -> None:
        code = "OK"
        if isinstance(outcome, DomainError):
            code = outcome.code.name
        self._services.counters.commands[name, code] += 1
        if span is not None:
            self._services.tracer.end(span, "" if code == "OK" else code)
        self.outbox.put(events.result_event(command_id, name, outcome))
        self._tell_answered()

    def _tell_answered(self) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    def _hello(self, command_id: int, hello: c.Hello) -> None:
        if self._greeted:
            self._result(
                command_id,
                "hello",
                DomainError(Reason.HELLO_EXPECTED, "The session is open already."),
            )
            return
        services = self._services
        if services.hub.draining:
            problem = DomainError(
                Reason.DRAINING, "The server is going away; connect again.", retry_after_ms=200
            )
            self._result(command_id, "hello", problem)
            self.end(problem, reconnect=True)
            return
        self._greeted = True
        self._syncing = set()
        self.window.size = hello.window
        services.counters.sessions += 1
        services.counters.sessions_opened += 1
        services.hub.open(self)
        self._note(SessionDid.OPENED)
        now = services.clock.now_ms()
        self.outbox.put(
            events.welcome_event(
                self.id,
                self.principal,
                now_ms=now,
                incarnation=services.store.incarnation,
                incarnation_changed=hello.incarnation not in ("", services.store.incarnation),
                limits=services.limits,
                window=hello.window,
            )
        )
        self._expiry.watch(self.principal.expires_at_ms)
        self._spawn(self._synchronise(command_id, hello))

    async def _refresh(self, command_id: int, command: c.RefreshToken) -> None:
        outcome: c.Result | DomainError
        try:
            principal = await self._services.verify(command.token)
            if (principal.user_id, principal.device_id) != (
                self.principal.user_id,
                self.principal.device_id,
            ):
                raise DomainError(
                    Reason.TOKEN_INVALID,
                    "The token is for another user or device.",
                    field="token",
                )
            self.principal = principal
            self._expiry.renewed(principal.expires_at_ms)
            outcome = c.TokenRefreshed(principal.expires_at_ms)
        except DomainError as problem:
            outcome = problem
        self._commands_open -= 1
        self._result(command_id, "refresh_token", outcome)

    def _ack(self, name: str, seq: int) -> None:
        position = self.positions.get(name)
        if position is None or not self.window.acked(position, seq):
            return
        self._services.acks.note(self.principal, name, position.acked)
        self._catch_up.go_on()

    # Synchronising

    async def _synchronise(self, command_id: int, hello: c.Hello) -> None:
        rechecks = self._recheck.times
        plan = await self._plan(hello)
        self._result(command_id, "hello", c.Welcomed(plan.refused))
        assert self._syncing is not None
        for position, passed in plan.starts:
            for kind, first, last in passed:
                for state in plan.told[position.log, first]:
                    self.outbox.put(state)
                event = events.gap_event if kind == "gap" else events.skipped_event
                self.outbox.put(event(position.log, first, last))
                unseen = max(first, plan.remembered.get(position.log, 0) + 1)
                if kind == "gap" and unseen <= last:
                    self.gaps.setdefault(position.log, []).append((unseen, last))
            position.head = max(position.head, self._early.get(position.log, 0))
            self.positions[position.log] = position
            if position.sent < position.end:
                self._syncing.add(position.log)
        self._early.clear()
        for name in self._following:
            followed = self.positions.get(name)
            if followed is None or not followed.open:
                self._services.hub.leave(name, self)
            elif not self._services.hub.has_joined(name, self):
                # A removal was published meanwhile, perhaps one of an earlier stay.
                self._spawn(self._join(name))
        self._following = []
        for position, _ in plan.starts:
            if position.sent < position.end:
                self._catch_up.lag(position)
        self._synced()
        if rechecks != self._recheck.times:
            self._recheck.soon()

    async def _plan(self, hello: c.Hello) -> SyncPlan:
        """Where the session starts, as soon as the store can tell."""
        while True:
            try:
                return await self._services.sync.plan(self.principal, hello, self._follow)
            except (StoreUnavailable, DomainError) as problem:
                self._services.counters.store_errors += 1
                log.warning("sync_waits", cause=str(problem), session=self.id)
                await asyncio.sleep(_SYNC_RETRY_S)

    def _lag(self, position: Position, did: SessionDid) -> None:
        if not position.lagging:
            self._note(did, position.log)
        self._catch_up.lag(position)

    def _note(self, did: SessionDid, log: str = "", detail: str = "") -> None:
        user, device = self.principal.user_id, self.principal.device_id
        self._services.trail.session(did, self.id, user, device, log, detail)

    def _level(self, position: Position) -> None:
        if self._syncing is None:
            self._note(SessionDid.LEVEL, position.log)
        else:
            self._syncing.discard(position.log)
            self._synced()

    def _synced(self) -> None:
        if self._syncing is not None and not self._syncing:
            self._syncing = None
            self.outbox.put(events.sync_complete_event(len(self.positions)))
            self._tell_answered()

    async def _ranges(self, name: str) -> tuple[tuple[tuple[int, int], ...], int]:
        view = await self._services.sequencer.view(name, self.principal.user_id)
        assert view.membership is not None, "memberships are never taken back"
        if not view.membership.current:
            # The bus may have lost the page with the removal: what follows it must not be pushed.
            self._services.hub.leave(name, self)
        return visible_ranges(view.membership), view.head

    # The inbox

    def _inbox_page(self, page: Page) -> None:
        """A page of the inbox is on its way to the device: joins what the user has joined."""
        for entry in decode_entries(page.body):
            if isinstance(entry.body, ConversationJoined):
                self._spawn(self._join(entry.body.conversation_id))

    async def _join(self, name: str) -> None:
        """Follows a conversation that the user has become a member of, perhaps again."""
        services = self._services
        known = self.positions.get(name)
        # A stay that catching up has met is open too, but is followed only once it is joined here.
        if known is not None and known.open and services.hub.has_joined(name, self):
            return
        try:
            while True:
                rechecks = self._recheck.times
                self._joining.setdefault(name, 0)
                await services.hub.join([name], self)
                try:
                    view = await services.sequencer.view(name, self.principal.user_id)
                except DomainError as problem:
                    log.warning("join_waits", cause=str(problem), session=self.id)
                    await asyncio.sleep(_SYNC_RETRY_S)
                    continue
                if view.membership is None:
                    services.hub.leave(name, self)
                    return
                # A removal that was published meanwhile has let go of the log.
                if not view.membership.current:
                    break
                if services.hub.has_joined(name, self) and rechecks == self._recheck.times:
                    break
        except asyncio.CancelledError:
            services.hub.leave(name, self)
            raise
        finally:
            early = self._joining.pop(name, 0)
        ranges = visible_ranges(view.membership)
        # What another node appended may have been published between the reading of the view and now.
        head = max(view.head, early)
        # Another task may have joined it while this one waited.
        position = self.positions.get(name)
        if position is None:
            position = self.positions[name] = Position(name, 0, head, ranges, view.head)
        else:
            position.head = max(position.head, head)
            position.ranges, position.checked = ranges, view.head
        if not view.membership.current:
            services.hub.leave(name, self)
        self._catch_up.lag(position)

    async def _rejoin(self, name: str) -> None:
        """The hub has let go of a log for a removal whose publication may be late: the user may be a member again,
        and the note of that was passed over since the log was joined still.
        """
        view = None
        while view is None:
            try:
                view = await self._services.sequencer.view(name, self.principal.user_id)
            except DomainError as problem:
                log.warning("rejoin_waits", cause=str(problem), session=self.id)
                await asyncio.sleep(_SYNC_RETRY_S)
        if view.membership is None:
            return
        if view.membership.current:
            await self._join(name)
            return
        position = self.positions[name]
        if view.head > position.head:
            # They were a member once more, and what came then was not offered since the log was not joined.
            position.head = view.head
            self._lag(position, SessionDid.HEAD_MOVED)

    # Ending

    async def _finish(self, problem: DomainError) -> None:
        # A device that does not read is not waited for.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self.outbox.finish()
        if not self.ended.done():
            self.ended.set_result(problem)

    def _emptied(self) -> None:
        self._catch_up.go_on()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._spawned)

    def _spawned(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            log.error("session_failed", session=self.id, exc_info=task.exception())
            self.fail()
