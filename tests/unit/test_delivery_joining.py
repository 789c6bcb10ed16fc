"""A session joins a conversation while another node appends to it."""

from __future__ import annotations

import pytest

from tests.unit.world import World, until
from tidings_server.bus.base import HeadPublished, PagePublished, Publication
from tidings_server.core.ids import inbox_log
from tidings_server.messaging.log_state import LogView
from tidings_server.storage.memory import MemoryDisk

pytestmark = pytest.mark.virtual_time


@pytest.mark.parametrize("pointer", [False, True])
async def test_what_is_published_between_the_view_and_its_use_is_not_missed(
    monkeypatch: pytest.MonkeyPatch, pointer: bool
) -> None:
    disk = MemoryDisk()
    one = await World(disk=disk, shared=True).start()
    other = await World(disk=disk, shared=True).start()
    bob = other.device("bob")
    await bob.hello()
    hub, view = other.node.hub, other.node.sequencer.view

    async def overtaken(name: str, user: str) -> LogView:
        seen = await view(name, user)
        if seen.head == 1:
            await one.post(name, "alice", "overtakes")
            page = one.pages(name)[-1]
            published: Publication = PagePublished(name, page)
            hub.on_publication(HeadPublished(name, page.last_seq) if pointer else published)
        return seen

    monkeypatch.setattr(other.node.sequencer, "view", overtaken)
    log = await one.group("alice", "bob")
    inbox = inbox_log("bob")
    hub.on_publication(PagePublished(inbox, one.pages(inbox)[-1]))
    await until(lambda: bob.seqs(log) == [1, 2])
    await one.stop()
    await other.stop()
