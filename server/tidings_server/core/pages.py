"""Pages: the entries of one commit as they are stored and sent, and how a page is cut without
decoding it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from .records import record

ID_BYTES = 16
BUCKET_SIZE = 10_000
"""Positions in a bucket. A page never straddles two buckets."""
MAX_PAGE_ENTRIES = 100
MAX_PAGE_BYTES = 128 * 1024


class PageFlag:
    """What a reader must know of a page before sending it: bits of `Page.flags`.

    Plain numbers: testing a bit of an enum costs as much as encoding an entry's head.
    """

    STATE: Final = 1
    """It holds an entry that changes more than the count of messages: folded when the log is
    loaded.
    """
    REMOVAL: Final = 2
    """Its last entry ends a membership."""
    PERSONAL: Final = 4
    """It needs a view of its own for each reader and must be decoded."""
    CHANGE: Final = 8
    """Its last entry is about an earlier message."""
    ERASURE: Final = 16
    """Its last entry erases content of earlier ones."""


@record(frozen=True, slots=True)
class Page:
    """The entries `first_seq .. last_seq` of one commit.

    `stamp` is the commit's time in milliseconds since the Unix epoch, monotone along the log.
    `ordinal` is that of the last entry. `commit_id` names the commit (16 bytes). `ids` are the
    16-byte ids of the entries, joined. `rev` counts rewrites. `body` is the entries as joined
    `events` elements of a `ChatResponse`: it can be sent as it is.
    """

    first_seq: int
    count: int
    stamp: int
    ordinal: int
    commit_id: bytes
    ids: bytes
    flags: int
    body: bytes
    rev: int = 0

    @property
    def last_seq(self) -> int:
        """The position of the last entry."""
        return self.first_seq + self.count - 1


def pieces(body: bytes) -> list[tuple[int, int]]:
    """Where each top-level element of joined protobuf bytes begins and ends.

    Only length-delimited elements with a one-byte tag occur in pages. Raises ValueError for
    anything else.
    """
    found = []
    at, end = 0, len(body)
    while at < end:
        start = at
        if body[at] & 0x87 != 0x02:
            raise ValueError(f"byte {at} is no tag of a page element")
        at += 1
        length = shift = 0
        while True:
            if at >= end:
                raise ValueError("a page element is cut off")
            byte = body[at]
            at += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        at += length
        if at > end:
            raise ValueError("a page element is cut off")
        found.append((start, at))
    return found


def cut(page: Page, first_seq: int, last_seq: int) -> bytes:
    """The bytes of the page's entries from `first_seq` to `last_seq`, both included; empty when
    there are none.
    """
    if first_seq <= page.first_seq and last_seq >= page.last_seq:
        return page.body
    low = max(first_seq, page.first_seq) - page.first_seq
    high = min(last_seq, page.last_seq) - page.first_seq
    if low > high:
        return b""
    where = pieces(page.body)
    return page.body[where[low][0] : where[high][1]]


def page_ids(page: Page) -> list[bytes]:
    """The 16-byte ids of the page's entries, in order."""
    return [page.ids[i : i + ID_BYTES] for i in range(0, len(page.ids), ID_BYTES)]


def join(bodies: Iterable[bytes]) -> bytes:
    """Bodies, joined into one: concatenated protobuf messages merge."""
    return b"".join(bodies)


def bucket_of(seq: int) -> int:
    """The bucket that holds a position."""
    return (seq - 1) // BUCKET_SIZE


def room_in_bucket(head: int) -> int:
    """How many entries still fit into the bucket of the position after `head`."""
    return BUCKET_SIZE - head % BUCKET_SIZE


def rewritten(page: Page, body: bytes, flags: int) -> Page:
    """The page with other content at the same positions, one revision on."""
    return replace(page, body=body, flags=flags, rev=page.rev + 1)
