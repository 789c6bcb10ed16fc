"""Takeover: one living node tells of what a node without a lease may have left untold.

Such a node is dead, or cut off and still appending. Its intents name the logs: their heads are published as often as
they have moved while there are any, so that receivers catch up without connecting anew. An intent is removed once it
was seen for so long that nothing is begun on it any more, nor can take effect, and what was published after that was
taken by the bus. All of it may be done by several nodes at once, and again by the next one when this one dies.

Times of other nodes mean nothing here: only how long this node has seen a round counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from ..bus.base import Bus, HeadPublished
from ..core.homes import home_of
from ..errors import DomainError
from ..presence.base import Leases
from ..storage.base import Head, Store, StoreUnavailable
from ..telemetry.counters import Counters
from .intents import LATE_S, ROUND_S
from .sequencer import Sequencer

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 5.0
"""How often a node looks for intents of nodes without a lease, about; and at once when a lease ends."""
_LOGS_AT_ONCE = 500
_SETTLED_AT_ONCE = 32
"""Each is a request of its own, and others wait meanwhile."""


@dataclass(slots=True)
class _Owner:
    """A node that is looked after: since when its rounds are seen, how far others were told that its logs go, the logs
    with changes whose effects may not be written, and up to which round it may be forgotten at which mark of the bus.
    """

    seen: dict[int, float] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)
    unwritten: dict[str, None] = field(default_factory=dict)
    told_all: tuple[int, int] | None = None


class Takeover:
    """Looks after nodes that have no lease."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        leases: Leases,
        sequencer: Sequencer,
        rng: random.Random,
        counters: Counters,
    ) -> None:
        self._store = store
        self._bus = bus
        self._leases = leases
        self._sequencer = sequencer
        self._rng = rng
        self._counters = counters
        self._owners: dict[str, _Owner] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Ends it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def look_soon(self) -> None:
        """A lease may have ended."""
        self._wake.set()

    async def _run(self) -> None:
        waits = False
        while True:
            self._wake.clear()
            try:
                await self._look()
                waits = False
            except StoreUnavailable as problem:
                # Once an outage.
                if not waits:
                    log.warning("takeover_waits", cause=str(problem))
                waits = True
            except Exception:
                log.exception("takeover_failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S * self._rng.uniform(0.8, 1.0)):
                    await self._wake.wait()

    async def _look(self) -> None:
        if not self._leases.informed:
            # Nobody would hear of it; and if all nodes are cut off, each would look after all others.
            return
        found = await self._store.intent_nodes()
        living = self._leases.nodes()
        me = self._leases.node.node_id
        owners = [o for o in found if o not in living and home_of(o, living) == me]
        for owner in self._owners.keys() - owners:
            del self._owners[owner]
        for owner in owners:
            if owner not in self._owners:
                log.info("node_taken_over", node=owner)
                self._owners[owner] = _Owner()
        problem: StoreUnavailable | None = None
        for owner in owners:
            try:
                await self._look_after(owner, self._owners[owner])
            except StoreUnavailable as this:
                problem = this
            except Exception:
                # What one has left must not keep the others from being looked after.
                log.exception("takeover_failed", node=owner)
        if problem is not None:
            raise problem

    async def _look_after(self, owner: str, state: _Owner) -> None:
        rounds = await self._store.intent_rounds(owner)
        now = asyncio.get_running_loop().time()
        final = -1
        for number in rounds:
            if now - state.seen.setdefault(number, now) >= ROUND_S + LATE_S:
                final = number
        logs: dict[str, None] = {}
        for number in rounds:
            logs.update(dict.fromkeys(await self._tell_round(owner, state, number, final)))
        state.told = {name: seq for name, seq in state.told.items() if name in logs}
        await self._write_effects(state)
        if final >= 0 and state.told_all is None and not state.unwritten:
            state.told_all = (final, self._bus.mark())
        if state.told_all is not None and self._bus.taken(state.told_all[1]):
            upto = state.told_all[0]
            await self._store.clear_intents(owner, upto)
            state.told_all = None
            state.seen = {number: since for number, since in state.seen.items() if number > upto}

    async def _tell_round(self, owner: str, state: _Owner, number: int, final: int) -> list[str]:
        """Publishes how far the logs of a round go; gives their names. Of a round that is read for the last time, what
        was left half-way is decided first.
        """
        read, at_once = self._store.heads, _LOGS_AT_ONCE
        if number <= final:
            read, at_once = self._store.settled_heads, _SETTLED_AT_ONCE
        found: list[str] = []
        after = ""
        while True:
            logs = await self._store.intents(owner, number, after=after, limit=_LOGS_AT_ONCE)
            for at in range(0, len(logs), at_once):
                self._tell(state, (await read(logs[at : at + at_once])).items())
            found += logs
            if len(logs) < _LOGS_AT_ONCE:
                return found
            after = logs[-1]

    def _tell(self, state: _Owner, heads: Iterable[tuple[str, Head]]) -> None:
        for name, head in heads:
            if head.last_seq <= state.told.get(name, 0):
                continue
            state.told[name] = head.last_seq
            self._counters.heads_taken_over += 1
            self._bus.publish(HeadPublished(name, head.last_seq))
            if head.pending:
                state.unwritten[name] = None

    async def _write_effects(self, state: _Owner) -> None:
        """Who was added by a change may have no session that follows its log, and so nobody who would load it."""
        for name in list(state.unwritten):
            try:
                await self._sequencer.head(name)
            except DomainError as problem:
                log.warning("effects_wait", log=name, cause=str(problem))
            except Exception:
                log.exception("effects_wait", log=name)
            else:
                del state.unwritten[name]
