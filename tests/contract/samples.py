"""Pages and appends for tests of stores."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence

from tidings_server.core.entries import Role
from tidings_server.core.memberships import Interval, Membership
from tidings_server.core.pages import BUCKET_SIZE, Page
from tidings_server.storage.base import APPLIED, Append, Outcome, Store

LOG = "018f2f4e-0000-7000-8000-000000000001"
OTHER = "018f2f4e-0000-7000-8000-000000000002"
INBOX = "inbox:ångström-\N{DESERET CAPITAL LETTER LONG I}"

_commits = itertools.count(1)


def page(
    first_seq: int,
    count: int = 1,
    *,
    stamp: int | None = None,
    ordinal: int | None = None,
    flags: int = 0,
    body: bytes | None = None,
    commit_id: bytes | None = None,
) -> Page:
    """A page; what isn't given is derived from its position, or unique."""
    ids = b"".join(
        hashlib.md5(f"{first_seq + i}".encode(), usedforsecurity=False).digest()
        for i in range(count)
    )
    return Page(
        first_seq=first_seq,
        count=count,
        stamp=1_700_000_000_000 + first_seq if stamp is None else stamp,
        ordinal=first_seq + count - 1 if ordinal is None else ordinal,
        commit_id=next(_commits).to_bytes(16, "big") if commit_id is None else commit_id,
        ids=ids,
        flags=flags,
        body=f"body of {first_seq}".encode() if body is None else body,
    )


def append_of(log: str, content: Page, pending: Sequence[int] = ()) -> Append:
    """The append of a page, with a snapshot where one is due."""
    head = content.first_seq - 1
    snapshot = f"state at {head}".encode() if head % BUCKET_SIZE == 0 else None
    return Append(log, head, content, tuple(pending), snapshot)


async def fill(store: Store, log: str, counts: Sequence[int], *, start: int = 1) -> list[Page]:
    """Appends pages of these counts, one after the other, and gives them."""
    pages = []
    for count in counts:
        pages.append(page(start, count))
        start += count
        answer: Outcome = await store.append(append_of(log, pages[-1]))
        assert answer is APPLIED
    return pages


def membership(user_id: str, as_of: int, *, current: bool = True) -> Membership:
    """A membership whose content tells its `as_of`."""
    removed = 0 if current else as_of
    stays = (Interval(1, 1, 2), Interval(as_of, as_of - 1, removed, as_of % 2))
    role = list(Role)[as_of % len(Role)]
    return Membership(user_id, role, as_of, stays, as_of % 3, as_of % 5)
