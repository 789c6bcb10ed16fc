"""Acknowledged positions on their way to the store: cursors and delivered marks, gathered so that
a device that acknowledges often costs few writes.

A cursor that is lost with the process only means that a device is offered what it has.
"""

from __future__ import annotations

import asyncio

import structlog

from ..bus.base import Bus, NoticePublished
from ..codec.events import receipt_event
from ..core.ids import is_inbox
from ..core.principal import Principal
from ..errors import DomainError
from ..messaging.receipts import keeps_delivered, tells_live
from ..messaging.sequencer import Sequencer
from ..storage.base import CursorRow, Receipt, Store, StoreUnavailable

log = structlog.get_logger(__name__)

FLUSH_AFTER_S = 0.25
_AGAIN_AFTER_S = 2.0


class AckBook:
    """Gathers acknowledgements and writes them a moment later."""

    def __init__(self, store: Store, sequencer: Sequencer, bus: Bus) -> None:
        self._store = store
        self._sequencer = sequencer
        self._bus = bus
        # By user and device, then by log. Those that are just being written are still remembered.
        self._cursors: dict[tuple[str, str], dict[str, int]] = {}
        self._being_written: dict[tuple[str, str], dict[str, int]] = {}
        self._delivered: dict[tuple[str, str], int] = {}
        self._refused = False
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def note(self, principal: Principal, name: str, seq: int) -> None:
        """A device has applied a log up to a position."""
        user = principal.user_id
        cursors = self._cursors.setdefault((user, principal.device_id), {})
        if cursors.get(name, 0) < seq:
            cursors[name] = seq
        if not is_inbox(name) and self._delivered.get((name, user), 0) < seq:
            self._delivered[name, user] = seq
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_AFTER_S, self._begin)

    def remembered(self, principal: Principal) -> dict[str, int]:
        """The cursors of a device that are not written yet."""
        return self.remembered_of(principal.user_id, principal.device_id)

    def remembered_of(self, user_id: str, device_id: str) -> dict[str, int]:
        """The same, by the names of user and device."""
        key = (user_id, device_id)
        return {**self._being_written.get(key, {}), **self._cursors.get(key, {})}

    async def close(self) -> None:
        """Writes what was gathered."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is not None:
            await asyncio.wait([self._writing])
        await self._write()

    async def _keeps(self, name: str, user: str, seq: int) -> bool:
        """Whether a delivered mark of a conversation is kept. When that can't be told now, it is left for later."""
        count = self._sequencer.member_count(name)
        if count is None:
            # Nobody has written to it for a while: it must be loaded.
            try:
                count = (await self._sequencer.state(name)).conversation.member_count
            except DomainError:
                self._put_back({}, {(name, user): seq})
                return False
        return keeps_delivered(count)

    def _begin(self) -> None:
        self._timer = None
        self._writing = asyncio.get_running_loop().create_task(self._write_and_go_on())

    async def _write_and_go_on(self) -> None:
        try:
            await self._write()
        finally:
            self._writing = None
            if (self._cursors or self._delivered) and not self._closed:
                delay = _AGAIN_AFTER_S if self._refused else FLUSH_AFTER_S
                self._timer = asyncio.get_running_loop().call_later(delay, self._begin)

    async def _write(self) -> None:
        cursors, self._cursors = self._cursors, {}
        self._being_written = cursors
        delivered, self._delivered = self._delivered, {}
        self._refused = False
        receipts = []
        try:
            if cursors:
                rows = [
                    CursorRow(user, device, name, seq)
                    for (user, device), seqs in cursors.items()
                    for name, seq in seqs.items()
                ]
                await self._store.put_cursors(rows)
            receipts = [
                Receipt(name, user, delivered_seq=seq)
                for (name, user), seq in delivered.items()
                if await self._keeps(name, user, seq)
            ]
            if receipts:
                await self._store.put_receipts(receipts)
        except StoreUnavailable as problem:
            log.warning("acks_not_written", cause=str(problem), cursors=len(cursors))
            self._put_back(cursors, delivered)
            return
        except Exception:
            log.exception("acks_failed", cursors=len(cursors))
            self._put_back(cursors, delivered)
            return
        finally:
            self._being_written = {}
        for r in receipts:
            if tells_live(self._sequencer.member_count(r.log)):
                event = receipt_event(r.log, r.user_id, r.delivered_seq, 0)
                self._bus.publish(NoticePublished(r.log, event))

    def _put_back(
        self, cursors: dict[tuple[str, str], dict[str, int]], delivered: dict[tuple[str, str], int]
    ) -> None:
        """They are written later: a device that names its cursors acknowledges nothing twice."""
        self._refused = True
        for key, seqs in cursors.items():
            newer = self._cursors.setdefault(key, {})
            for name, seq in seqs.items():
                newer[name] = max(seq, newer.get(name, 0))
        for mark, seq in delivered.items():
            self._delivered[mark] = max(seq, self._delivered.get(mark, 0))
