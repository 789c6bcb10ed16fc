"""The contract of stores: what became of messages, and the rewriting of pages."""

from __future__ import annotations

import itertools
from dataclasses import replace

from tests.contract.contract_base import MEGABYTE, OnAMedium, all_pages
from tests.contract.contract_rows import USERS_IN_ORDER
from tests.contract.samples import LOG, OTHER, append_of, fill, page
from tidings_server.core.pages import BUCKET_SIZE, rewritten
from tidings_server.storage.base import APPLIED, MentionRow, OverlayRow, ReactionRow, Store


class MessageContract(OnAMedium):
    # Rewriting

    async def test_a_page_is_rewritten_at_its_revision(self, store: Store) -> None:
        first, second, third = await fill(store, LOG, [2, 3, 1])
        changed = rewritten(second, b"less", second.flags)
        assert await store.rewrite(LOG, changed)
        assert await all_pages(store, LOG) == [first, changed, third]
        assert await store.read(LOG, 3, max_bytes=1, upto=4) == [changed]
        back = await store.read_back(LOG, 6, max_bytes=MEGABYTE)
        assert back == [changed, first]
        again = rewritten(changed, b"", changed.flags)
        assert await store.rewrite(LOG, again)
        assert await all_pages(store, LOG) == [first, again, third]
        assert (await store.heads([LOG]))[LOG].last_seq == 6
        # The log goes on.
        fourth = page(7)
        assert await store.append(append_of(LOG, fourth)) is APPLIED
        assert await all_pages(store, LOG) == [first, again, third, fourth]

    async def test_a_rewriting_can_be_repeated(self, store: Store) -> None:
        (first,) = await fill(store, LOG, [2])
        changed = rewritten(first, b"less", first.flags)
        assert await store.rewrite(LOG, changed)
        assert await store.rewrite(LOG, changed)
        assert await all_pages(store, LOG) == [changed]

    async def test_a_page_that_others_rewrote_is_left_alone(self, store: Store) -> None:
        (first,) = await fill(store, LOG, [2])
        theirs = rewritten(first, b"theirs", first.flags)
        assert await store.rewrite(LOG, theirs)
        assert not await store.rewrite(LOG, rewritten(first, b"ours", first.flags))
        assert not await store.rewrite(LOG, replace(first, rev=3, body=b"ours"))
        assert await all_pages(store, LOG) == [theirs]
        assert await store.rewrite(LOG, rewritten(theirs, b"ours", first.flags))

    async def test_no_page_is_made_by_rewriting(self, store: Store) -> None:
        (first,) = await fill(store, LOG, [2])
        assert not await store.rewrite(OTHER, rewritten(first, b"x", 0))
        assert not await store.rewrite(LOG, replace(first, first_seq=2, rev=1))
        assert not await store.rewrite(LOG, replace(first, first_seq=3, rev=1))
        assert await all_pages(store, LOG) == [first]
        assert await all_pages(store, OTHER) == []

    # Overlays

    async def test_the_newer_overlay_wins_in_any_order(self, store: Store) -> None:
        old, new = OverlayRow(7, 9, b"old"), OverlayRow(7, 12, b"new")
        for order in itertools.permutations([old, new, old]):
            log = f"log {[row.as_of for row in order]}"
            for row in order:
                await store.put_overlays(log, [row])
            assert await store.overlays(log, 1, 100) == [new]
            await store.put_overlays(f"{log} at once", order)
            assert await store.overlays(f"{log} at once", 7, 7) == [new]

    async def test_of_overlays_folded_equally_far_the_stored_one_stays(self, store: Store) -> None:
        await store.put_overlays(LOG, [OverlayRow(7, 9, b"a")])
        await store.put_overlays(LOG, [OverlayRow(7, 9, b"z")])
        assert await store.overlays(LOG, 1, 100) == [OverlayRow(7, 9, b"a")]

    async def test_overlays_are_found_by_position_over_buckets(self, store: Store) -> None:
        seqs = [1, 2, 50, BUCKET_SIZE, BUCKET_SIZE + 1, 2 * BUCKET_SIZE + 7]
        rows = [OverlayRow(seq, seq + 1, b"" if seq == 2 else b"%d" % seq) for seq in seqs]
        await store.put_overlays(LOG, rows[::-1])
        assert await store.overlays(LOG, 1, 3 * BUCKET_SIZE) == rows
        assert await store.overlays(LOG, 2, BUCKET_SIZE) == rows[1:4]
        assert await store.overlays(LOG, BUCKET_SIZE, BUCKET_SIZE + 1) == rows[3:5]
        assert await store.overlays(LOG, 3, 49) == []
        assert await store.overlays(LOG, 5, 4) == []
        assert await store.overlays(OTHER, 1, 100) == []
        await store.put_overlays(LOG, [])

    # Reactions

    async def test_the_newer_reaction_wins_in_any_order(self, store: Store) -> None:
        old, new = ReactionRow(7, "ann", 9, "👍"), ReactionRow(7, "ann", 12, "")
        for order in itertools.permutations([old, new, old]):
            log = f"log {[row.as_of for row in order]}"
            for row in order:
                await store.put_reactions(log, [row])
            assert await store.reactions_of(log, "ann", [7]) == {7: new}
            await store.put_reactions(f"{log} at once", order)
            assert await store.reactions_of(f"{log} at once", "ann", [7]) == {7: new}
        await store.put_reactions(LOG, [old])
        await store.put_reactions(LOG, [replace(old, reaction="z")])
        assert await store.reactions_of(LOG, "ann", [7]) == {7: old}

    async def test_reactions_of_a_user_are_found_by_position(self, store: Store) -> None:
        seqs = [*range(3, 150), BUCKET_SIZE + 5]
        rows = [ReactionRow(seq, "ann", seq + 1, "🎉") for seq in seqs]
        await store.put_reactions(LOG, [*rows, ReactionRow(4, "bob", 9, "x")])
        asked = [*range(1, 200, 2), BUCKET_SIZE + 5, BUCKET_SIZE + 6]
        found = await store.reactions_of(LOG, "ann", asked)
        assert found == {row.seq: row for row in rows if row.seq in asked}
        assert await store.reactions_of(LOG, "ann", []) == {}
        assert await store.reactions_of(LOG, "nobody", asked) == {}
        assert await store.reactions_of(OTHER, "ann", asked) == {}

    async def test_reactions_are_listed_by_user_without_those_taken_back(
        self, store: Store
    ) -> None:
        rows = [
            ReactionRow(5, user, 10 + n, "" if n % 3 == 1 else "👍")
            for n, user in enumerate(USERS_IN_ORDER)
        ]
        await store.put_reactions(LOG, [*rows[::-1], ReactionRow(6, "m", 20, "x")])
        there = [row for row in rows if row.reaction]
        assert await store.list_reactions(LOG, 5, after_user="", limit=100) == there
        found = []
        after = ""
        while part := await store.list_reactions(LOG, 5, after_user=after, limit=2):
            assert len(part) <= 2
            found += part
            after = part[-1].user_id
        assert found == there
        assert await store.list_reactions(LOG, 5, after_user="", limit=0) == []
        assert await store.list_reactions(LOG, 4, after_user="", limit=9) == []

    # Mentions

    async def test_the_newer_mention_wins_in_any_order(self, store: Store) -> None:
        old, new = MentionRow("ann", 7, 7, "bob"), MentionRow("ann", 7, 12, "")
        back = MentionRow("ann", 7, 15, "bob")
        for n, order in enumerate(itertools.permutations([old, new, old])):
            log = f"log {n}"
            for row in order:
                await store.put_mentions(log, [row])
            assert await store.mentions(log, "ann", after=0, limit=9) == []
            await store.put_mentions(log, [back, new])
            assert await store.mentions(log, "ann", after=0, limit=9) == [back]
            await store.put_mentions(f"{log} at once", order)
            assert await store.mentions(f"{log} at once", "ann", after=0, limit=9) == []
        await store.put_mentions(LOG, [old])
        await store.put_mentions(LOG, [replace(old, author="z")])
        assert await store.mentions(LOG, "ann", after=0, limit=9) == [old]
        await store.put_mentions(LOG, [])

    async def test_mentions_are_listed_by_position_without_those_taken_back(
        self, store: Store
    ) -> None:
        seqs = [*range(3, 150), BUCKET_SIZE + 5, 2**40]
        rows = [MentionRow("ann", seq, seq, "bob" if seq % 3 else "") for seq in seqs]
        everybody = MentionRow("", 5, 5, "bob")
        await store.put_mentions(LOG, [*rows[::-1], everybody, MentionRow("bob", 4, 9, "ann")])
        there = [row for row in rows if row.author]
        assert await store.mentions(LOG, "ann", after=0, limit=1000) == there
        assert await store.mentions(LOG, "", after=0, limit=1000) == [everybody]
        assert await store.mentions(LOG, "ann", after=100, limit=1000) == [
            row for row in there if row.seq > 100
        ]
        found: list[MentionRow] = []
        after = 0
        while part := await store.mentions(LOG, "ann", after=after, limit=7):
            assert len(part) <= 7
            found += part
            after = part[-1].seq
        assert found == there
        assert await store.mentions(LOG, "ann", after=0, limit=0) == []
        assert await store.mentions(LOG, "nobody", after=0, limit=9) == []
        assert await store.mentions(OTHER, "ann", after=0, limit=9) == []
