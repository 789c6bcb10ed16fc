"""Headless terminals of people on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC
from pathlib import Path

from textual.pilot import Pilot

from tidings import Client, ClientConfig, Conversation
from tidings_chat.session import ChatSession
from tidings_chat.transcript import Bubble
from tidings_chat.ui.app import ChatApp

from .server import CONFIG, Server, until


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

    async def misses(self, text: str) -> None:
        """Wait until something does not stand on the screen any more."""
        await self.until(lambda: text not in self.text, f"“{text}” off the screen")

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
    server: Server,
    user: str,
    size: tuple[int, int] = (100, 30),
    state: Path | None = None,
    config: ClientConfig = CONFIG,
) -> AsyncIterator[Screen]:
    """A terminal of a user."""
    async with server.session(user, state, config) as session:
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
