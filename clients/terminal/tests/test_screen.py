"""The whole client against a real server: people who talk, with headless terminals."""

from __future__ import annotations

from pathlib import Path

from tidings_chat.model import Progress
from tidings_chat.ui.bubbles import TICKS

from .screens import Screen, direct, say, screen
from .server import Server, until_async


async def test_two_people_talk_and_see_what_was_read(server: Server) -> None:
    async with screen(server, "alice") as alice, screen(server, "bob") as bob:
        await alice.sees("No conversations yet")
        await alice.type("/dm bob")
        await alice.until(lambda: alice.app.chat, "the conversation is open")
        await alice.say("Hello 👋 你好 שלום")
        await bob.open("alice")
        await bob.reads("Hello 👋 你好 שלום")
        await alice.until(
            lambda: alice.bubbles[-1].progress is Progress.READ, "alice's message is read"
        )
        await alice.sees(TICKS[Progress.READ])
        await bob.say("Hi Alice!")
        await alice.reads("Hi Alice!")
        await bob.until(lambda: bob.bubbles[-1].progress is Progress.READ, "bob's message is read")
        await alice.sees("● online")
        assert [bubble.own for bubble in alice.bubbles] == [True, False]


async def test_unread_messages_are_counted_until_they_are_seen(server: Server) -> None:
    await direct(server, "carol", "alice", "one", "two", "three")
    await direct(server, "bob", "alice", "from bob")
    async with screen(server, "alice") as alice:
        # The latest conversation is open, and so seen.
        await alice.until(
            lambda: alice.bubbles and alice.session.model.unread == 3, "one of four is read"
        )
        carol = next(c for c in alice.session.model.listed() if c.name == "carol")
        await alice.until(lambda: carol.unread == 3, "three are unread")
        await alice.sees("3 unread")
        await alice.sees(" 3 ")
        await alice.pilot.press("ctrl+n")
        await alice.reads("three")
        await alice.sees("new")
        await alice.until(lambda: carol.unread == 0, "all are read")
        async with server.client("alice", device="other") as client:
            await until_async(client.unread, lambda unread: unread.total == 0, "the server knows")
        await alice.until(lambda: "unread" not in alice.text, "nothing is unread on the screen")


async def test_a_conversation_opens_where_what_is_new_begins(server: Server) -> None:
    texts = [f"message {number}" for number in range(60)]
    conversation = await direct(server, "bob", "alice", *texts)
    async with server.client("alice", device="other") as client:
        # The first position is that of the creation.
        await client.mark_read(conversation.conversation_id, 11)
    async with screen(server, "alice") as alice:
        await alice.until(lambda: alice.bubbles, "it is loaded")
        chat = alice.app.chat
        assert chat is not None
        await alice.until(lambda: chat.unread < 50, "what is in sight is read")
        assert alice.in_sight[1].startswith("message 10 ")
        assert not any("message 59 " in line for line in alice.in_sight)
        assert chat.unread > 20
        await alice.sees(f"{chat.unread} new")
        await alice.pilot.press("ctrl+end")
        await alice.reads("message 59")
        await alice.until(lambda: chat.unread == 0, "all is read")


async def test_what_is_sent_offline_goes_out_in_order(server: Server) -> None:
    conversation = await direct(server, "bob", "alice", "before")
    async with screen(server, "alice") as alice:
        await alice.reads("before")
        await server.stop()
        await alice.sees("offline")
        for number in range(3):
            await alice.say(f"offline {number}")
        await alice.sees("3 waiting")
        await alice.until(
            lambda: [b.progress for b in alice.bubbles[-3:]] == [Progress.QUEUED] * 3, "all wait"
        )
        await alice.sees(TICKS[Progress.QUEUED])
        await server.start()
        await alice.until(
            lambda: all(b.seq and b.progress is not Progress.QUEUED for b in alice.bubbles),
            "all are sent",
        )
        await alice.sees("● online")
    async with server.client("bob", device="other") as client:
        texts = [getattr(e, "text", "") async for e in client.history(conversation.conversation_id)]
    assert texts[:4] == ["offline 2", "offline 1", "offline 0", "before"]


