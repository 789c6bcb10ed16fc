"""The small windows: help, a new conversation, members, pins, a question, the end of a session."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from tidings import Member, MemberRole, Message

from ..commands import SPECS, user_id
from ..text import one_line

KEYS: Final = (
    ("Enter", "send"),
    ("Alt+Enter, Ctrl+J", "new line"),
    ("Ctrl+N, Ctrl+P, Alt+↓ ↑", "next, previous conversation"),
    ("Ctrl+K", "find a conversation"),
    ("Ctrl+T", "new conversation"),
    ("Page Up, Page Down", "scroll; older messages come by themselves"),
    ("Ctrl+End", "newest message"),
    ("↑ in an empty line", "choose a message"),
    ("  then Enter, C", "reply to it, copy it"),
    ("  then T, D", "send it again, give it up (if it wasn't sent)"),
    ("Esc", "back to the line"),
    ("Ctrl+B", "show the list (in a narrow terminal)"),
    ("F2", "light or dark"),
    ("F1", "this help"),
    ("Ctrl+Q", "quit"),
)


class Help(ModalScreen[None]):
    """Keys and commands."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q,f1", "close", "Close")]

    def compose(self) -> ComposeResult:
        """The window."""
        with VerticalScroll(classes="window", id="help"):
            yield Static("Keys", classes="window-title")
            yield Static(_table((*KEYS,)))
            yield Static("Commands", classes="window-title")
            yield Static(
                _table(tuple((f"/{spec.name} {spec.usage}".rstrip(), spec.help) for spec in SPECS))
            )
            yield Static("◷ waits to be sent   ✓ sent   ✓✓ delivered", classes="window-note")
            yield Static(_read_mark(), classes="window-note-end")

    def on_mount(self) -> None:
        """The keys scroll."""
        self.query_one("#help").focus()

    def action_close(self) -> None:
        """Close it."""
        self.dismiss(None)


def _read_mark() -> Content:
    return Content.assemble(("✓✓", "$seen"), " read   ", ("✗", "$error"), " not sent")


def _table(rows: tuple[tuple[str, str], ...]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=22, max_width=30)
    table.add_column()
    for left, right in rows:
        table.add_row(Text(left, style="bold"), Text(right))
    return table


class NewConversation(ModalScreen[tuple[str, tuple[str, ...]] | None]):
    """Asks for people, and a title if it is to be a group. Gives (title, users), or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Cancel")]

    def compose(self) -> ComposeResult:
        """The window."""
        with Vertical(classes="window", id="new"):
            yield Static("New conversation", classes="window-title")
            yield Input(placeholder="with whom? one name, or several for a group", id="people")
            yield Input(placeholder="title of the group (only for a group)", id="title")
            yield Static("", id="problem", classes="window-problem")
            with Horizontal(classes="buttons"):
                yield Button("Start", variant="primary", id="start")
                yield Button("Cancel", id="cancel")

    def on_input_submitted(self) -> None:
        """Enter starts."""
        self._start()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """One of the buttons."""
        if event.button.id == "start":
            self._start()
        else:
            self.dismiss(None)

    def _start(self) -> None:
        typed = self.query_one("#people", Input).value.replace(",", " ").split()
        people = tuple(dict.fromkeys(user_id(name) for name in typed))
        if not people:
            problem = self.query_one("#problem", Static)
            problem.update("Type at least one name.")
            problem.display = True
            self.query_one("#people").focus()
            return
        self.dismiss((self.query_one("#title", Input).value.strip(), people))

    def action_cancel(self) -> None:
        """Close it."""
        self.dismiss(None)


class Listing(ModalScreen[None]):
    """A window with lines to be read."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q", "close", "Close")]

    def __init__(self, title: str, lines: Iterable[Content], note: str = "") -> None:
        super().__init__()
        self._title = title
        self._lines = lines
        self._note = note

    def compose(self) -> ComposeResult:
        """The window."""
        with VerticalScroll(classes="window", id="listing"):
            yield Static(Content(self._title), classes="window-title")
            for line in self._lines:
                yield Static(line)
            if self._note:
                yield Static(Content(self._note), classes="window-note")

    def on_mount(self) -> None:
        """The keys scroll."""
        self.query_one("#listing").focus()

    def action_close(self) -> None:
        """Close it."""
        self.dismiss(None)


class Members(Listing):
    """Who is in a conversation."""

    def __init__(self, name: str, members: list[Member], count: int, me: str) -> None:
        more = count - len(members)
        note = f"and {more} more" if more > 0 else ""
        super().__init__(f"{name} · {count}", [_member(member, me) for member in members], note)


def _member(member: Member, me: str) -> Content:
    name = one_line(member.user_id)
    if member.user_id == me:
        name += " (you)"
    plain = member.role in (MemberRole.MEMBER, MemberRole.UNSPECIFIED)
    role = "" if plain else f"  {member.role.name.lower()}"
    return Content.assemble(name, (role, "$faint"))


class Pins(Listing):
    """What is pinned in a conversation."""

    def __init__(self, name: str, pins: list[Message]) -> None:
        lines = [
            Content.assemble((one_line(pin.user_id), "$faint"), "  ", one_line(pin.text))
            for pin in pins
        ]
        super().__init__(f"{name} · pinned", lines, "" if pins else "nothing")


class Question(ModalScreen[bool]):
    """Asks whether to do something."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,n", "answer(False)", "No"),
        Binding("y", "answer(True)", "Yes"),
    ]

    def __init__(self, title: str, text: str, yes: str, no: str = "Cancel") -> None:
        super().__init__()
        self._title = title
        self._text = text
        self._yes = yes
        self._no = no

    def compose(self) -> ComposeResult:
        """The window."""
        with Vertical(classes="window", id="question"):
            yield Static(Content(self._title), classes="window-title")
            yield Static(Content(self._text))
            with Horizontal(classes="buttons"):
                yield Button(Content(self._yes), variant="primary", id="yes")
                yield Button(Content(self._no), id="no")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """One of the buttons."""
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        """One of the keys."""
        self.dismiss(yes)
