"""The list of conversations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from typing import ClassVar, Final

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Size
from textual.message import Message as UiMessage
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tidings import Message

from .. import when
from ..model import Chat, Progress
from ..text import cell_len, fit, one_line
from ..transcript import describe
from .bubbles import TICKS

_HEIGHT: Final = 2
_MOST_UNREAD: Final = 999
_STYLES: Final = ("name", "faint", "badge", "online", "seen", "problem", "open", "cursor", "mark")


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation as it stands in the list."""

    conversation_id: str
    name: str
    when: str
    preview: str
    progress: Progress | None
    unread: int
    direct: bool
    online: bool
    left: bool


def row_of(chat: Chat, me: str, today: date, zone: tzinfo | None) -> Row:
    """What the list shows of a conversation."""
    preview = ""
    progress: Progress | None = None
    own = chat.last_outgoing
    last = chat.last
    if own is not None:
        preview = one_line(own.text)
        progress = Progress.FAILED if own.error is not None else Progress.QUEUED
        progress = Progress.SENT if own.seq else progress
    elif isinstance(last, Message):
        preview = "(deleted)" if last.erased else one_line(last.text)
        if last.own:
            progress = chat.progress(last.seq)
        elif not chat.direct:
            preview = f"{one_line(last.user_id)}: {preview}"
    elif last is not None:
        preview = describe(last, me) if not chat.direct else "No messages yet"
    return Row(
        conversation_id=chat.conversation_id,
        # Groups have a # in front of them already.
        name=one_line(chat.name).removeprefix("#") or "#",
        when=when.short(chat.latest.astimezone(zone), today),
        preview=preview,
        progress=progress,
        unread=0 if chat.left else chat.unread,
        direct=chat.direct,
        online=chat.presence is not None and chat.presence.online,
        left=chat.left,
    )


