"""The shell around the core: connects, carries frames, waits, saves. It decides nothing about the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from . import _actions, events
from ._config import ClientConfig
from ._core import SessionCore
from ._outbox import Outgoing
from ._sends import Outcome
from ._state import StateStore
from ._tokens import TokenSource
from ._transport import Connection, ConnectionLost, EndOfStream, Transport
from ._unsaved import Batch
from .errors import ClientClosed, Code, TidingsError, Unavailable, error_for

_log = logging.getLogger("tidings")

_SILENT_BEACONS = 2.5
_TOKEN_MARGIN_MS = 5_000
_MAX_REFUSALS = 2


class Runner:
    """Keeps one device connected until it is closed or the server says that there is no point.

    Everything happens on the loop that called `start`.
    """

    def __init__(
        self,
        *,
        config: ClientConfig,
        store: StateStore,
        transport: Transport,
        tokens: TokenSource,
        wall_clock_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self.config = config
        self._store = store
        self._transport = transport
        self.tokens = tokens
        self._wall_clock_ms = wall_clock_ms
        self._rng = rng
        self._backoff = config.backoff
        self._loop: asyncio.AbstractEventLoop | None = None
        self._core: SessionCore | None = None
        self.state = events.ConnectionState(status=events.ConnectionStatus.CONNECTING)
        self.ended: TidingsError | None = None
        self._waiters: dict[asyncio.Future[None], None] = {}
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._kept: set[asyncio.Task[None]] = set()
        self._run_task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._writing: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._outbox_timer: asyncio.TimerHandle | None = None
        self._save_timer: asyncio.TimerHandle | None = None
        self._saving: asyncio.Task[None] | None = None
        self._unsaved: Batch | None = None
        self._closing = False
        self._failures = 0
        self._refused_token = ""
        self._refusals = 0
        self._synced_at: float | None = None
        # By a process before this one, for all that is known.
        self._left_behind = True
        self._going_away: float | None = None
        self.on_outcome: Callable[[Outcome], None] = lambda _: None
        self.on_end: Callable[[TidingsError], None] = lambda _: None

    @property
    def core(self) -> SessionCore:
        """The state machine. Raises ClientClosed before `start`."""
        if self._core is None:
            raise ClientClosed("the client isn't open: use it as an async context manager")
        return self._core

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop it runs on. Raises ClientClosed before `start`."""
        if self._loop is None:
            raise ClientClosed("the client isn't open: use it as an async context manager")
        return self._loop

    # Opening and closing

    async def start(self) -> None:
        """Read the state and begin to connect. Raises StateError."""
        state = await self._store.open()
        self._loop = asyncio.get_running_loop()
        self._core = SessionCore(state, self.config, self._wall_clock_ms, self._rng)
        self._core.events.put(self.state)
        self._run_task = self._spawn(self._run())

    async def stop(self) -> None:
        """Save and acknowledge what was applied, and let go of everything."""
        if self._closing:
            return
        self._closing = True
        if self._core is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.config.close_timeout):
                    if self._kept:
                        await asyncio.wait(self._kept)
                    while self._core.has_unsaved or self._unsaved is not None:
                        self._begin_to_save()
                        if self._saving is not None:
                            await asyncio.wait([self._saving])
                    self.flush()
                    if self._writing is not None:
                        await asyncio.wait([self._writing])
        self._cancel_timers()
        connection, self._connection = self._connection, None
        if connection is not None:
            # The reader sees the end of the stream by itself: cancelling it would cut off what was just written.
            await connection.close(graceful=True)
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._end(ClientClosed("the client was closed"))
        await self._transport.close()
        if self._core is not None:
            await self._store.close()

    # Waiting

    def notify(self) -> None:
        """Wake whoever waits for events or for a state."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def changed(self) -> None:
        """Wait for the next `notify`."""
        waiter = self.loop.create_future()
        self._waiters[waiter] = None
        try:
            await waiter
        finally:
            self._waiters.pop(waiter, None)

    def _end(self, error: TidingsError) -> None:
        if self.ended is None:
            self.ended = error
            self.on_end(error)
        self.notify()

    # The outbox

    async def enqueue(
        self, conversation_id: str, content: bytes, made: Callable[[Outgoing], None]
    ) -> None:
        """Put a message into the outbox; durable when it returns. `made` is told of it before. Raises StateError."""
        item = self.core.sends.enqueue(conversation_id, content, self.loop.time())
        made(item)
        try:
            await self._store.add([item.message])
        except BaseException:
            self.core.outbox.drop(item)
            self.flush()
            raise
        self.core.sends.stored(item, self.loop.time())
        self._after_core()

    async def discard(self, item: Outgoing) -> None:
        """Take a message out of the outbox; durable when it returns. Raises StateError."""
        core = self.core
        message = core.sends.discarding(item)
        try:
            # Removing alone isn't durable: a message that comes back after a loss of power must not be sent.
            await self._store.update({message.message_id: message})
        except BaseException:
            core.outbox.stored(item)
            self._after_core()
            raise
        core.sends.discarded(item)
        self._after_core()

    def forget_failed(self, message_id: str) -> None:
        """The application knows that a message has failed."""
        self.core.sends.forget_failed(message_id)
        self._save_if_due()

    # Saving

    def applied(self, event: events.Event) -> None:
        """The application has dealt with an event."""
        self.core.apply(event)
        self._save_if_due()

    def _save_if_due(self) -> None:
        core = self.core
        if self._closing:
            return
        if core.saving_due:
            self._begin_to_save()
        elif self._save_timer is None and core.has_unsaved:
            self._save_timer = self.loop.call_later(self.config.apply_delay, self._begin_to_save)

    def _begin_to_save(self) -> None:
        if self._save_timer is not None:
            self._save_timer.cancel()
            self._save_timer = None
        if self._saving is None or self._saving.done():
            self._saving = self._spawn(self._save())

    async def _save(self) -> None:
        """Save what there is, in order; a failure is tried again for as long as the client is open."""
        attempt = 0
        due = True
        while due:
            if self._unsaved is None:
                self._unsaved = self.core.take_unsaved()
            try:
                await self._save_one(self._unsaved)
            except TidingsError as error:
                _log.error("the state can't be saved: %s", error)
                await asyncio.sleep(self._backoff.delay(attempt, self._rng))
                attempt += 1
                continue
            attempt = 0
            unsaved, self._unsaved = self._unsaved, None
            self.core.saved(unsaved)
            self._after_core()
            due = self.core.saving_due
        self._save_if_due()

    async def _save_one(self, unsaved: Batch) -> None:
        """Save once; repeating the whole after a failure does no harm."""
        if unsaved.updated:
            await self._store.update(unsaved.updated)
        if unsaved.session is not None:
            await self._store.save_session(unsaved.session, unsaved.all_cursors)
        if unsaved.cursors:
            await self._store.save_cursors([cursor for _, cursor in unsaved.cursors])
        if unsaved.removed:
            await self._store.remove(unsaved.removed)

    # Connecting

    def _set_state(
        self,
        status: events.ConnectionStatus,
        *,
        retry_in: float | None = None,
        error: TidingsError | None = None,
    ) -> None:
        state = events.ConnectionState(status=status, retry_in=retry_in, error=error)
        if state != self.state:
            self.state = state
            self.core.events.put(state)
        self.notify()

    async def _run(self) -> None:
        while True:
            self._synced_at = self._going_away = None
            try:
                action = await self._session()
            except Exception as error:  # noqa: BLE001
                # A fault of the SDK's own must not end a device silently: it shows and tries again.
                _log.exception("the session failed")
                action = _actions.Reconnect(
                    error_for(Code.INTERNAL, f"{type(error).__name__}: {error}")
                )
            if self._closing:
                return
            if isinstance(action, _actions.End):
                self._set_state(events.ConnectionStatus.ENDED, error=action.error)
                self._end(action.error)
                return
            if action.error.reason == "DRAINING":
                # It goes on refusing sessions, and this connection leads nowhere else.
                self._transport.renew()
            delay = action.delay
            if delay is None:
                if self._stable():
                    self._failures = 0
                delay = self._backoff.delay(
                    self._failures, self._rng, action.error.retry_after or 0.0
                )
                self._failures += 1
            self._set_state(events.ConnectionStatus.OFFLINE, retry_in=delay, error=action.error)
            await asyncio.sleep(delay)

    def _stable(self) -> bool:
        """Whether the last session stood long enough for its end not to count as one failure more."""
        return (
            self._synced_at is not None
            and self.loop.time() - self._synced_at >= self.config.backoff_cap
        )

    async def _session(self) -> _actions.Reconnect | _actions.End:
        """Connect and stay connected; returns why it ended."""
        self._set_state(events.ConnectionStatus.CONNECTING)
        token = ""
        ended = False
        action: _actions.Reconnect | _actions.End
        action = _actions.Reconnect(ConnectionLost("nothing came from the server for too long"))
        try:
            # The provider may ask a person: it takes as long as it takes.
            token = await self.token()
            async with asyncio.timeout(self.config.connect_timeout) as deadline:
                connection = await self._transport.connect(token)
                self._connection = connection
                self.core.connected()
                self.flush()
                action = await self._read(connection, deadline)
        except TimeoutError:
            if self._going_away is not None:
                action = _actions.Reconnect(self._away, 0.0)
        except EndOfStream as end:
            ended = True
            action = self._action_of(end.error)
        except TidingsError as error:
            action = self._action_of(error)
        finally:
            left = self._connection is not None
            await self._disconnect()
        return self._lay(self._judge(action, token), left=left and not ended)

    def _lay(
        self, action: _actions.Reconnect | _actions.End, *, left: bool
    ) -> _actions.Reconnect | _actions.End:
        """What replaced this session may be a connection of our own that was left before, and whose hello came late:
        then it is worth one more try.
        """
        replaced = action.error.reason == "SESSION_REPLACED"
        if not replaced:
            self._left_behind = self._left_behind or left
            return action
        synced_for = self.loop.time() - self._synced_at if self._synced_at is not None else 0.0
        ours = self._left_behind and synced_for < self.core.limits.beacon_interval * _SILENT_BEACONS
        self._left_behind = False
        return _actions.Reconnect(action.error) if ours else action

    async def token(self) -> str:
        """The token to use now. Raises TidingsError when there is none."""
        core = self.core
        if core.token_expire_ms is not None:
            left = core.token_expire_ms - core.clock.now_ms(self.loop.time())
            if left < _TOKEN_MARGIN_MS:
                core.token_expire_ms = None
                await self._provider(self.tokens.renew())
        return await self._provider(self.tokens.get())

    async def _provider(self, token: Awaitable[str]) -> str:
        try:
            return await token
        except TidingsError:
            raise
        except Exception as error:
            # It is the application's code: whatever it raises, it is asked again.
            raise Unavailable(f"no token: {type(error).__name__}: {error}") from error

    def _action_of(self, error: TidingsError) -> _actions.Reconnect | _actions.End:
        """Whether a refusal may pass: without a reason it isn't the server's word, and so may."""
        passing = error.code in (
            Code.OK,
            Code.UNAVAILABLE,
            Code.ABORTED,
            Code.INTERNAL,
            Code.RESOURCE_EXHAUSTED,
            Code.DEADLINE_EXCEEDED,
            Code.UNKNOWN,
            Code.CANCELLED,
        )
        if error.code is not Code.UNAUTHENTICATED and (passing or not error.reason):
            return _actions.Reconnect(error)
        return _actions.End(error)

    def _judge(
        self, action: _actions.Reconnect | _actions.End, token: str
    ) -> _actions.Reconnect | _actions.End:
        """A refused token is replaced; when the provider gives the same again, that is the end."""
        if action.error.code is not Code.UNAUTHENTICATED:
            return action
        self.tokens.refused(token)
        if token == self._refused_token:
            self._refusals += 1
        else:
            self._refused_token, self._refusals = token, 1
        if self._refusals >= _MAX_REFUSALS:
            return _actions.End(action.error)
        return _actions.Reconnect(action.error)

    async def _disconnect(self) -> None:
        self._cancel_timers(keep_saving=True)
        connection, self._connection = self._connection, None
        for task in (self._writing, self._refreshing):
            if task is not None:
                task.cancel()
        self._writing = self._refreshing = None
        self.core.disconnected()
        if connection is not None:
            await connection.close(graceful=False)

    # A connection

    async def _read(
        self, connection: Connection, deadline: asyncio.Timeout
    ) -> _actions.Reconnect | _actions.End:
        """Take frames until one of them ends it. The deadline moves with each, once the session is open."""
        core = self.core
        loop = self.loop
        while True:
            try:
                frame = await connection.receive()
            except (EndOfStream, ConnectionLost):
                if self._going_away is not None:
                    # It is gone before its time: there is nothing to wait for, and everybody who was on it comes now.
                    return _actions.Reconnect(self._away)
                raise
            now = loop.time()
            synced = core.synced
            actions = core.receive(frame, now)
            if core.welcomed and self.state.status is events.ConnectionStatus.CONNECTING:
                self._refusals = 0
                self._set_state(events.ConnectionStatus.SYNCING)
            if core.synced and not synced:
                self._synced_at = now
                self._set_state(events.ConnectionStatus.ONLINE)
            for action in actions:
                if isinstance(action, (_actions.Reconnect, _actions.End)):
                    self._after_core()
                    return action
                self._do(action, now)
            self._after_core()
            if self._going_away is not None:
                deadline.reschedule(self._going_away)
            elif core.welcomed:
                deadline.reschedule(now + core.limits.beacon_interval * _SILENT_BEACONS)

    @property
    def _away(self) -> TidingsError:
        """The server is going away, and this connection is over."""
        return Unavailable("the server is going away", reason="DRAINING")

    def _do(self, action: _actions.GoAway | _actions.RefreshToken, now: float) -> None:
        if isinstance(action, _actions.GoAway):
            self._going_away = now + action.delay
        elif self._refreshing is None or self._refreshing.done():
            self._refreshing = self._spawn(self._refresh())

    def _after_core(self) -> None:
        """The core has changed: tell everyone whom it concerns."""
        core = self.core
        if core.sends.outcomes:
            outcomes, core.sends.outcomes = core.sends.outcomes, []
            for outcome in outcomes:
                self.on_outcome(outcome)
        if core.has_events:
            self.notify()
        self._save_if_due()
        self.flush()

    def flush(self) -> None:
        """See to it that what is to be sent goes out."""
        connection = self._connection
        if connection is None:
            return
        if self._writing is None or self._writing.done():
            frame = self.core.next_frame(self.loop.time())
            if frame is not None:
                self._writing = self._spawn(self._write(connection, frame))
            else:
                self._wake_outbox()

    async def _write(self, connection: Connection, frame: bytes | None) -> None:
        with contextlib.suppress(ConnectionLost):
            while frame is not None:
                await connection.send(frame)
                if connection is not self._connection:
                    return
                frame = self.core.next_frame(self.loop.time())
        if connection is self._connection:
            self._wake_outbox()

    def _wake_outbox(self) -> None:
        if self._outbox_timer is not None:
            self._outbox_timer.cancel()
            self._outbox_timer = None
        wake_at = self.core.wake_at()
        if wake_at is not None:
            self._outbox_timer = self.loop.call_at(wake_at, self._outbox_woken)

    def _outbox_woken(self) -> None:
        self._outbox_timer = None
        self.flush()

    async def _refresh(self) -> None:
        """Get a new token for the session; on failure try again until the session ends."""
        attempt = 0
        while True:
            try:
                token = await self._provider(self.tokens.renew())
            except TidingsError as error:
                _log.warning("the token can't be renewed: %s", error)
                await asyncio.sleep(self._backoff.delay(attempt, self._rng))
                attempt += 1
            else:
                self.core.refresh_token(token)
                self.flush()
                return

    # Tasks

    async def finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something to its end, even if the caller is cancelled; closing waits for it, too."""
        task = self.loop.create_task(work)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)
        await asyncio.shield(task)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a task of the client failed", exc_info=error)

    def _cancel_timers(self, *, keep_saving: bool = False) -> None:
        if self._outbox_timer is not None:
            self._outbox_timer.cancel()
            self._outbox_timer = None
        if self._save_timer is not None and not keep_saving:
            self._save_timer.cancel()
            self._save_timer = None
