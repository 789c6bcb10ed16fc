"""Items of a transcript drawn as lines of cells."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Final

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from ..model import Progress
from ..text import cell_len, fit, one_line, steady, truncate, wrap
from ..transcript import Bubble, Item
from .theme import SENDERS

TICKS: Final = {
    Progress.FAILED: "✗",
    Progress.QUEUED: "◷",
    Progress.SENT: "✓",
    Progress.DELIVERED: "✓✓",
    Progress.READ: "✓✓",
}
_MARGIN: Final = 1
_WIDEST: Final = 84
_LINK: Final = re.compile(r"https?://[^\s<>\"]+[^\s<>\".,;:!?)\]}'\u2019]")


@dataclass(frozen=True, slots=True)
class Look:
    """The styles of a timeline, as Rich has them.

    Attributes:
        base: The background.
        own: An own bubble.
        other: Somebody else's bubble.
        chosen: What a bubble has in addition while it is chosen.
        faint: Times and notes, without a background.
        seen: The mark of a message that was read.
        problem: What failed.
        day: The line of a day.
        new: The line above what is new.
        link: An address in a text.
        senders: The names of senders.
    """

    base: Style
    own: Style
    other: Style
    chosen: Style
    faint: Style
    seen: Style
    problem: Style
    day: Style
    new: Style
    link: Style
    senders: tuple[Style, ...]

    def sender(self, user_id: str) -> Style:
        """The style of a name: always the same for the same user."""
        return self.senders[zlib.crc32(user_id.encode(errors="replace")) % SENDERS]


def draw(item: Item, width: int, look: Look, *, chosen: bool = False) -> list[Strip]:
    """The lines of an item, each exactly `width` cells."""
    if isinstance(item, Bubble):
        return _Drawing(item, width, look, chosen=chosen).lines()
    if item.key == "new":
        return [_ruled(item.text, width, look.new, look)]
    if item.key.startswith("day"):
        return [
            Strip.blank(width, look.base),
            _ruled(item.text, width, look.day, look),
        ]
    return [
        _centred(item.text[start:end], width, look)
        for start, end in wrap(item.text, max(2, width - 4))
    ]


def _ruled(text: str, width: int, style: Style, look: Look) -> Strip:
    label = f" {truncate(text, max(0, width - 6))} "
    left = max(0, (width - cell_len(label)) // 2)
    right = max(0, width - left - cell_len(label))
    line = look.base + style
    return Strip(
        [
            Segment(" " + "─" * (left - 1) if left else "", look.base + look.day),
            Segment(label, line),
            Segment("─" * (right - 1) + " " if right else "", look.base + look.day),
        ],
        width,
    )


def _centred(text: str, width: int, look: Look) -> Strip:
    left = max(0, (width - cell_len(text)) // 2)
    line = look.base + look.faint
    return Strip(
        [
            Segment(" " * left, look.base),
            Segment(steady(text), line),
            Segment(" " * max(0, width - left - cell_len(text)), look.base),
        ],
        width,
    )


_Pieces = list[tuple[str, Style]]


class _Drawing:
    """One bubble at one width."""

    def __init__(self, bubble: Bubble, width: int, look: Look, *, chosen: bool) -> None:
        self._bubble = bubble
        self._width = width
        self._look = look
        self._ground = look.own if bubble.own else look.other
        if chosen:
            self._ground = self._ground + look.chosen
        # Both sides keep free what tells on which side a bubble is.
        self._room = max(4, min(_WIDEST, width - 2 * _MARGIN - 2 - (width // 8)))

    def lines(self) -> list[Strip]:
        """The lines, from a blank one above a new run down to what went wrong."""
        bubble, look = self._bubble, self._look
        rows: list[_Pieces] = []
        if bubble.named:
            name = truncate(one_line(bubble.sender), self._room)
            rows.append([(steady(name), self._ground + look.sender(bubble.sender))])
        if bubble.quote is not None:
            rows.extend(self._quote(bubble.quote.sender, bubble.quote.text))
        rows.extend(self._text(start, end) for start, end in wrap(bubble.text, self._room))
        meta = self._meta()
        meta_width = sum(cell_len(text) for text, _ in meta)
        content = max(_width(row) for row in rows)
        last = _width(rows[-1])
        if last + 2 + meta_width <= max(content, self._room):
            content = max(content, last + 2 + meta_width)
        else:
            rows.append([])
            last = 0
            content = max(content, meta_width)
        rows[-1] = [*rows[-1], (" " * (content - last - meta_width), self._ground), *meta]
        apart = bubble.begins_run or bubble.quote is not None
        strips = [Strip.blank(self._width, look.base)] if apart else []
        strips.extend(self._placed(row, content) for row in rows)
        if bubble.problem:
            strips.extend(self._problem())
        return strips

    def _meta(self) -> _Pieces:
        bubble, look = self._bubble, self._look
        pieces = [(bubble.time, self._ground + look.faint)]
        if bubble.progress is not None:
            style = look.faint
            if bubble.progress is Progress.READ:
                style = look.seen
            elif bubble.progress is Progress.FAILED:
                style = look.problem
            pieces.append((f" {TICKS[bubble.progress]}", self._ground + style))
        return pieces

    def _quote(self, sender: str, text: str) -> list[_Pieces]:
        look = self._look
        colour = look.sender(sender) if sender else look.faint
        room = self._room - 2
        bar = ("▎ ", self._ground + colour)
        rows: list[_Pieces] = []
        if sender:
            rows.append([bar, (steady(truncate(one_line(sender), room)), self._ground + colour)])
        rows.append([bar, (steady(truncate(text, room)), self._ground + look.faint)])
        return rows

    def _text(self, start: int, end: int) -> _Pieces:
        text = self._bubble.text
        pieces: _Pieces = []
        at = start
        for match in _LINK.finditer(text):
            first, last = max(match.start(), start), min(match.end(), end)
            if first < last:
                pieces.append((text[at:first], self._ground))
                pieces.append((text[first:last], self._ground + self._look.link))
                at = last
        pieces.append((text[at:end], self._ground))
        line = text[start:end]
        if (mark := steady(line)[len(line) :]) != "":
            pieces.append((mark, self._ground))
        return pieces

    def _placed(self, row: _Pieces, content: int) -> Strip:
        """A row of the bubble on its side of the line."""
        base = self._look.base
        filled = [(" ", self._ground), *row, (" " * (content - _width(row) + 1), self._ground)]
        rest = self._width - content - 2 - _MARGIN
        left, right = (rest, _MARGIN) if self._bubble.own else (_MARGIN, rest)
        segments = [Segment(" " * max(0, left), base)]
        segments += [Segment(text, style) for text, style in filled if text]
        segments.append(Segment(" " * max(0, right), base))
        return Strip(segments).adjust_cell_length(self._width, base)

    def _problem(self) -> list[Strip]:
        look = self._look
        style = look.base + look.problem
        text = f"Not sent: {self._bubble.problem}"
        strips = []
        for start, end in wrap(text, max(2, self._width - 2 * _MARGIN)):
            line = text[start:end]
            left = max(0, self._width - _MARGIN - cell_len(line))
            strips.append(
                Strip(
                    [Segment(" " * left, look.base), Segment(fit(line, self._width - left), style)]
                )
            )
        return strips


def _width(row: _Pieces) -> int:
    return sum(cell_len(text) for text, _ in row)
