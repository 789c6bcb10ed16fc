"""The sequencer: gives every change its position, by group commit on a conditional append.

Each log has one commit in flight; what arrives meanwhile goes together into the next. The hot path
is free of tasks: a proposal is queued, the queues are built into batches once an event loop turn,
the store answers a future, and its callback tells everybody. Whatever must read first (a cold log,
an old id, an unknown member) or settle something (a conflict, an unknown outcome) runs in a task,
during which the log's queue waits.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog

from ..codec.entries import decode_entries
from ..core.clock import Clock
from ..core.entries import Entry
from ..core.pages import Page, PageFlag
from ..errors import DomainError, Reason, outcome_unknown, store_unavailable
from ..storage.base import APPLIED, Conflict, Outcome, Store, StoreUnavailable
from ..telemetry.counters import Counters
from ..telemetry.tracing import NO_TRACER, Span, Tracer
from .batch import MAX_PENDING, Batch, build, decide
from .effect_writing import Effects, EffectWriter
from .intents import Intents
from .log_queue import LogQueue as _Log
from .log_state import LogState, LogView, load
from .lookup import look_up, look_up_replies
from .proposals import Committed, Proposal
from .settling import read_after, send_again

log = structlog.get_logger(__name__)

SETTLE_DEADLINE_S = 5.0
"""How long those in a commit wait for a definite outcome before they are told that it is
unknown.
"""
_CONFLICT_JITTER_S = 0.005
_FOLLOW_MOST = 2_000
"""A state that lies further behind is loaded anew."""
_FOLLOW_BYTES = 1 << 20

Published = Callable[[str, Page, Span | None], None]


class Sequencer:
    """Appends to logs. One instance serves one event loop.

    `published` is told of every page that was committed here, in the order of each log. `intents`
    carries appends where others see to what a node leaves undone. `effects` writes what a change
    brings about outside its log; it may be called again for the same change. The ids of commits
    begin with `tag`, at most 4 bytes.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        rng: random.Random,
        counters: Counters,
        published: Published,
        *,
        intents: Intents | None = None,
        tracer: Tracer = NO_TRACER,
        max_idle_logs: int = 20_000,
        tag: bytes = b"",
    ) -> None:
        self._store = store
        self._intents = intents
        self._appends: Intents | Store = store if intents is None else intents
        self._decided = _nothing if intents is None else intents.decided
        self._clock = clock
        self._rng = rng
        self._counters = counters
        self._published = published
        self._tracer = tracer
        self._max_idle_logs = max_idle_logs
        self._logs: OrderedDict[str, _Log] = OrderedDict()
        self._dirty: list[_Log] = []
        self._flush_scheduled = False
        # In the order of their beginning, so that they end in the same order in every run.
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._effects = EffectWriter(store, self._tasks, intents)
        # A commit id is a prefix for the process, random but for the node's tag, and a count: unique without asking for
        # randomness each time.
        self._commit_prefix = (tag + rng.getrandbits(64).to_bytes(8, "big"))[:8]
        self._commits = 0
        self._closed = False

    def set_effects(self, effects: Effects) -> None:
        """Sets what writes the effects of changes: they append to inboxes, by this very
        sequencer.
        """
        self._effects.effects = effects

    def submit(self, proposal: Proposal) -> None:
        """Queues a proposal. Its `done` is called once, later, with the outcome."""
        entry = self._log(proposal.log)
        if self._closed or entry.blocked:
            asyncio.get_running_loop().call_soon(proposal.tell, store_unavailable())
            return
        entry.queue.append(proposal)
        if not entry.busy:
            self._dirty.append(entry)
            if not self._flush_scheduled:
                self._flush_scheduled = True
                asyncio.get_running_loop().call_soon(self._flush)

    async def view(self, name: str, user_id: str) -> LogView:
        """A log as a user sees it, all at one position, which is no older than the call. Raises
        DomainError (STORE_UNAVAILABLE).
        """
        try:
            state = await self._current(name)
            while True:
                while user_id not in state.memberships:
                    known = state.memberships
                    rows = await self._store.memberships(name, [user_id])
                    before, state = state, await self._loaded(name)
                    # A change of the membership by a commit here was decided knowing it, and what is known
                    # stays. When the state was loaded anew meanwhile, or trimmed, others may have appended:
                    # the row may be older than the state.
                    if state is before and state.memberships is known:
                        if not self._log(name).busy:
                            state.trim()
                        state.know([user_id], rows)
                membership = state.memberships[user_id]
                if not self._store.shared or membership is None or membership.as_of <= state.head:
                    break
                # Others have appended what the row tells of: the state is to be as new.
                state = await self._current(name)
                if state.head < membership.as_of:
                    raise StoreUnavailable("a membership is ahead of its log")
        except StoreUnavailable:
            raise store_unavailable() from None
        return LogView(
            state.conversation,
            membership,
            state.head,
            state.ordinal,
            state.stamp,
        )

    async def folded(self, name: str) -> None:
        """Returns when what the entries up to the view before say of messages can be read. Raises DomainError
        (STORE_UNAVAILABLE).
        """
        entry = self._logs.get(name)
        folding = entry.folding if entry is not None else None
        if folding is not None:
            await asyncio.wait([folding], timeout=SETTLE_DEADLINE_S)
            if not folding.done():
                raise store_unavailable()

    async def state(self, name: str) -> LogState:
        """All that is known of a log, no older than the call, to be read at once. Raises DomainError
        (STORE_UNAVAILABLE).
        """
        try:
            return await self._current(name)
        except StoreUnavailable:
            raise store_unavailable() from None

    def member_count(self, name: str) -> int | None:
        """The number of members of a conversation, if it is known without reading."""
        entry = self._logs.get(name)
        return entry.state.conversation.member_count if entry and entry.state else None

    @property
    def loaded(self) -> int:
        """The number of logs that are in memory."""
        return len(self._logs)

    def loaded_state(self, name: str) -> LogState | None:
        """What is known of a log without reading; it may be old where others append as well."""
        entry = self._logs.get(name)
        return entry.state if entry is not None else None

    async def head(self, name: str) -> int:
        """The newest position of a log. Raises DomainError (STORE_UNAVAILABLE)."""
        return (await self.state(name)).head

    async def drain(self) -> None:
        """Returns when everything queued and under way has ended. New proposals are still taken."""
        # Only at the end of a process: not worth an event that the hot path would have to set.
        while self._tasks or any(  # noqa: ASYNC110
            e.queue or e.busy for e in self._logs.values()
        ):
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        """Refuses what is queued and stops every task. What is under way ends as the store has
        it.
        """
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for entry in self._logs.values():
            self._refuse_queue(entry, store_unavailable())

    # The hot path

    def _flush(self) -> None:
        self._flush_scheduled = False
        dirty, self._dirty = self._dirty, []
        for entry in dirty:
            self._advance(entry)

    def _advance(self, entry: _Log) -> None:
        """Begins the next commit of a log, or what must come before it."""
        if entry.busy or not entry.queue or self._closed:
            return
        try:
            self._begin(entry)
        except Exception:
            # Nothing is under way, and none of those who wait is committed.
            log.exception("sequencer_failed", log=entry.name)
            self._failed(entry)

    def _begin(self, entry: _Log) -> None:
        state = entry.state
        if state is None:
            self._run(entry, partial(self._prepare, entry))
            return
        self._commits += 1
        commit_id = self._commit_prefix + self._commits.to_bytes(8, "big")
        batch = build(state, entry.queue, self._now_ms(), commit_id)
        if batch is None:
            if entry.queue:
                self._run(entry, partial(self._prepare, entry))
            return
        span = self._trace(batch)
        entry.busy = True
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            answer = self._appends.append(batch.append)
        except ValueError:
            # It breaks a rule of the store, which has not begun it.
            entry.busy = False
            entry.queue.extendleft(p for p, _ in reversed(batch.accepted))
            raise
        except Exception as problem:  # noqa: BLE001 - it is in the log when the answer is looked at
            # It may have been begun all the same.
            answer = loop.create_future()
            answer.set_exception(problem)
        answer.add_done_callback(partial(self._answered, entry, batch, began, span))

    def _now_ms(self) -> int:
        return max(self._clock.now_ms(), self._store.stamp_floor)

    def _answered(
        self,
        entry: _Log,
        batch: Batch,
        began: float,
        span: Span | None,
        future: asyncio.Future[Outcome],
    ) -> None:
        entry.busy = False
        if future.cancelled() or future.exception() is not None:
            problem = None if future.cancelled() else future.exception()
            if isinstance(problem, StoreUnavailable):
                self._counters.store_errors += 1
                self._decided(entry.name)
                if span is not None:
                    self._tracer.end(span, Reason.STORE_UNAVAILABLE.name)
                for proposal, _ in batch.accepted:
                    proposal.tell(store_unavailable())
                self._idle(entry)
                return
            # A fault of the store's own: nothing is known of the outcome.
            log.error("append_failed", log=entry.name, exc_info=problem)
            self._unsettled(entry, batch, span)
            return
        answer = future.result()
        if answer is APPLIED:
            self._counters.commit_duration_seconds.observe(
                asyncio.get_running_loop().time() - began
            )
            self._applied(entry, batch, span)
            self._idle(entry)
        elif isinstance(answer, Conflict):
            self._run(entry, partial(self._conflict, entry, batch, span))
        else:
            self._unsettled(entry, batch, span)

    def _unsettled(self, entry: _Log, batch: Batch, span: Span | None) -> None:
        if self._closed:
            _tell_unknown(batch)
        else:
            self._run(entry, partial(self._settle, entry, batch, span))

    def _applied(self, entry: _Log, batch: Batch, span: Span | None) -> None:
        """A commit of ours is durable: moves the state, tells the senders, publishes, begins the
        effects.
        """
        state = entry.state
        assert state is not None
        page = batch.append.page
        before = state.pending
        state.apply(page, batch.changes)
        state.pending = (*before, *(c.seq for c in batch.changes))
        self._counters.commits += 1
        self._counters.commit_entries.observe(page.count)
        if span is not None:
            self._tracer.end(span)
        for proposal, committed in batch.accepted:
            if not proposal.changes_state:
                proposal.tell(committed)
        self._published(entry.name, page, span)
        if batch.changes:
            self._effects.begin(entry, batch)
        self._decided(entry.name)

    def _trace(self, batch: Batch) -> Span | None:
        spans = [p.span for p, _ in batch.accepted if p.span is not None]
        if not spans:
            return None
        span = self._tracer.child(spans[0], "commit", links=spans[1:])
        self._tracer.set(span, "entries", batch.append.page.count)
        self._tracer.set(span, "seq", batch.append.page.first_seq)
        return span

    # What must be read first

    async def _prepare(self, entry: _Log) -> None:
        """Loads the log, or reads what the first proposal in the queue needs."""
        proposal = entry.queue[0]
        try:
            if entry.state is None or (self._store.shared and not proposal.verified):
                # Whoever would be refused on what is known here must not be, if others have appended.
                asked = list(entry.queue)
                await (self._load(entry) if entry.state is None else self._follow(entry))
                for proposal in asked:
                    proposal.verified = True
                return
            state = entry.state
            # Nothing of the log is under way: what is forgotten now is not needed by a commit.
            state.trim()
            unknown = [u for u in proposal.users() if u not in state.memberships]
            if unknown:
                state.know(unknown, await self._store.memberships(entry.name, unknown))
            told = await look_up(self._store, state, proposal, entry.queue)
            if not entry.queue or entry.queue[0] is not proposal:
                return
            if told is not None:
                entry.queue.popleft()
                proposal.tell(told)
                return
            if proposal.says.reply_to is not None:
                await look_up_replies(self._store, state, entry.queue)
            if proposal.has_effects and len(state.pending) >= MAX_PENDING:
                await self._effects_written(entry)
            if proposal.changes_state:
                if proposal.reads:
                    await self._effects_written(entry)
                    await proposal.read(self._store)
                told = self._without_commit(state, proposal)
                if told is not None:
                    entry.queue.popleft()
                    proposal.tell(told)
                    return
                await self._before_change(entry, proposal)
                proposal.ready = True
        except StoreUnavailable:
            self._counters.store_errors += 1
            self._refuse_queue(entry, store_unavailable())

    def _without_commit(
        self, state: LogState, proposal: Proposal
    ) -> Committed | DomainError | None:
        """The outcome of a proposal that is not to be committed, for which nothing is written or waited for. It is
        final: a moment later it might be committed after all, without what must come before.
        """
        stamp = max(self._now_ms(), state.stamp)
        try:
            return Committed(0, stamp) if decide(state, proposal, stamp) is None else None
        except DomainError as problem:
            return problem

    async def _effects_written(self, entry: _Log) -> None:
        if entry.effects is not None:
            await asyncio.wait([entry.effects], timeout=SETTLE_DEADLINE_S)
            if entry.effects is not None:
                raise StoreUnavailable("the effects of an earlier change can't be written")

    async def _before_change(self, entry: _Log, proposal: Proposal) -> None:
        # One change at a time: the next is decided when the effects of the last are written.
        await self._effects_written(entry)
        joining = proposal.joining()
        if joining:
            await self._store.put_user_logs(entry.name, joining)

    async def _load(self, entry: _Log) -> None:
        state = await load(self._store, entry.name, self._clock.now_ms())
        if state.pending:
            await self._effects.repeat(state)
        entry.state = state

    async def _loaded(self, name: str) -> LogState:
        """The state of a log, loading it when need be, never while a commit of it settles."""
        entry = self._log(name)
        while entry.state is None:
            if entry.busy:
                await self._at_rest(entry)
            else:
                entry.busy = True
                try:
                    await self._load(entry)
                finally:
                    self._idle(entry)
        return entry.state

    # What others append

    async def _current(self, name: str) -> LogState:
        """The state of a log, no older than this call: where others append as well, the head decides."""
        if not self._store.shared:
            return await self._loaded(name)
        head = (await self._store.heads([name])).get(name)
        while True:
            state = await self._loaded(name)
            if head is None or state.head >= head.last_seq:
                return state
            entry = self._log(name)
            if entry.busy:
                await self._at_rest(entry)
                continue
            entry.busy = True
            try:
                await self._follow(entry)
            finally:
                self._idle(entry)

    async def _follow(self, entry: _Log) -> None:
        """Brings the state to the head, while nothing of the log is under way here."""
        state = entry.state
        assert state is not None
        head = (await self._store.heads([entry.name])).get(entry.name)
        if head is None or head.last_seq <= state.head:
            return
        # Until all is told of again, nothing may be decided on the half of it.
        entry.state = None
        if head.last_seq - state.head > _FOLLOW_MOST:
            await self._load(entry)
            return
        while state.head < head.last_seq:
            pages = await self._store.read(
                entry.name, state.head, max_bytes=_FOLLOW_BYTES, upto=head.last_seq
            )
            if not pages:
                raise StoreUnavailable("a head is ahead of what can be read")
            for page in pages:
                changes: Sequence[Entry] = ()
                if page.flags & PageFlag.STATE:
                    changes = decode_entries(page.body)
                    # A row that is being read meanwhile may be older than the page: `view` reads it again.
                    state.memberships = dict(state.memberships)
                state.apply(page, changes)
        state.pending = head.pending
        if state.pending:
            await self._effects.repeat(state)
        entry.state = state

    async def _at_rest(self, entry: _Log) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry.waiters.append(waiter)
        await waiter

    # What must be settled

    async def _settle(self, entry: _Log, batch: Batch, span: Span | None) -> None:
        """Sends the identical append again until the answer is definite."""
        self._counters.unknown_outcomes += 1
        deadline = asyncio.get_running_loop().call_later(
            SETTLE_DEADLINE_S, self._block, entry, batch
        )
        try:
            answer = await send_again(self._appends.append, batch.append, self._rng, self._counters)
            if answer is APPLIED:
                self._applied(entry, batch, span)
            else:
                await self._conflict(entry, batch, span, unknown_before=True)
        except asyncio.CancelledError:
            _tell_unknown(batch)
            raise
        finally:
            deadline.cancel()
            entry.blocked = False

    def _block(self, entry: _Log, batch: Batch) -> None:
        """An outcome stays unknown for long: nobody waits for this log any more."""
        entry.blocked = True
        _tell_unknown(batch)
        self._refuse_queue(entry, store_unavailable())

    async def _conflict(
        self, entry: _Log, batch: Batch, span: Span | None, *, unknown_before: bool = False
    ) -> None:
        """Puts the proposals back to be decided anew on what others appended; unless the page there
        is our own.
        """
        state = entry.state
        assert state is not None
        if unknown_before:
            pages = await read_after(self._store, entry.name, state.head, self._counters)
            if pages and pages[0].commit_id == batch.append.page.commit_id:
                self._applied(entry, batch, span)
                return
        self._decided(entry.name)
        self._counters.conflicts += 1
        if span is not None:
            self._tracer.end(span, "CONFLICT")
        # They are none of the batch's any more: nobody must be told twice.
        accepted, batch.accepted = batch.accepted, []
        for proposal, _ in reversed(accepted):
            # What was looked up before the others appended proves nothing of what they did.
            proposal.forget()
            entry.queue.appendleft(proposal)
        # What the others appended brings effects and pending changes that only a load sees whole.
        entry.state = None
        await asyncio.sleep(self._rng.uniform(0, _CONFLICT_JITTER_S))

    # Housekeeping

    def _log(self, name: str) -> _Log:
        entry = self._logs.get(name)
        if entry is None:
            # Before it is there: it has nothing to hold it yet.
            if len(self._logs) >= self._max_idle_logs:
                self._evict()
            entry = self._logs[name] = _Log(name)
        else:
            self._logs.move_to_end(name)
        return entry

    def _evict(self) -> None:
        """Forgets the log that was used the longest ago, if it is at rest."""
        for name, entry in self._logs.items():
            if not (entry.queue or entry.busy or entry.effects or entry.waiters):
                del self._logs[name]
                return

    def _run(self, entry: _Log, work: Callable[[], Awaitable[None]]) -> None:
        entry.busy = True
        task = asyncio.get_running_loop().create_task(self._busy(entry, work))
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    async def _busy(self, entry: _Log, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception:
            log.exception("sequencer_failed", log=entry.name)
            self._failed(entry)
        finally:
            self._idle(entry)

    def _failed(self, entry: _Log) -> None:
        entry.state = None
        self._refuse_queue(
            entry, DomainError(Reason.INTERNAL, "The server met a fault of its own.")
        )

    def _idle(self, entry: _Log) -> None:
        entry.busy = False
        if self._closed:
            self._refuse_queue(entry, store_unavailable())
        waiters, entry.waiters = entry.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._advance(entry)

    def _refuse_queue(self, entry: _Log, problem: DomainError) -> None:
        queue, entry.queue = entry.queue, deque()
        for proposal in queue:
            proposal.tell(problem)


def _nothing(_: str) -> None:
    """Nobody looks after what this node leaves."""


def _tell_unknown(batch: Batch) -> None:
    """Tells the senders, who then are none of the batch's any more."""
    accepted, batch.accepted = batch.accepted, []
    for proposal, _ in accepted:
        proposal.tell(outcome_unknown())