class ConversationList(ScrollView, can_focus=False):
    """The conversations, two lines each.

    Args:
        name: Its id on the screen.
        now: The time, in the zone of the screen.
        zone: That zone, None for the system's.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"list--{name}" for name in _STYLES}

    class Opened(UiMessage):
        """A conversation was clicked at."""

        def __init__(self, conversation_id: str) -> None:
            super().__init__()
            self.conversation_id = conversation_id

    class InSight(UiMessage):
        """Other conversations are in sight."""

        def __init__(self, conversation_ids: tuple[str, ...]) -> None:
            super().__init__()
            self.conversation_ids = conversation_ids

    def __init__(self, name: str, now: Callable[[], datetime], zone: tzinfo | None = None) -> None:
        super().__init__(id=name)
        self._now = now
        self._zone = zone
        self._me = ""
        self._chats: Sequence[Chat] = ()
        self._open = ""
        self._cursor: str | None = None
        self._styles: dict[str, Style] = {}
        self._in_sight: tuple[str, ...] = ()

    @property
    def ids(self) -> list[str]:
        """The conversations in the list, from top to bottom."""
        return [chat.conversation_id for chat in self._chats]

    @property
    def cursor(self) -> str | None:
        """Where the cursor is while somebody searches."""
        return self._cursor

    def update(self, chats: Sequence[Chat], me: str, open_id: str) -> None:
        """Show these conversations."""
        moved = open_id != self._open
        self._chats = chats
        self._me = me
        self._open = open_id
        if self._cursor is not None and self._cursor not in self.ids:
            self._cursor = self._chats[0].conversation_id if self._chats else None
        self.virtual_size = Size(self._width, len(chats) * _HEIGHT)
        if moved:
            self._reveal(open_id)
        self.refresh()
        self._tell()

    def point(self, conversation_id: str | None) -> None:
        """Put the cursor somewhere, or take it away."""
        self._cursor = conversation_id
        if conversation_id is not None:
            self._reveal(conversation_id)
        self.refresh()

    def move_cursor(self, direction: int) -> None:
        """Move the cursor up (-1) or down (1)."""
        ids = self.ids
        if ids:
            index = ids.index(self._cursor) + direction if self._cursor in ids else 0
            self.point(ids[min(max(index, 0), len(ids) - 1)])

    def row(self, conversation_id: str) -> Row | None:
        """What is shown of a conversation, or None when it isn't in the list."""
        for chat in self._chats:
            if chat.conversation_id == conversation_id:
                return row_of(chat, self._me, self._now().date(), self._zone)
        return None

    @property
    def _width(self) -> int:
        return self.scrollable_content_region.width

    def _reveal(self, conversation_id: str) -> None:
        ids = self.ids
        if conversation_id not in ids:
            return
        start = ids.index(conversation_id) * _HEIGHT
        top, height = self.scroll_offset.y, self.scrollable_content_region.height
        if start < top:
            self.scroll_to(y=start, animate=False, immediate=True)
        elif start + _HEIGHT > top + height:
            self.scroll_to(y=start + _HEIGHT - height, animate=False, immediate=True)

    def _tell(self) -> None:
        first = self.scroll_offset.y // _HEIGHT
        count = self.scrollable_content_region.height // _HEIGHT + 2
        in_sight = tuple(chat.conversation_id for chat in self._chats[first : first + count])
        if in_sight != self._in_sight:
            self._in_sight = in_sight
            self.post_message(self.InSight(in_sight))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Others come into sight."""
        super().watch_scroll_y(old_value, new_value)
        self._tell()

    def on_resize(self) -> None:
        """There is another width, or more in sight."""
        self.virtual_size = Size(self._width, len(self._chats) * _HEIGHT)
        self._tell()
        self.refresh()

    def notify_style_update(self) -> None:
        """The look has changed."""
        super().notify_style_update()
        self._styles.clear()
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        """Open what was clicked at."""
        offset = event.get_content_offset(self)
        if offset is None:
            return
        index = (self.scroll_offset.y + offset.y) // _HEIGHT
        if index < len(self._chats):
            self.post_message(self.Opened(self._chats[index].conversation_id))

    # Drawing

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        width = self._width
        index, part = divmod(self.scroll_offset.y + y, _HEIGHT)
        if index >= len(self._chats):
            return Strip.blank(width, self.rich_style)
        row = row_of(self._chats[index], self._me, self._now().date(), self._zone)
        ground = self.rich_style
        if row.conversation_id == self._open:
            ground = ground + self._style("open")
        if row.conversation_id == self._cursor:
            ground = ground + self._style("cursor")
        bar = "▌" if row.conversation_id in (self._open, self._cursor) else " "
        edge = Segment(bar, ground + self._style("mark"))
        pieces = self._first(row, width - 2) if part == 0 else self._second(row, width - 2)
        segments = [edge, *(Segment(text, ground + style) for text, style in pieces)]
        return Strip(segments).adjust_cell_length(width, ground)

    def _first(self, row: Row, width: int) -> list[tuple[str, Style]]:
        if row.direct:
            dot = ("● ", self._style("online")) if row.online else ("○ ", self._style("faint"))
        else:
            dot = ("# ", self._style("faint"))
        time_style = self._style("mark") if row.unread else self._style("faint")
        name_style = self._style("faint" if row.left else "name")
        if row.unread:
            name_style = name_style + Style(bold=True)
        room = width - 3 - cell_len(row.when)
        return [dot, (fit(row.name, room), name_style), (" ", Style()), (row.when, time_style)]

    def _second(self, row: Row, width: int) -> list[tuple[str, Style]]:
        pieces: list[tuple[str, Style]] = [("  ", Style())]
        room = width - 2
        badge = ""
        if row.unread:
            count = str(row.unread) if row.unread <= _MOST_UNREAD else f"{_MOST_UNREAD}+"
            badge = f" {count} "
            room -= len(badge) + 1
        if row.progress is not None:
            tick = TICKS[row.progress]
            style = {Progress.READ: "seen", Progress.FAILED: "problem"}.get(row.progress, "faint")
            pieces.append((f"{tick} ", self._style(style)))
            room -= len(tick) + 1
        pieces.append((fit(row.preview, room), self._style("faint")))
        if badge:
            pieces += [(" ", Style()), (badge, self._style("badge"))]
        return pieces

    def _style(self, name: str) -> Style:
        style = self._styles.get(name)
        if style is None:
            style = self.get_component_rich_style(f"list--{name}", partial=True)
            self._styles[name] = style
        return style