async def test_what_waited_is_sent_after_a_restart(server: Server, tmp_path: Path) -> None:
    conversation = await direct(server, "bob", "alice", "before")
    state = tmp_path / "alice.sqlite3"
    async with screen(server, "alice", state=state) as alice:
        await alice.reads("before")
        await server.stop()
        await alice.sees("offline")
        await alice.say("later")
        await alice.until(lambda: alice.session.model.queued == 1, "it waits")
    async with screen(server, "alice", state=state) as alice:
        await alice.until(lambda: alice.session.model.queued == 1, "it still waits")
        await server.start()
        async with server.client("bob") as bob:
            await say(bob, conversation, "meanwhile")
        await alice.reads("later")
        await alice.reads("meanwhile")
        await alice.until(lambda: alice.session.model.queued == 0, "it is sent")
        await alice.until(lambda: [b.text for b in alice.bubbles].count("later") == 1, "once")


async def test_history_comes_when_it_is_scrolled_to_and_stays_in_place(server: Server) -> None:
    texts = [f"message {number}" for number in range(300)]
    conversation = await direct(server, "bob", "alice", *texts)
    async with screen(server, "alice") as alice:
        await alice.reads("message 299")
        assert len(alice.bubbles) < 200
        while alice.bubbles[0].text != "message 0":
            await _page_up(alice)
        assert [bubble.text for bubble in alice.bubbles] == texts
        # What comes now doesn't move what is read.
        seen = alice.in_sight
        async with server.client("bob", device="other") as bob:
            await say(bob, conversation, "news")
        await alice.sees("1 new")
        assert alice.in_sight == seen
        await alice.pilot.press("ctrl+end")
        await alice.reads("news")


async def _page_up(person: Screen) -> None:
    """Scroll up by a screen; where that brings older messages, those in sight stay in sight."""
    timeline = person.app.timeline
    await person.pilot.press("pageup")
    await person.pilot.pause()
    held = len(person.bubbles)
    if timeline.scroll_offset.y >= timeline.size.height or person.bubbles[0].text == "message 0":
        return
    seen = person.in_sight
    await person.until(lambda: len(person.bubbles) > held, "older messages")
    await person.pilot.pause()
    assert person.in_sight == seen


async def test_a_group_is_made_and_people_come_and_go(server: Server) -> None:
    async with screen(server, "alice", (100, 30)) as alice, screen(server, "bob") as bob:
        await alice.say('/group "Summer trip" bob')
        await alice.sees("You made the group “Summer trip” with bob")
        await bob.open("Summer trip")
        await bob.sees("alice made the group “Summer trip” with you")
        async with screen(server, "carol") as carol:
            await alice.say("/title Journey to the sea")
            await alice.sees("You named the group “Journey to the sea”")
            await alice.say("/title Summer trip")
            await alice.say("/add carol")
            await carol.open("Summer trip")
            await bob.sees("alice added carol")
            await carol.say("thanks")
            await alice.reads("thanks")
            await alice.sees("3 members: you, bob, carol")
            await bob.say("/remove carol")
            await bob.is_told("your role here does not allow this")
            await alice.say("/remove carol")
            await carol.sees("you are no longer a member")
            await bob.sees("alice removed carol")
        await alice.say("/role bob captain")
        await alice.is_told("There is no such role")
        await alice.say("/role bob admin")
        await bob.sees("alice made you an admin")
        await alice.say("/members")
        await alice.sees("bob  admin")
        await alice.pilot.press("escape")
        await alice.say("/mute bob soon")
        await alice.is_told("For how many minutes?")
        await alice.say("/mute bob 5")
        await bob.sees("alice muted you")
        await alice.say("/unmute bob")
        await bob.sees("alice unmuted you")
        await alice.say("/leave")
        await alice.sees("Leave the group?")
        await alice.pilot.press("y")
        await alice.is_told("make somebody else the owner first")
        await bob.say("/leave")
        await bob.sees("Leave the group?")
        await bob.pilot.press("y")
        await bob.sees("you are no longer a member")
        await alice.sees("bob left")
        await alice.say("/members")
        await alice.sees("alice (you)  owner")
        chat = alice.app.chat
        assert chat is not None
        assert [m.user_id for m in await alice.session.members(chat, 10)] == ["alice"]
