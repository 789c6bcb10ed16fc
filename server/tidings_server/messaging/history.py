"""History: reading a log in either direction from any position, within what the caller may see."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.commands import GetMessage, HistoryListed, ListHistory, MessageGot
from ..core.ids import inbox_log, is_inbox
from ..core.memberships import Membership
from ..core.pages import Page, cut, pieces
from ..core.principal import Principal
from ..errors import DomainError, Reason, conversation_not_found, invalid
from ..storage.base import Store
from ..storage.tail_cache import TailCache
from .lookup import find_positions
from .sequencer import Sequencer

_CHUNK_BYTES = 256 * 1024
_MOST_BYTES = 2 << 20
"""A page of history ends here even if fewer entries were asked for; clients have gRPC's default
limit of 4 MiB.
"""


class History:
    """Handles the commands that read entries. Raises DomainError, and StoreUnavailable."""

    def __init__(self, store: Store, pages: TailCache, sequencer: Sequencer) -> None:
        self._store = store
        self._pages = pages
        self._sequencer = sequencer

    async def list_entries(self, caller: Principal, command: ListHistory) -> HistoryListed:
        """Lists entries."""
        log = command.conversation_id
        ranges = await self._visible(caller, log)
        start = _position(command.page_token) or command.from_seq
        if command.ascending:
            parts, last = await self._ascending(log, ranges, start, command.page_size)
            more = bool(ranges) and last < ranges[-1][1]
            token = str(last + 1) if parts and more else ""
        else:
            parts, last = await self._descending(log, ranges, start, command.page_size)
            more = bool(ranges) and last > ranges[0][0]
            token = str(last - 1) if parts and more else ""
        return HistoryListed(b"".join(parts), token)

    async def get(self, caller: Principal, command: GetMessage) -> MessageGot:
        """Gets one entry."""
        log = command.conversation_id
        ranges = await self._visible(caller, log)
        positions, field = {command.seq}, "seq"
        if command.id is not None:
            state = await self._sequencer.state(log)
            joined = ranges[0][0] if ranges else 1
            positions = await find_positions(self._store, state, command.id, joined=joined)
            field = "message_id"
        visible = [s for s in positions if any(low <= s <= high for low, high in ranges)]
        if not visible:
            raise _message_not_found(field)
        seq = min(visible)
        pages = await self._pages.read(log, seq - 1, max_bytes=1, upto=seq)
        if not pages:
            raise _message_not_found(field)
        return MessageGot(cut(pages[0], seq, seq))

    async def _visible(self, caller: Principal, log: str) -> list[tuple[int, int]]:
        """The parts of a log that the caller may see, ascending."""
        if is_inbox(log):
            if log != inbox_log(caller.user_id):
                raise conversation_not_found()
            head = await self._sequencer.head(log)
            return [(1, head)] if head else []
        view = await self._sequencer.view(log, caller.user_id)
        membership: Membership | None = view.membership
        if view.conversation.kind is None or membership is None:
            raise conversation_not_found()
        return membership.ranges(1, view.head)

    async def _ascending(
        self, log: str, ranges: list[tuple[int, int]], start: int, count: int
    ) -> tuple[list[bytes], int]:
        parts: list[bytes] = []
        size = last = 0
        for low, high in ranges:
            at = max(low, start)
            while at <= high and len(parts) < count and size < _MOST_BYTES:
                pages = await self._pages.read(log, at - 1, max_bytes=_CHUNK_BYTES, upto=high)
                if not pages:
                    return parts, last
                for part in _split(pages, at, min(high, at + count - len(parts) - 1)):
                    parts.append(part)
                    size += len(part)
                    last, at = at, at + 1
                    if size >= _MOST_BYTES:
                        break
        return parts, last

    async def _descending(
        self, log: str, ranges: list[tuple[int, int]], start: int, count: int
    ) -> tuple[list[bytes], int]:
        parts: list[bytes] = []
        size = last = 0
        for low, high in reversed(ranges):
            at = min(high, start) if start else high
            while at >= low and len(parts) < count and size < _MOST_BYTES:
                pages = await self._store.read_back(log, at + 1, max_bytes=_CHUNK_BYTES)
                if not pages:
                    return parts, last
                first = max(low, at - (count - len(parts)) + 1, pages[-1].first_seq)
                for part in reversed(_split(list(reversed(pages)), first, at)):
                    parts.append(part)
                    size += len(part)
                    last, at = at, at - 1
                    if size >= _MOST_BYTES:
                        break
        return parts, last


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


def _message_not_found(field: str) -> DomainError:
    return DomainError(
        Reason.MESSAGE_NOT_FOUND,
        "There is no such message among those that the caller may read.",
        field=field,
    )
