"""An older node beside a newer one: what the newer one appends and the older does not know is read and passed on as it
is, and nothing is appended to a conversation whose state is not understood.
"""

from __future__ import annotations

import pytest

from tests.unit.world import World, until
from tidings.v1 import chat_service_pb2, entry_pb2
from tidings_server.bus.base import PagePublished
from tidings_server.codec.wire import element, text, timestamp, varint
from tidings_server.core import commands as c
from tidings_server.core.ids import id_bytes, inbox_log
from tidings_server.core.pages import Page, PageFlag
from tidings_server.errors import DomainError, Reason
from tidings_server.storage.base import APPLIED, Append

pytestmark = pytest.mark.virtual_time

NEW_KIND = 100


async def append_unknown(world: World, log: str, user: str) -> Page:
    """Appends an entry as a newer node would: of a kind that this version has no word for."""
    head = (await world.store.heads([log]))[log]
    seq, now, change_id = head.last_seq + 1, world.clock.now_ms(), world.new_id()
    # Field 100 needs a tag of two bytes.
    body = varint(NEW_KIND << 3 | 2) + varint(6) + b"\x0a\x04news"
    entry = b"".join(
        (
            text(0x0A, log),
            b"\x10" + varint(seq),
            b"\x18" + varint(head.ordinal) if head.ordinal else b"",
            text(0x22, change_id),
            text(0x2A, user),
            element(0x32, timestamp(now)),
            body,
        )
    )
    raw = element(0x0A, b"\x0a" + varint(len(entry)) + entry)
    page = Page(
        seq, 1, now, head.ordinal, b"a newer node's!!", id_bytes(change_id), PageFlag.STATE, raw
    )
    assert await world.store.append(Append(log, head.last_seq, page)) is APPLIED
    return page


def unknown_fields(raw: bytes) -> bytes:
    """The entry in a page, with nothing lost."""
    (event,) = chat_service_pb2.ChatResponse.FromString(raw).events
    assert event.entry.WhichOneof("body") is None
    return event.entry.SerializeToString()


async def reason(world: World, user: str, command: c.Command) -> Reason:
    with pytest.raises(DomainError) as caught:
        await world.execute(user, command)
    return caught.value.reason


@pytest.fixture
async def old() -> World:
    """An older node that shares its store with others."""
    return await World(shared=True).start()


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_conversation_is_read_and_not_written(old: World, restarted: bool) -> None:
    log = await old.group("alice", "bob")
    await old.post(log, "alice", "before")
    page = await append_unknown(old, log, "alice")
    if restarted:
        # Loaded anew, where before it is followed.
        await old.restart()
    assert await reason(old, "alice", old.message(log)) is Reason.STORE_UNAVAILABLE
    adding = c.AddMembers(log, old.change_id(), ())
    assert await reason(old, "alice", adding) is Reason.STORE_UNAVAILABLE
    assert (await old.store.heads([log]))[log].last_seq == 3, "nothing was appended"
    got = await old.execute("bob", c.ListHistory(log, 3, True, 10, ""))
    assert isinstance(got, c.HistoryListed)
    assert got.events == page.body
    one = await old.execute("bob", c.GetMessage(log, 3, None))
    assert isinstance(one, c.MessageGot)
    assert one.event == page.body
    view = await old.execute("bob", c.GetConversation(log))
    assert isinstance(view, c.ConversationGot)
    assert view.view.head_seq == 3
    # A device that knows more than its node gets all there is.
    bob = old.device("bob")
    await bob.hello()
    await until(lambda: bob.applied(log) == 3)
    assert unknown_fields(page.body) in [
        e.entry.SerializeToString() for e in bob.of("entry") if e.entry.seq == 3
    ]
    # Other conversations are none the worse.
    other = await old.group("alice", "bob")
    assert await old.post(other, "bob") == 2
    await old.stop()


async def test_a_page_of_a_newer_node_is_pushed(old: World) -> None:
    log = await old.group("alice", "bob")
    bob = old.device("bob")
    await bob.hello()
    page = await append_unknown(old, log, "alice")
    old.node.hub.on_publication(PagePublished(log, page))
    await until(lambda: bob.applied(log) == 2)
    (pushed,) = [e.entry for e in bob.of("entry") if e.entry.seq == 2]
    assert pushed.SerializeToString() == unknown_fields(page.body)
    assert isinstance(pushed, entry_pb2.Entry)
    await old.stop()


async def test_a_note_in_an_inbox_needs_no_newer_node(old: World) -> None:
    """What a note says follows from its cause alone, whatever else is in the inbox."""
    await old.group("alice", "bob")
    await append_unknown(old, inbox_log("bob"), "bob")
    bob = old.device("bob")
    await bob.hello()
    # Its state is known here, and goes on from there.
    await old.node.sequencer.head(inbox_log("bob"))
    log = await old.group("alice", "bob")
    await until(lambda: bob.applied(log) == 1)
    assert bob.applied(inbox_log("bob")) == 3
    await until(lambda: not old.node.sequencer.loaded_state(log).pending)  # type: ignore[union-attr]
    await old.stop()
