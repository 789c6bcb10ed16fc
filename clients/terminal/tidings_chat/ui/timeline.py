"""The messages of the open conversation: scrolled by lines, drawn once, and kept in place when others come."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import ClassVar, Final

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.cache import LRUCache
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from ..model import Chat, Loading, Progress
from ..transcript import Bubble, Item, NewLine, transcript
from .bubbles import Look, draw
from .theme import SENDERS

_DRAWN: Final = 3000
_STYLES: Final = (
    "own",
    "other",
    "chosen",
    "faint",
    "seen",
    "problem",
    "day",
    "new",
    "link",
)


class Timeline(ScrollView, can_focus=True):
    """A conversation's messages.

    Args:
        name: Its id on the screen.
        now: The time, in the zone of the screen.
        zone: That zone, None for the system's.
    """

    ALLOW_SELECT = True
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(f"timeline--{name}" for name in _STYLES),
        *(f"timeline--sender-{number}" for number in range(SENDERS)),
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "choose(-1)", "Previous message", show=False),
        Binding("down,j", "choose(1)", "Next message", show=False),
        Binding("enter,r", "reply", "Reply", show=False),
        Binding("c,y", "copy", "Copy", show=False),
        Binding("t", "retry", "Send again", show=False),
        Binding("d,delete", "discard", "Discard", show=False),
    ]

    class Chosen(Message):
        """Another message was chosen, or none."""

        def __init__(self, bubble: Bubble | None) -> None:
            super().__init__()
            self.message = bubble

    class Asked(Message):
        """Something is asked for a message: reply, copy, retry or discard."""

        def __init__(self, what: str, bubble: Bubble) -> None:
            super().__init__()
            self.what = what
            self.message = bubble

    class Moved(Message):
        """What is in sight has changed.

        Attributes:
            seen_seq: The newest position in sight.
            at_end: Whether the end is in sight.
            near_top: Whether the beginning of what is held is near.
        """

        def __init__(self, seen_seq: int, *, at_end: bool, near_top: bool) -> None:
            super().__init__()
            self.seen_seq = seen_seq
            self.at_end = at_end
            self.near_top = near_top

    def __init__(self, name: str, now: Callable[[], datetime], zone: tzinfo | None = None) -> None:
        super().__init__(id=name)
        self._now = now
        self._zone = zone
        self._chat: Chat | None = None
        self._me = ""
        self._new_after: int | None = None
        self._items: list[Item] = []
        self._lines: list[Strip] = []
        self._starts: list[int] = []
        """The line at which each item begins."""
        self._drawn: LRUCache[tuple[Item, int, bool], list[Strip]] = LRUCache(_DRAWN)
        self._look: Look | None = None
        self._follow = True
        self._fresh = True
        """Whether where it begins is still to be chosen."""
        self._adjusting = False
        self._chosen = ""

    # What is shown

    @property
    def follows(self) -> bool:
        """Whether the end is in sight and stays so."""
        return self._follow

    @property
    def chosen(self) -> Bubble | None:
        """The message that is chosen, or None."""
        for item in self._items:
            if item.key == self._chosen and isinstance(item, Bubble):
                return item
        return None

    def show(self, chat: Chat | None, me: str, new_after: int | None) -> None:
        """Show a conversation: at its end, or where what is new begins if that doesn't fit."""
        self._chat = chat
        self._me = me
        self._new_after = new_after
        self._chosen = ""
        self._follow = self._fresh = True
        self._items = []
        self._forget_selection()
        self.update()

    def update(self) -> None:
        """The conversation has changed: draw it again, with what is in sight staying where it is."""
        if not self.is_attached or self.size.width == 0:
            return
        anchor = self._anchor()
        chat = self._chat
        items = (
            transcript(chat, self._me, self._zone, self._now().date(), self._new_after)
            if chat is not None
            else []
        )
        if anchor is not None and items and self._items and items[0].key != self._items[0].key:
            self._forget_selection()
        self._items = items
        self._lay_out()
        self._adjusting = True
        try:
            self.virtual_size = Size(self._width, len(self._lines))
            if self._fresh and items and chat is not None:
                self._fresh = chat.timeline.loading is not Loading.LOADED
                anchor = anchor or self._beginning_of_new()
            self._place(anchor)
        finally:
            self._adjusting = False
        self.refresh()
        self._tell()

    def _lay_out(self) -> None:
        look = self._styles()
        lines: list[Strip] = []
        starts = []
        for item in self._items:
            starts.append(len(lines))
            lines.extend(self._draw(item, look))
        # A short conversation stands at the bottom.
        spare = self.size.height - len(lines)
        if spare > 0 and lines:
            blank = Strip.blank(self._width, look.base)
            lines[:0] = [blank] * spare
            starts = [start + spare for start in starts]
        self._lines = lines
        self._starts = starts

    def _draw(self, item: Item, look: Look) -> list[Strip]:
        chosen = item.key == self._chosen
        key = (item, self._width, chosen)
        strips = self._drawn.get(key)
        if strips is None:
            strips = draw(item, self._width, look, chosen=chosen)
            self._drawn[key] = strips
        return strips

    @property
    def _width(self) -> int:
        return self.scrollable_content_region.width

    def _styles(self) -> Look:
        def style(name: str) -> Style:
            return self.get_component_rich_style(f"timeline--{name}", partial=True)

        look = Look(
            base=self.rich_style,
            **{name: style(name) for name in _STYLES},
            senders=tuple(style(f"sender-{number}") for number in range(SENDERS)),
        )
        if look != self._look:
            self._look = look
            self._drawn.clear()
        return look

    # Where it is

    def _anchor(self) -> tuple[str, int] | None:
        """The item at the upper edge and how far into it that is; None when the end is followed."""
        if self._follow or not self._starts:
            return None
        top = self.scroll_offset.y
        index = max(0, bisect.bisect_right(self._starts, top) - 1)
        # What marks the beginning goes away when more comes.
        if self._items[index].key == "top" and index + 1 < len(self._items):
            index += 1
        return self._items[index].key, top - self._starts[index]

    def _beginning_of_new(self) -> tuple[str, int] | None:
        """Where what is new begins, if that is known and doesn't fit on the screen with all that follows."""
        index = next((i for i, item in enumerate(self._items) if isinstance(item, NewLine)), None)
        if index is None or self._chat is None:
            return None
        known = self._chat.timeline.at_top or any(item.seq for item in self._items[:index])
        if not known or len(self._lines) - self._starts[index] <= self.size.height:
            return None
        self._follow = False
        return self._items[index].key, 0

    def _place(self, anchor: tuple[str, int] | None) -> None:
        if anchor is not None:
            key, offset = anchor
            for item, start in zip(self._items, self._starts, strict=True):
                if item.key == key:
                    self.scroll_to(y=start + offset, animate=False, immediate=True)
                    return
            if not key.startswith("day"):
                self._follow = True
        if self._follow:
            self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Somebody has scrolled, or `update` has."""
        super().watch_scroll_y(old_value, new_value)
        if not self._adjusting:
            self._follow = round(new_value) >= self.max_scroll_y
            self._tell()

    def _tell(self) -> None:
        if self._chat is None or not self._lines:
            return
        top = self.scroll_offset.y
        bottom = top + self.scrollable_content_region.height - 1
        last = max(0, bisect.bisect_right(self._starts, bottom) - 1)
        seen = next((item.seq for item in reversed(self._items[: last + 1]) if item.seq), 0)
        self.post_message(
            self.Moved(
                seen,
                at_end=self._follow,
                near_top=top < max(10, self.scrollable_content_region.height),
            )
        )

    def to_end(self) -> None:
        """Go to the newest message and follow."""
        self._follow = True
        self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True)
        self._tell()

    def page(self, direction: int) -> None:
        """Go one screen up (-1) or down (1)."""
        step = max(1, self.scrollable_content_region.height - 2)
        self.scroll_to(y=self.scroll_offset.y + direction * step, animate=False, immediate=True)

    def on_resize(self) -> None:
        """Break the lines anew."""
        self.update()

    def notify_style_update(self) -> None:
        """The look has changed."""
        super().notify_style_update()
        # The new styles hold only when all of them are set.
        self.call_later(self.update)

    # Choosing

    def choose(self, key: str) -> None:
        """Choose a message, or none."""
        if key != self._chosen:
            self._chosen = key
            self.update()
            self.post_message(self.Chosen(self.chosen))

    def action_choose(self, direction: int) -> None:
        """Choose the message above or below; the newest one if there is none."""
        keys = [item.key for item in self._items if isinstance(item, Bubble)]
        if not keys:
            return
        if self._chosen in keys:
            index = keys.index(self._chosen) + direction
            if index >= len(keys):
                self.to_end()
                return
        else:
            index = len(keys) - 1
        self.choose(keys[max(0, index)])
        self._reveal(self._chosen)
        if index < 0:
            self.scroll_to(y=0, animate=False, immediate=True)

    def _reveal(self, key: str) -> None:
        index = next(i for i, item in enumerate(self._items) if item.key == key)
        start = self._starts[index]
        end = self._starts[index + 1] if index + 1 < len(self._starts) else len(self._lines)
        height = self.scrollable_content_region.height
        top = self.scroll_offset.y
        if start < top:
            self.scroll_to(y=start, animate=False, immediate=True)
        elif end > top + height:
            self.scroll_to(y=min(start, end - height), animate=False, immediate=True)

    def _ask(self, what: str) -> None:
        bubble = self.chosen
        if bubble is not None:
            self.post_message(self.Asked(what, bubble))

    def action_reply(self) -> None:
        """Reply to the chosen message."""
        self._ask("reply")

    def action_copy(self) -> None:
        """Copy the chosen message."""
        self._ask("copy")

    def action_retry(self) -> None:
        """Send the chosen message again."""
        bubble = self.chosen
        if bubble is not None and bubble.progress is Progress.FAILED:
            self._ask("retry")

    def action_discard(self) -> None:
        """Give up the chosen message."""
        bubble = self.chosen
        if bubble is not None and bubble.progress in (Progress.FAILED, Progress.QUEUED):
            self._ask("discard")

    def on_click(self, event: events.Click) -> None:
        """Choose what was clicked at; twice replies."""
        offset = event.get_content_offset(self)
        if offset is None or not self._starts or self.text_selection is not None:
            return
        line = self.scroll_offset.y + offset.y
        if line < self._starts[0]:
            return
        item = self._items[bisect.bisect_right(self._starts, line) - 1]
        if isinstance(item, Bubble):
            self.choose(item.key)
            if event.chain == 2:
                self.action_reply()

    def on_blur(self) -> None:
        """Nothing is chosen by somebody who is elsewhere."""
        self.choose("")

    # Drawing

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        line = self.scroll_offset.y + y
        if line >= len(self._lines):
            return Strip.blank(self._width, self.rich_style)
        strip = self._lines[line]
        selection = self.text_selection
        if selection is not None and (span := selection.get_span(line)) is not None:
            strip = self._selected(strip, *span)
        return strip.apply_offsets(0, line)

    def _selected(self, strip: Strip, start: int, end: int) -> Strip:
        """A line with a part of its text marked as selected."""
        text = strip.text
        end = len(text) if end == -1 else min(end, len(text))
        style = self.screen.get_component_rich_style("screen--selection")
        segments: list[Segment] = []
        at = 0
        for segment in strip:
            part, own, _ = segment
            first = min(max(start - at, 0), len(part))
            last = min(max(end - at, first), len(part))
            segments += [
                Segment(piece, piece_style)
                for piece, piece_style in (
                    (part[:first], own),
                    (part[first:last], (own or Style()) + style),
                    (part[last:], own),
                )
                if piece
            ]
            at += len(part)
        return Strip(segments, strip.cell_length)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The selected text, without what pads it."""
        chosen = selection.extract("\n".join(strip.text for strip in self._lines))
        return "\n".join(line.strip() for line in chosen.splitlines()), "\n"

    def selection_updated(self, selection: Selection | None) -> None:  # noqa: ARG002
        """More or less is selected."""
        self.refresh()

    def _forget_selection(self) -> None:
        if self.is_attached and self.text_selection is not None:
            self.screen.clear_selection()
