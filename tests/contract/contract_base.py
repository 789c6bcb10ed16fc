"""What all parts of the contract stand on: a medium, an open store on it, and every call of the port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.contract.media import Medium
from tests.contract.samples import LOG, append_of, membership, page
from tidings_server.core.pages import Page
from tidings_server.storage.base import CursorRow, PresenceRow, Receipt, Store

MEGABYTE = 1 << 20


def calls() -> list[tuple[str, Callable[[Store], Awaitable[object]]]]:
    """Every call of the port that needs an open store."""
    return [
        ("append", lambda s: s.append(append_of(LOG, page(1)))),
        ("check", lambda s: s.check()),
        ("heads", lambda s: s.heads([LOG])),
        ("snapshot", lambda s: s.snapshot(LOG)),
        ("read", lambda s: s.read(LOG, 0, max_bytes=MEGABYTE)),
        ("read_back", lambda s: s.read_back(LOG, 9, max_bytes=MEGABYTE)),
        ("read_flagged", lambda s: s.read_flagged(LOG, 0, 1, limit=9)),
        ("read_ids", lambda s: s.read_ids(LOG, before=9, min_stamp=0, max_pages=9)),
        ("settled_heads", lambda s: s.settled_heads([LOG])),
        ("put_intents", lambda s: s.put_intents("node", 1, [LOG])),
        ("intent_nodes", lambda s: s.intent_nodes()),
        ("intent_rounds", lambda s: s.intent_rounds("node")),
        ("intents", lambda s: s.intents("node", 1, after="", limit=9)),
        ("clear_intents", lambda s: s.clear_intents("node", 0)),
        ("put_memberships", lambda s: s.put_memberships(LOG, [membership("ann", 1)])),
        ("memberships", lambda s: s.memberships(LOG, ["ann"])),
        ("memberships_of", lambda s: s.memberships_of("ann", [LOG])),
        ("list_memberships", lambda s: s.list_memberships(LOG, after_user="", limit=9)),
        ("put_user_logs", lambda s: s.put_user_logs(LOG, ["ann"])),
        ("user_logs", lambda s: s.user_logs("ann")),
        ("put_cursors", lambda s: s.put_cursors([CursorRow("ann", "phone", LOG, 1)])),
        ("cursors", lambda s: s.cursors("ann", "phone")),
        ("put_receipts", lambda s: s.put_receipts([Receipt(LOG, "ann", 1)])),
        ("receipts_of", lambda s: s.receipts_of("ann", [LOG])),
        ("list_receipts", lambda s: s.list_receipts(LOG, after_user="", limit=9)),
        ("put_presence", lambda s: s.put_presence([PresenceRow("ann", 1)])),
        ("presence", lambda s: s.presence(["ann"])),
    ]


async def everything(store: Store) -> list[object]:
    """All that the calls above find out."""
    return [
        await call(store)
        for name, call in calls()
        if not name.startswith(("append", "put_", "clear_"))
    ]


async def all_pages(store: Store, log: str) -> list[Page]:
    return await store.read(log, 0, max_bytes=1 << 40)


class OnAMedium:
    """A store on a medium that a subclass names."""

    @pytest.fixture
    def medium(self) -> Medium:
        pytest.fail("a subclass gives the medium")

    @pytest.fixture
    async def store(self, medium: Medium) -> AsyncIterator[Store]:
        store = medium.store()
        await store.open()
        yield store
        await store.close()
