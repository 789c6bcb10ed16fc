"""Mentions: index rows of who is mentioned in which message, and how many of them are unread."""

from __future__ import annotations

from ..core.contents import Content
from ..core.entries import Entry
from ..storage.base import MentionRow, Store

MAX_COUNTED = 100
"""So many unread mentions of a conversation are counted at most."""
EVERYBODY = ""
"""In the place of a user id."""


def mention_rows(seq: int, change: Entry, said: Content, says: Content) -> list[MentionRow]:
    """The rows to write for the message at `seq`, when a change, or its own entry, makes it say `says` instead of
    `said`. Who mentions themselves knows.
    """
    author = change.user_id
    now = [user for user in _mentioned(says) if user != author]
    gone = [user for user in _mentioned(said) if user not in now]
    return [
        *(MentionRow(user, seq, change.seq, author) for user in now),
        *(MentionRow(user, seq, change.seq, "") for user in gone),
    ]


async def count_unread(store: Store, log: str, user_id: str, read_seq: int, join_seq: int) -> int:
    """How many messages that a member has not read mention them, or everybody; at most `MAX_COUNTED`. Raises
    StoreUnavailable.
    """
    after = max(read_seq, join_seq - 1)
    seqs: set[int] = set()
    for whom in (user_id, EVERYBODY):
        seqs.update(await _by_others(store, log, whom, user_id, after))
    return min(len(seqs), MAX_COUNTED)


async def _by_others(store: Store, log: str, whom: str, user_id: str, after: int) -> list[int]:
    found: list[int] = []
    while len(found) < MAX_COUNTED:
        rows = await store.mentions(log, whom, after=after, limit=MAX_COUNTED)
        found += [row.seq for row in rows if row.author != user_id]
        if len(rows) < MAX_COUNTED:
            break
        after = rows[-1].seq
    return found


def _mentioned(content: Content) -> tuple[str, ...]:
    return (*content.mentioned, EVERYBODY) if content.everybody else content.mentioned
