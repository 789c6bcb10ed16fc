"""The whole client against a real server: two people, headless terminals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from tidings import Client, Conversation
from tidings_chat.model import Progress
from tidings_chat.session import ChatSession
from tidings_chat.transcript import Bubble
from tidings_chat.ui.app import ChatApp
from tidings_chat.ui.bubbles import TICKS

from .server import Server, until, until_async


class Screen:
    """One person's terminal."""

    def __init__(self, app: ChatApp, pilot: Pilot[None], session: ChatSession) -> None:
        self.app = app
        self.pilot = pilot
        self.session = session

    @property
    def text(self) -> str:
        """All that is on the screen."""
        lines = self.app.screen._compositor.render_strips()
        return "\n".join(line.text.rstrip() for line in lines)

    @property
    def bubbles(self) -> list[Bubble]:
        """The messages of the open conversation."""
        return [item for item in self.app.timeline._items if isinstance(item, Bubble)]

    @property
    def in_sight(self) -> list[str]:
        """The messages in sight, line by line."""
        timeline = self.app.timeline
        lines = (timeline.render_line(y).text.strip() for y in range(timeline.size.height))
        return [line for line in lines if line]

    async def sees(self, text: str) -> None:
        """Wait until something stands on the screen."""
        try:
            await self.until(lambda: text in self.text, f"“{text}” on the screen")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text}") from None

    async def reads(self, text: str) -> None:
        """Wait until a message of the open conversation stands on the screen."""
        await self.until(
            lambda: text in [bubble.text for bubble in self.bubbles], f"the message “{text}”"
        )
        await self.sees(text)

    async def is_told(self, text: str) -> None:
        """Wait until something is said in the corner."""
        await self.until(
            lambda: any(text in one.message for one in self.app._notifications), f"told “{text}”"
        )

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something holds."""
        await until(condition, what)
        assert self.session.faults == []

    async def type(self, text: str, *, then: str = "enter") -> None:
        """Type, and then press a key."""
        await self.pilot.press(*text)
        if then:
            await self.pilot.press(then)

    async def say(self, text: str) -> None:
        """Send a message from the keyboard."""
        self.app.composer.focus()
        self.app.composer.put(text)
        await self.pilot.press("enter")

    async def open(self, name: str) -> None:
        """Open a conversation by its name, once it is in the list."""
        await self.until(
            lambda: name in [chat.name for chat in self.session.model.listed()], f"{name} listed"
        )
        await self.pilot.press("ctrl+k")
        self.app.search.value = name
        await self.until(lambda: len(self.app.conversations.ids) == 1, f"{name} found")
        await self.pilot.press("enter")
        await self.until(lambda: self.app.chat and self.app.chat.name == name, f"{name} open")


@asynccontextmanager
async def screen(
    server: Server, user: str, size: tuple[int, int] = (100, 30), state: Any = None
) -> AsyncIterator[Screen]:
    """A terminal of a user."""
    async with server.session(user, state) as session:
        app = ChatApp(session, zone=UTC)
        async with app.run_test(size=size, notifications=True) as pilot:
            yield Screen(app, pilot, session)
            assert session.faults == []


async def direct(server: Server, user: str, other: str, *texts: str) -> Conversation:
    """A conversation of two, with messages of the first."""
    async with server.client(user, device="other") as client:
        conversation = await client.create_direct(other)
        await say(client, conversation, *texts)
        return conversation


async def say(client: Client, conversation: Conversation, *texts: str) -> None:
    """Send messages and wait until the server has them."""
    handles = [await client.send(conversation.conversation_id, text) for text in texts]
    for handle in handles:
        await handle.sent()


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
            await alice.say("/add carol")
            await carol.open("Summer trip")
            await bob.sees("alice added carol")
            await carol.say("thanks")
            await alice.reads("thanks")
            await alice.sees("3 members: you, bob, carol")
            await bob.say("/remove carol")
            await bob.is_told("only an owner of the group may do this")
            await alice.say("/remove carol")
            await carol.sees("you are no longer a member")
            await bob.sees("alice removed carol")
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
