"""Receipts: how far members have got and read, as registers that only grow."""

from __future__ import annotations

from ..bus.base import Bus, NoticePublished
from ..codec.entries import decode_entries
from ..codec.events import receipt_event
from ..core.commands import (
    Delivered,
    GetUnread,
    ListReceipts,
    MarkDelivered,
    MarkRead,
    Read,
    ReceiptMarks,
    ReceiptsListed,
    UnreadCount,
    UnreadGot,
)
from ..core.pages import cut
from ..core.permissions import Right, check
from ..core.principal import Principal
from ..core.state import GROUP_MEMBERS, SMALL_MEMBERS
from ..storage.base import Receipt, Store
from ..storage.tail_cache import TailCache
from .log_state import LogView
from .mentions import count_unread
from .sequencer import Sequencer


class Receipts:
    """Handles the commands about receipts. Raises DomainError, and StoreUnavailable."""

    def __init__(self, store: Store, pages: TailCache, sequencer: Sequencer, bus: Bus) -> None:
        self._store = store
        self._pages = pages
        self._sequencer = sequencer
        self._bus = bus

    async def mark_delivered(self, caller: Principal, command: MarkDelivered) -> Delivered:
        """Moves the delivered mark."""
        log, user = command.conversation_id, caller.user_id
        view = await self._member(caller, log)
        before = await self._of(user, log)
        seq = min(command.seq, view.head)
        if seq <= before.delivered_seq:
            return Delivered(before.delivered_seq)
        await self._store.put_receipts([Receipt(log, user, delivered_seq=seq)])
        self._tell(view, log, user, seq, before.read_seq)
        return Delivered(seq)

    async def mark_read(self, caller: Principal, command: MarkRead) -> Read:
        """Moves the read mark. What was read was delivered."""
        log, user = command.conversation_id, caller.user_id
        view = await self._member(caller, log)
        assert view.membership is not None
        before = await self._of(user, log)
        joined = view.membership.intervals[-1].join_ordinal
        seq = min(command.seq, view.head)
        if seq <= before.read_seq or seq < view.membership.join_seq:
            unread = view.ordinal - max(before.read_ordinal, joined)
            return Read(before.read_seq, max(unread, 0))
        ordinal = view.ordinal if seq == view.head else await self._ordinal(log, seq)
        await self._store.put_receipts([Receipt(log, user, seq, seq, ordinal)])
        self._tell(view, log, user, max(seq, before.delivered_seq), seq)
        return Read(seq, max(view.ordinal - max(ordinal, joined), 0))

    async def list_receipts(self, caller: Principal, command: ListReceipts) -> ReceiptsListed:
        """Lists the marks of current members."""
        log = command.conversation_id
        await self._member(caller, log)
        rows = await self._store.list_receipts(
            log, after_user=command.page_token, limit=command.page_size + 1
        )
        more = len(rows) > command.page_size
        rows = rows[: command.page_size]
        members = await self._store.memberships(log, [r.user_id for r in rows])
        marks = tuple(
            ReceiptMarks(r.user_id, r.delivered_seq, r.read_seq)
            for r in rows
            if r.user_id in members and members[r.user_id].current
        )
        return ReceiptsListed(marks, rows[-1].user_id if more else "")

    async def unread(self, caller: Principal, command: GetUnread) -> UnreadGot:
        """Counts unread messages. Nothing is scanned: counts are differences of ordinals."""
        user = caller.user_id
        logs = list(command.conversation_ids) or await self._store.user_logs(user)
        heads = await self._store.heads(logs)
        rows = await self._store.memberships_of(user, list(heads))
        receipts = await self._store.receipts_of(user, list(heads))
        counts = []
        for log, head in heads.items():
            membership = rows.get(log)
            if head.pending:
                membership = (await self._sequencer.view(log, user)).membership
            if membership is None or not membership.current:
                continue
            receipt = receipts.get(log, Receipt(log, user))
            unread = head.ordinal - max(receipt.read_ordinal, membership.intervals[-1].join_ordinal)
            if unread <= 0:
                continue
            await self._sequencer.folded(log)
            mentions = await count_unread(
                self._store, log, user, receipt.read_seq, membership.join_seq
            )
            counts.append(UnreadCount(log, unread, receipt.read_seq, mentions))
        return UnreadGot(tuple(counts))

    async def _member(self, caller: Principal, log: str) -> LogView:
        view = await self._sequencer.view(log, caller.user_id)
        check(view.conversation, view.membership, Right.READ)
        return view

    async def _of(self, user: str, log: str) -> Receipt:
        return (await self._store.receipts_of(user, [log])).get(log, Receipt(log, user))

    async def _ordinal(self, log: str, seq: int) -> int:
        pages = await self._pages.read(log, seq - 1, max_bytes=1, upto=seq)
        (entry,) = decode_entries(cut(pages[0], seq, seq))
        return entry.ordinal

    def _tell(self, view: LogView, log: str, user: str, delivered: int, read: int) -> None:
        if tells_live(view.conversation.member_count):
            event = receipt_event(log, user, delivered, read)
            self._bus.publish(NoticePublished(log, event))


def keeps_delivered(member_count: int | None) -> bool:
    """Whether delivered marks of single members are kept at this size."""
    return member_count is not None and member_count <= GROUP_MEMBERS


def tells_live(member_count: int | None) -> bool:
    """Whether receipts of single members are told live at this size."""
    return member_count is not None and member_count <= SMALL_MEMBERS
