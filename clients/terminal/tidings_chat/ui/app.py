"""The application: the widgets of the screen and a ChatSession brought together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import Any, ClassVar, Final

from textual import events, on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Input, Static, TextArea

from tidings import ConnectionStatus, Message, TidingsError

from ..commands import Run, SendText, Wrong, parse
from ..explain import explain
from ..model import Chat
from ..session import ChatSession
from ..text import one_line
from ..transcript import Bubble
from . import status
from .acts import Acts
from .composer import Composer
from .dialogs import Help, NewConversation, Question
from .keys import teach_alt_enter
from .sidebar import ConversationList
from .theme import DARK, LIGHT, THEMES
from .timeline import Timeline

_FRAME: Final = 0.04
_NARROW: Final = 70
_WIDE: Final = 110
_TALL: Final = 30


def system_now(zone: tzinfo | None = None) -> datetime:
    """The time now in a zone, None for the system's."""
    return datetime.now().astimezone(zone)


class ChatApp(App[None]):
    """The terminal client.

    Args:
        session: The person's session, within its context.
        theme: "dark" or "light".
        bell: Whether to ring for messages while nobody looks.
        zone: The zone of times, None for the system's.
        now: The time.
    """

    TITLE = "Tidings"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 -- as Textual declares it
        (0, "-narrow"),
        (_NARROW, "-normal"),
        (_WIDE, "-wide"),
    ]
    VERTICAL_BREAKPOINTS = [  # noqa: RUF012 -- as Textual declares it
        (0, "-short"),
        (_TALL, "-tall"),
    ]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+n,alt+down", "switch(1)", "Next", priority=True),
        Binding("ctrl+p,alt+up", "switch(-1)", "Previous", priority=True),
        Binding("ctrl+k", "search", "Find", priority=True),
        Binding("ctrl+t", "new_conversation", "New", priority=True),
        Binding("ctrl+b", "toggle_list", "List", priority=True),
        Binding("f1", "help", "Help", priority=True),
        Binding("f2", "toggle_theme", "Light/dark", priority=True),
        Binding("f5", "reconnect", "Reconnect", priority=True),
        Binding("escape", "retreat", "Back", show=False),
    ]

    def __init__(
        self,
        session: ChatSession,
        *,
        theme: str = "dark",
        bell: bool = False,
        zone: tzinfo | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        super().__init__()
        teach_alt_enter()
        for look in THEMES:
            self.register_theme(look)
        self.theme = LIGHT if theme == "light" else DARK
        self.session = session
        self._bell = bell
        self._zone = zone
        self._now = now or (lambda: system_now(zone))
        # Held here: a query looks on the uppermost window only.
        self.search = Input(placeholder="Find (Ctrl+K)", id="search", compact=True)
        self.conversations = ConversationList("list", self._now, zone)
        self.timeline = Timeline("timeline", self._now, zone)
        self.composer = Composer("composer")
        self._main = Horizontal(id="main")
        self._brand = Static(id="brand")
        self._heading = Static(id="heading")
        self._empty = Static(id="empty")
        self._below = Static(id="below")
        self._hint = Static(id="hint")
        self._connection = Static(id="connection")
        self._acts = Acts(self, session)
        self._drafts: dict[str, tuple[str, Bubble | None]] = {}
        self._replying: Bubble | None = None
        self._retry_at = 0.0
        self._flushed_at = 0.0
        self._ended_told = False
        self._last_rung = 0
        self._open_when_found = False

    def compose(self) -> ComposeResult:
        """The screen."""
        with self._main:
            with Vertical(id="sidebar"):
                yield self._brand
                yield self.search
                yield self.conversations
            with Vertical(id="chat"):
                yield self._heading
                with Vertical(id="messages"):
                    yield self.timeline
                    yield self._empty
                    yield self._below
                yield self._hint
                with Horizontal(id="line"):
                    yield Static("\u276f", id="prompt")
                    yield self.composer
        with Horizontal(id="status"):
            yield self._connection
            yield Static("Ctrl+K find  Ctrl+N/P switch  F1 help", id="keys")

    def on_mount(self) -> None:
        """Begin to show the session."""
        self.session.on_change = self._changed
        self.session.on_fault = self._show_fault
        self.set_interval(1.0, self._tick)
        self.composer.focus()
        self.session.model.changes.order = True
        self._redraw()

    # The parts

    @property
    def chat(self) -> Chat | None:
        """The conversation that is open."""
        return self.session.wants.opened(self.session.model)

    @property
    def narrow(self) -> bool:
        """Whether the list and a conversation don't fit beside each other."""
        return self.size.width < _NARROW

    # Showing what has changed

    def _changed(self) -> None:
        """The model has changed. This may be called in any task, and a timer needs the application's context."""
        self.call_later(self._redraw_soon)

    def _redraw_soon(self) -> None:
        """However often the model changes, it is drawn no more than so many times a second."""
        wait = self._flushed_at + _FRAME - asyncio.get_running_loop().time()
        if wait > 0:
            self.set_timer(wait, self._redraw)
        else:
            self._redraw()

    def _redraw(self) -> None:
        if not self.is_running or not self.is_attached:
            return
        self._flushed_at = asyncio.get_running_loop().time()
        changes = self.session.take_changes()
        if changes.connection:
            state = self.session.model.connection
            self._retry_at = self._flushed_at + (state.retry_in or 0.0)
            self._show_connection()
            self._tell_end()
        self._show_list()
        if self._open_when_found:
            self._found()
        if self.session.wants.open in changes.chats:
            self._show_open()
        elif not self.session.wants.open:
            self._open_first()
        elif self.narrow:
            # It also tells what is unread elsewhere.
            self._show_heading()
        self._show_empty()
        self._ring()

    def _show_list(self) -> None:
        model, open_id = self.session.model, self.session.wants.open
        self.conversations.update(model.listed(self.search.value), model.me, open_id)
        self._brand.update(status.brand(model, open_id))

    def _show_open(self) -> None:
        chat = self.chat
        if chat is None:
            return
        if self.timeline.follows:
            self.session.relax(chat)
        self.timeline.update()
        self._show_heading()
        self._show_hint()
        self.composer.disabled = chat.left
        if not chat.left and self.focused is None:
            self.composer.focus()

    def _show_heading(self) -> None:
        chat, model = self.chat, self.session.model
        line: Content | str = ""
        if chat is not None:
            width = self._heading.content_size.width
            line = status.heading(chat, self._now(), self._zone, width - 6)
            if self.narrow:
                line = Content.assemble(status.way_back(model, chat.conversation_id), line)
        self._heading.update(line)

    def _show_connection(self) -> None:
        model = self.session.model
        left = max(0.0, self._retry_at - asyncio.get_running_loop().time())
        width = self._connection.content_size.width
        self._connection.update(status.connection_line(model.connection, left, model.queued, width))

    def _show_empty(self) -> None:
        text = status.instead_of_messages(
            self.chat, self.session.model, listed=self.session.wants.listed, narrow=self.narrow
        )
        self._empty.update(Content(text))
        self._empty.display = bool(text)

    def _show_hint(self) -> None:
        width = self._hint.content_size.width or self.size.width - 4
        content = status.hint(self.composer.text, self._replying, width)
        bubble, chat = self.timeline.chosen, self.chat
        if content is None and bubble is not None and chat is not None:
            content = status.about(bubble, chat, width)
        self._hint.update(content or "")
        self._hint.display = content is not None

    def _tick(self) -> None:
        """A second has passed."""
        if self.session.model.connection.status is ConnectionStatus.OFFLINE:
            self._show_connection()
        if self.chat is not None and self.chat.direct:
            self._show_heading()

    def _tell_end(self) -> None:
        state = self.session.model.connection
        if state.status is not ConnectionStatus.ENDED:
            self._ended_told = False
            return
        if not self._ended_told and state.error is not None:
            self._ended_told = True
            self._ask_to_reconnect(explain(state.error))

    def _ask_to_reconnect(self, why: str) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self.run_worker(self.session.restart())

        text = f"The server has ended the session: {why}."
        self.push_screen(Question("Disconnected", text, "Connect again", "Stay here"), answered)

    def _show_fault(self, error: BaseException) -> None:
        what = explain(error) if isinstance(error, TidingsError) else repr(error)
        self.tell(f"Something went wrong: {what}", severity="error")

    def tell(self, text: str, *, severity: Any = "information") -> None:
        """Say something in a corner."""
        self.notify(one_line(text), severity=severity, markup=False, timeout=6)

    def _ring(self) -> None:
        """Ring once for what came while nobody looked."""
        unread = self.session.model.unread
        if self._bell and unread > self._last_rung and not self.app_focus:
            self.bell()
        self._last_rung = unread

    # Going from conversation to conversation

    def _open_first(self) -> None:
        """Begin with the latest conversation, where there is room beside the list."""
        if self.search.has_focus:
            return
        listed = self.session.model.listed()
        if listed and self.session.wants.listed and not self.narrow:
            self.open(listed[0].conversation_id)
        elif self.narrow and not self._main.has_class("list-open"):
            self.action_search()

    def open(self, conversation_id: str) -> None:
        """Show a conversation."""
        wants = self.session.wants
        if wants.open != conversation_id:
            if wants.open:
                self._drafts[wants.open] = (self.composer.text, self._replying)
            chat = self.session.open(conversation_id)
            text, self._replying = self._drafts.pop(conversation_id, ("", None))
            self.composer.put(text)
            new_after = chat.read_seq if chat is not None and chat.unread else None
            self.timeline.show(chat, self.session.model.me, new_after)
            self._show_open()
            self._show_list()
            self._show_empty()
        self._main.remove_class("list-open")
        self.composer.focus()

    def action_switch(self, direction: int) -> None:
        """Open the conversation below or above."""
        ids = self.conversations.ids
        if not ids:
            return
        current = self.session.wants.open
        index = 0 if direction > 0 else len(ids) - 1
        if current in ids:
            index = (ids.index(current) + direction) % len(ids)
        self.open(ids[index])

    def action_search(self) -> None:
        """Search for a conversation."""
        self._main.add_class("list-open")
        self.search.focus()

    def action_toggle_list(self) -> None:
        """Show the list in place of the conversation, or the other way round."""
        if self.narrow and self.chat is not None:
            self._main.toggle_class("list-open")
            if self._main.has_class("list-open"):
                self.search.focus()
            else:
                self.composer.focus()

    def on_resize(self) -> None:
        """What depends on the width is drawn anew."""
        self.call_after_refresh(self._resized)

    def _resized(self) -> None:
        self._show_heading()
        self._show_connection()
        self._show_hint()
        self._show_empty()

    @on(ConversationList.Opened)
    def _clicked(self, event: ConversationList.Opened) -> None:
        self.open(event.conversation_id)

    @on(ConversationList.InSight)
    def _in_sight(self, event: ConversationList.InSight) -> None:
        self.session.show(event.conversation_ids)

    @on(Input.Changed, "#search")
    def _searched(self) -> None:
        self._open_when_found = False
        self._show_list()
        ids = self.conversations.ids
        searching = self.search.has_focus and bool(ids)
        self.conversations.point(ids[0] if searching and self.search.value else None)

    @on(Input.Submitted, "#search")
    def _found(self) -> None:
        chosen = self.conversations.cursor or next(iter(self.conversations.ids), None)
        # Whoever types faster than the list comes gets what was meant.
        self._open_when_found = chosen is None
        if chosen is not None:
            self._end_search()
            self.open(chosen)

    def _end_search(self) -> None:
        self._open_when_found = False
        self.search.value = ""
        self.conversations.point(None)

    def on_key(self, event: events.Key) -> None:
        """Up and down in the search move in the list."""
        if self.search.has_focus and event.key in ("up", "down"):
            self.conversations.move_cursor(1 if event.key == "down" else -1)
            event.stop()

    def action_retreat(self) -> None:
        """Out of the search, of a reply, of the messages: to the line, and then to the end."""
        if self.search.has_focus:
            self._end_search()
            if self.chat is not None:
                self._main.remove_class("list-open")
        self.timeline.choose("")
        self.composer.focus()

    # Messages

    @on(Timeline.Moved)
    def _moved(self, event: Timeline.Moved) -> None:
        chat = self.chat
        if chat is None:
            return
        if event.near_top:
            self.session.load_older(chat)
        if self._looked_at:
            self.session.saw(chat, event.seen_seq)
        new = chat.unread if not event.at_end else 0
        self._below.update(f"↓ {new} new · Ctrl+End" if new else "↓ Ctrl+End")
        self._below.display = not event.at_end

    @property
    def _looked_at(self) -> bool:
        return (
            self.app_focus
            and len(self.screen_stack) == 1
            and not (self.narrow and self._main.has_class("list-open"))
        )

    def on_app_focus(self) -> None:
        """Somebody looks again."""
        self.timeline.update()

    def action_page_timeline(self, direction: int) -> None:
        """Scroll by a screen."""
        self.timeline.page(direction)

    def action_to_end(self) -> None:
        """Go to the newest message."""
        self.timeline.to_end()

    @on(TextArea.Changed, "#composer")
    def _written(self) -> None:
        self._show_hint()

    @on(Composer.Left)
    def _left_composer(self, event: Composer.Left) -> None:
        if event.upwards:
            self.timeline.focus()
            self.timeline.action_choose(-1)
        elif self._replying is not None:
            self._replying = None
            self._show_hint()
        elif not self.timeline.follows:
            self.timeline.to_end()

    @on(Composer.Submitted)
    async def _submitted(self, event: Composer.Submitted) -> None:
        typed = parse(event.text)
        match typed:
            case Wrong(problem=problem):
                if problem:
                    self.composer.give_back(event.text)
                    self.tell(problem, severity="warning")
            case SendText(text=text):
                if not await self._send(text):
                    self.composer.give_back(event.text)
            case Run():
                self.run_worker(self._acts.run(typed, event.text))

    async def _send(self, text: str) -> bool:
        """Send to the open conversation; returns whether it will be sent."""
        chat = self.chat
        if chat is None:
            self.tell("Choose a conversation first, or /dm somebody.", severity="warning")
            return False
        replying = self._replying
        try:
            await self.session.send(
                chat, text, reply_to=replying.message_id if replying is not None else None
            )
        except TidingsError as error:
            self.tell(f"Not sent: {explain(error)}.", severity="error")
            return False
        if self._replying is replying:
            self._replying = None
        self._show_hint()
        self.timeline.to_end()
        return True

    @on(Timeline.Chosen)
    def _chosen(self) -> None:
        self._show_hint()

    @on(Timeline.Asked)
    async def _asked(self, event: Timeline.Asked) -> None:
        chat, bubble = self.chat, event.message
        if chat is None:
            return
        match event.what:
            case "reply" if bubble.problem:
                await self._acts.retry(chat, bubble.message_id)
            case "reply":
                self._replying = bubble
            case "copy":
                self.copy_to_clipboard(self._original(chat, bubble))
                self.tell("Copied.")
            case "retry":
                await self._acts.retry(chat, bubble.message_id)
            case "discard":
                await self._acts.discard(chat, bubble.message_id)
        self.timeline.choose("")
        self.composer.focus()
        self._show_hint()

    def _original(self, chat: Chat, bubble: Bubble) -> str:
        """The text as it was sent."""
        own = chat.timeline.outgoing.get(bubble.message_id)
        if own is not None:
            return own.text
        message = chat.timeline.find(bubble.message_id)
        return message.text if isinstance(message, Message) else bubble.text

    # The rest

    def action_new_conversation(self) -> None:
        """Ask whom to talk with."""
        if len(self.screen_stack) > 1:
            return

        def answered(answer: tuple[str, tuple[str, ...]] | None) -> None:
            if answer is not None:
                self.run_worker(self._acts.begin(*answer))

        self.push_screen(NewConversation(), answered)

    def action_help(self) -> None:
        """Show keys and commands."""
        if len(self.screen_stack) == 1:
            self.push_screen(Help())

    def action_toggle_theme(self) -> None:
        """Light to dark, dark to light."""
        self.theme = LIGHT if self.theme == DARK else DARK

    def action_reconnect(self) -> None:
        """Connect anew, if the session has ended."""
        if self.session.model.connection.status is ConnectionStatus.ENDED:
            self.run_worker(self.session.restart())
