"""What became of messages: overlays, reactions and mentions, of which the larger `as_of` wins, and rewriting.

They are written as `registers` writes memberships, and for the same reasons.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from tidings_server.core.pages import Page, bucket_of
from tidings_server.storage.base import MentionRow, OverlayRow, ReactionRow, StoreUnavailable
from tidings_server.storage.scylla.connection import CONDITIONAL
from tidings_server.storage.scylla.courier import Courier
from tidings_server.storage.scylla.heads import bucket_end
from tidings_server.storage.scylla.lanes import Lanes, Spawn
from tidings_server.storage.scylla.logs import Logs
from tidings_server.storage.scylla.statements import Statements, batches, parts, timestamp

_LIST_AT_LEAST = 32
_LIST_AT_MOST = 1_000


class Messages:
    """Writes and reads them. Each call may raise StoreUnavailable."""

    def __init__(self, courier: Courier, statements: Statements, logs: Logs, spawn: Spawn) -> None:
        self._courier = courier
        self._statements = statements
        self._logs = logs
        self._overlays = Lanes(self._write_overlays, spawn)
        self._reactions = Lanes(self._write_reactions, spawn)
        self._mentions = Lanes(self._write_mentions, spawn)

    async def rewrite(self, log: str, page: Page) -> bool:
        rows = await self._courier.ask(
            self._statements.rewrite.bind(
                (page.body, page.rev, log, bucket_of(page.first_seq), page.first_seq, page.rev - 1)
            ),
            CONDITIONAL,
        )
        if not rows:
            raise StoreUnavailable("the answer to a conditional request is empty")
        if rows[0]["[applied]"]:
            return True
        # It may have been done by a request that was not answered.
        stored = await self._logs.read(log, page.first_seq - 1, 1, page.first_seq)
        return any(
            (p.first_seq, p.rev, p.body) == (page.first_seq, page.rev, page.body) for p in stored
        )

    async def put_overlays(self, log: str, rows: Sequence[OverlayRow]) -> None:
        if rows:
            await self._overlays.put(log, list(rows))

    async def _write_overlays(self, log: str, rows: Sequence[OverlayRow]) -> None:
        newest: dict[int, OverlayRow] = {}
        for row in rows:
            if row.seq not in newest or row.as_of > newest[row.seq].as_of:
                newest[row.seq] = row
        answers = await self._courier.ask_all(
            self._statements.overlays_at.bind((log, bucket, list(part)))
            for bucket, seqs in _by_bucket(newest)
            for part in parts(seqs)
        )
        stored = {seq: as_of for rows in answers for seq, as_of in rows}
        put = self._statements.put_overlay
        for bucket, seqs in _by_bucket(newest):
            writes = [
                put.bind((timestamp(row.as_of), row.as_of, row.body, log, bucket, row.seq))
                for row in map(newest.__getitem__, seqs)
                if row.as_of > stored.get(row.seq, -1)
            ]
            await self._courier.ask_all(batches(writes))

    async def overlays(self, log: str, first: int, last: int) -> list[OverlayRow]:
        first = max(first, 1)
        if last < first:
            return []
        answers = await self._courier.ask_all(
            self._statements.overlays.bind(
                (log, bucket, max(first, bucket_end(bucket - 1) + 1), min(last, bucket_end(bucket)))
            )
            for bucket in range(bucket_of(first), bucket_of(last) + 1)
        )
        return [OverlayRow(*row) for rows in answers for row in rows]

    async def put_reactions(self, log: str, rows: Sequence[ReactionRow]) -> None:
        if rows:
            await self._reactions.put(log, list(rows))

    async def _write_reactions(self, log: str, rows: Sequence[ReactionRow]) -> None:
        newest: dict[tuple[int, str], ReactionRow] = {}
        for row in rows:
            key = (row.seq, row.user_id)
            if key not in newest or row.as_of > newest[key].as_of:
                newest[key] = row
        users: dict[int, list[str]] = {}
        for seq, user in newest:
            users.setdefault(seq, []).append(user)
        answers = await self._courier.ask_all(
            self._statements.reactions_by.bind((log, bucket_of(seq), seq, list(part)))
            for seq, some in users.items()
            for part in parts(some)
        )
        stored = {(seq, user): as_of for rows in answers for seq, user, as_of in rows}
        put = self._statements.put_reaction
        for bucket, seqs in _by_bucket(users):
            writes = [
                put.bind(
                    (timestamp(row.as_of), row.as_of, row.reaction, log, bucket, seq, row.user_id)
                )
                for seq in seqs
                for row in (newest[seq, user] for user in users[seq])
                if row.as_of > stored.get((seq, row.user_id), -1)
            ]
            await self._courier.ask_all(batches(writes))

    async def reactions_of(
        self, log: str, user_id: str, seqs: Sequence[int]
    ) -> dict[int, ReactionRow]:
        answers = await self._courier.ask_all(
            self._statements.reactions_of.bind((log, bucket, list(part), user_id))
            for bucket, some in _by_bucket(dict.fromkeys(seqs))
            for part in parts(some)
        )
        return {row[0]: ReactionRow(*row) for rows in answers for row in rows}

    async def list_reactions(
        self, log: str, seq: int, after_user: str, limit: int
    ) -> list[ReactionRow]:
        found: list[ReactionRow] = []
        at_once = min(max(limit, _LIST_AT_LEAST), _LIST_AT_MOST)
        while len(found) < limit:
            rows = await self._courier.ask(
                self._statements.list_reactions.bind(
                    (log, bucket_of(seq), seq, after_user, at_once)
                )
            )
            found += [ReactionRow(*row) for row in rows if row[3]]
            if len(rows) < at_once:
                break
            after_user = rows[-1][1]
        return found[:limit]

    async def put_mentions(self, log: str, rows: Sequence[MentionRow]) -> None:
        if rows:
            await self._mentions.put(log, list(rows))

    async def _write_mentions(self, log: str, rows: Sequence[MentionRow]) -> None:
        newest: dict[str, dict[int, MentionRow]] = {}
        for row in rows:
            of_user = newest.setdefault(row.user_id, {})
            if row.seq not in of_user or row.as_of > of_user[row.seq].as_of:
                of_user[row.seq] = row
        answers = await self._courier.ask_all(
            self._statements.mentions_at.bind((log, user, list(part)))
            for user, of_user in newest.items()
            for part in parts(list(of_user))
        )
        stored = {(user, seq): as_of for rows in answers for user, seq, as_of in rows}
        put = self._statements.put_mention
        for user, of_user in newest.items():
            writes = [
                put.bind((timestamp(row.as_of), row.as_of, row.author, log, user, row.seq))
                for row in of_user.values()
                if row.as_of > stored.get((user, row.seq), -1)
            ]
            await self._courier.ask_all(batches(writes))

    async def mentions(self, log: str, user_id: str, after: int, limit: int) -> list[MentionRow]:
        found: list[MentionRow] = []
        at_once = min(max(limit, _LIST_AT_LEAST), _LIST_AT_MOST)
        while len(found) < limit:
            rows = await self._courier.ask(
                self._statements.mentions.bind((log, user_id, after, at_once))
            )
            found += [MentionRow(*row) for row in rows if row[3]]
            if len(rows) < at_once:
                break
            after = rows[-1][1]
        return found[:limit]


def _by_bucket(seqs: Iterable[int]) -> list[tuple[int, list[int]]]:
    """Positions by their buckets, ascending."""
    return [(b, list(some)) for b, some in itertools.groupby(sorted(seqs), key=bucket_of)]
