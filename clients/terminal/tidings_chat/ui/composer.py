"""Where messages are written: Enter sends, other keys make a new line."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea


class Composer(TextArea):
    """A text area that sends."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pageup", "app.page_timeline(-1)", "Scroll up", show=False),
        Binding("pagedown", "app.page_timeline(1)", "Scroll down", show=False),
        Binding("ctrl+end", "app.to_end", "Newest message", show=False),
    ]

    class Submitted(Message):
        """Enter was pressed; the composer is empty again."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Left(Message):
        """The cursor was moved up out of an empty composer, or Escape was pressed."""

        def __init__(self, *, upwards: bool) -> None:
            super().__init__()
            self.upwards = upwards

    def __init__(self, name: str) -> None:
        super().__init__(
            id=name, soft_wrap=True, show_line_numbers=False, highlight_cursor_line=False
        )

    async def _on_key(self, event: events.Key) -> None:
        match event.key:
            case "enter":
                text = self.text
                # At once: what is typed from now on belongs to the next message.
                self.put("")
                self.post_message(self.Submitted(text))
            case "shift+enter" | "shift+\r" | "alt+enter" | "ctrl+j":
                self.insert("\n")
            case "escape":
                self.post_message(self.Left(upwards=False))
            case "up" if not self.text:
                self.post_message(self.Left(upwards=True))
            case _:
                await super()._on_key(event)
                return
        event.prevent_default()
        event.stop()

    def give_back(self, text: str) -> None:
        """Put back what couldn't be sent, before what was typed since."""
        self.put(f"{text}\n{self.text}" if self.text else text)

    def put(self, text: str) -> None:
        """Replace what is written, with the cursor behind it."""
        self.load_text(text)
        self.move_cursor(self.document.end)
