"""History: reading a log in either direction from any position, within what the caller may see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..codec.overlays import load_overlay
from ..core.commands import (
    GetMessage,
    HistoryListed,
    ListHistory,
    ListPins,
    ListReactions,
    MessageGot,
    PinsListed,
    ReactionsListed,
)
from ..core.ids import inbox_log, is_inbox
from ..core.memberships import Membership
from ..core.pages import Page, cut, pieces
from ..core.permissions import Right, check
from ..core.principal import Principal
from ..errors import conversation_not_found, invalid, message_not_found
from ..storage.base import Store
from ..storage.tail_cache import TailCache
from .lookup import find_positions
from .message_states import MessageStates
from .sequencer import Sequencer

_CHUNK_BYTES = 256 * 1024
_MOST_BYTES = 2 << 20
"""A page of history ends here even if fewer entries were asked for; clients have gRPC's default
limit of 4 MiB.
"""


@dataclass(frozen=True, slots=True)
class _Visible:
    """What a user may see of a log that ends at `head`: the parts, ascending; the last position, or None for a
    member; and whether anything ever happened to a message in it.
    """

    user_id: str
    ranges: list[tuple[int, int]]
    upto: int | None
    head: int
    changed: bool


class History:
    """Handles the commands that read entries. Raises DomainError, and StoreUnavailable."""

    def __init__(
        self, store: Store, pages: TailCache, sequencer: Sequencer, states: MessageStates
    ) -> None:
        self._store = store
        self._states = states
        self._pages = pages
        self._sequencer = sequencer

    async def list_entries(self, caller: Principal, command: ListHistory) -> HistoryListed:
        """Lists entries."""
        log = command.conversation_id
        visible = await self._visible(caller, log)
        ranges = visible.ranges
        start = _position(command.page_token) or command.from_seq
        if command.ascending:
            found = await self._ascending(log, visible, start, command.page_size)
        else:
            found = await self._descending(log, ranges, start, command.page_size)
        if not found:
            return HistoryListed(b"", "")
        parts, last = await self._with_states(log, found, visible)
        if command.ascending:
            token = str(last + 1) if last < ranges[-1][1] else ""
        else:
            token = str(last - 1) if last > ranges[0][0] else ""
        return HistoryListed(b"".join(parts), token)

    async def get(self, caller: Principal, command: GetMessage) -> MessageGot:
        """Gets one entry."""
        log = command.conversation_id
        readable = await self._visible(caller, log)
        ranges = readable.ranges
        positions, field = {command.seq}, "seq"
        if command.id is not None:
            state = await self._sequencer.state(log)
            joined = ranges[0][0] if ranges else 1
            positions = await find_positions(self._store, state, command.id, joined=joined)
            field = "message_id"
        visible = [s for s in positions if any(low <= s <= high for low, high in ranges)]
        if not visible:
            raise message_not_found(field)
        seq = min(visible)
        parts = await self._one(log, seq, readable)
        if not parts:
            raise message_not_found(field)
        event, *became = parts
        return MessageGot(event, b"".join(became))

    async def reactions(self, caller: Principal, command: ListReactions) -> ReactionsListed:
        """Lists who has reacted to a message."""
        log, seq, size = command.conversation_id, command.seq, command.page_size
        view = await self._sequencer.view(log, caller.user_id)
        membership = check(view.conversation, view.membership, Right.READ)
        if seq > view.head or not membership.visible(seq):
            raise message_not_found("seq")
        await self._sequencer.folded(log)
        rows = await self._store.overlays(log, seq, seq)
        if not rows or not load_overlay(rows[0].body).reactions:
            return ReactionsListed((), "")
        found = await self._store.list_reactions(
            log, seq, after_user=command.page_token, limit=size
        )
        # Whoever was removed while this was read is not told what came after.
        view = await self._sequencer.view(log, caller.user_id)
        check(view.conversation, view.membership, Right.READ)
        token = found[-1].user_id if len(found) == size else ""
        return ReactionsListed(tuple((row.user_id, row.reaction) for row in found), token)

    async def pins(self, caller: Principal, command: ListPins) -> PinsListed:
        """Lists the pinned messages."""
        log = command.conversation_id
        view = await self._sequencer.view(log, caller.user_id)
        membership = check(view.conversation, view.membership, Right.READ)
        visible = await self._visible(caller, log)
        parts: list[bytes] = []
        for seq in reversed(view.conversation.pins):
            if membership.visible(seq):
                parts += await self._one(log, seq, visible)
        # Whoever was removed while this was read is not told what came after.
        view = await self._sequencer.view(log, caller.user_id)
        check(view.conversation, view.membership, Right.READ)
        return PinsListed(b"".join(parts))

    async def _one(self, log: str, seq: int, visible: _Visible) -> list[bytes]:
        """The entry at a position and what became of it, or nothing when it is not there."""
        pages = await self._pages.read(log, seq - 1, max_bytes=1, upto=seq, head=visible.head)
        if not pages:
            return []
        parts, _ = await self._with_states(log, [(seq, cut(pages[0], seq, seq))], visible)
        return parts

    async def _with_states(
        self, log: str, found: list[tuple[int, bytes]], visible: _Visible
    ) -> tuple[list[bytes], int]:
        """Entries, each followed by what became of it; and the position of the last one that there is room for."""
        states = {}
        if visible.changed:
            seqs = [seq for seq, _ in found]
            states = await self._states.between(
                log, visible.user_id, min(seqs), max(seqs), visible.upto, visible.head
            )
        parts: list[bytes] = []
        size = last = 0
        for seq, part in found:
            state = states.get(seq, b"")
            size += len(part) + len(state)
            if parts and size > _MOST_BYTES:
                break
            parts += (part, state)
            last = seq
        return parts, last

    async def _visible(self, caller: Principal, log: str) -> _Visible:
        """What the caller may see of a log."""
        if is_inbox(log):
            if log != inbox_log(caller.user_id):
                raise conversation_not_found()
            head = await self._sequencer.head(log)
            return _Visible(caller.user_id, [(1, head)] if head else [], None, head, changed=False)
        view = await self._sequencer.view(log, caller.user_id)
        membership: Membership | None = view.membership
        if view.conversation.kind is None or membership is None:
            raise conversation_not_found()
        await self._sequencer.folded(log)
        changed = view.conversation.changed_bucket > 0
        return _Visible(
            caller.user_id,
            membership.ranges(1, view.head),
            membership.last_visible,
            view.head,
            changed,
        )

    async def _ascending(
        self, log: str, visible: _Visible, start: int, count: int
    ) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        size = 0
        for low, high in visible.ranges:
            at = max(low, start)
            while at <= high and len(found) < count and size < _MOST_BYTES:
                pages = await self._pages.read(
                    log, at - 1, max_bytes=_CHUNK_BYTES, upto=high, head=visible.head
                )
                if not pages:
                    return found
                for part in _split(pages, at, min(high, at + count - len(found) - 1)):
                    found.append((at, part))
                    size += len(part)
                    at += 1
                    if size >= _MOST_BYTES:
                        break
        return found

    async def _descending(
        self, log: str, ranges: list[tuple[int, int]], start: int, count: int
    ) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        size = 0
        for low, high in reversed(ranges):
            at = min(high, start) if start else high
            while at >= low and len(found) < count and size < _MOST_BYTES:
                pages = await self._store.read_back(log, at + 1, max_bytes=_CHUNK_BYTES)
                if not pages:
                    return found
                first = max(low, at - (count - len(found)) + 1, pages[-1].first_seq)
                for part in reversed(_split(list(reversed(pages)), first, at)):
                    found.append((at, part))
                    size += len(part)
                    at -= 1
                    if size >= _MOST_BYTES:
                        break
        return found


def _split(pages: Sequence[Page], first: int, last: int) -> list[bytes]:
    """The entries from `first` to `last`, one by one, of pages that follow each other."""
    parts: list[bytes] = []
    for page in pages:
        body = cut(page, first, last)
        parts.extend(body[begin:end] for begin, end in pieces(body))
    return parts


def _position(token: str) -> int:
    if not token:
        return 0
    if not token.isdecimal() or len(token) > 18:
        raise invalid("page_token", "is none that this server made")
    return int(token)
