"""Text of others made fit for a terminal: harmless, measured in cells, wrapped and cut between graphemes.

A cell is one column of the terminal; CJK characters and most emoji take two.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from rich.cells import cell_len, split_graphemes

__all__ = ["cell_len", "clean", "fit", "one_line", "steady", "truncate", "wrap"]

_TAB = "    "
_NEWLINES = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")
# Bidirectional overrides, embeddings and isolates could rearrange what stands around a message. A soft hyphen and a
# byte order mark take a cell in some terminals and none in others.
_INVISIBLE = re.compile("[\u00ad\u202a-\u202e\u2066-\u2069\ufeff]")
_RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
_LEFT_TO_RIGHT_MARK = "\u200e"
_SPACES = re.compile(r"\s+")
_HANGUL = re.compile("[\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff]")
_FLAG_HALF = re.compile("[\U0001f1e6-\U0001f1ff]")
_SMALL_KANA = re.compile("[ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ]")
_CLOSING = frozenset(("Pe", "Pf", "Po", "Lm"))
_OPENING = frozenset(("Ps", "Pi"))


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code == 0x09:
        return _TAB
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"


@functools.lru_cache(4096)
def clean(text: str) -> str:
    """The text without anything that would steer the terminal: controls become visible, tabs become spaces.

    Lines are divided by a line feed only.
    """
    text = _INVISIBLE.sub("", _NEWLINES.sub("\n", text))
    return _CONTROLS.sub(_picture, text)


def one_line(text: str) -> str:
    """The text in one line, for previews and titles."""
    return _SPACES.sub(" ", clean(text)).strip()


def steady(text: str) -> str:
    """One line of text that leaves what follows it in its place.

    Terminals that know right-to-left scripts would draw a time or a border after such a text on its other side.
    """
    return text + _LEFT_TO_RIGHT_MARK if _RIGHT_TO_LEFT.search(text) else text


def truncate(text: str, width: int) -> str:
    """The text if it fits into so many cells, and else its beginning with an ellipsis."""
    if cell_len(text) <= width:
        return text
    if width <= 0:
        return ""
    used = end = 0
    for _, stop, cells in _graphemes(text):
        if used + cells > width - 1:
            break
        used += cells
        end = stop
    return text[:end].rstrip() + "…"


def fit(text: str, width: int) -> str:
    """The text cut or filled up with spaces to exactly so many cells."""
    text = truncate(text, width)
    return steady(text) + " " * max(0, width - cell_len(text))


def wrap(text: str, width: int) -> list[tuple[int, int]]:
    """Where the lines of a cleaned text begin and end when it is broken to a width of at least 2 cells.

    Lines break after spaces and around wide characters, where CJK typesetting allows it; what is too long is broken
    between graphemes. Spaces at a break are in no line.
    """
    lines: list[tuple[int, int]] = []
    start = 0
    for paragraph in text.split("\n"):
        lines.extend(
            (start + first, start + last) for first, last in _wrap_paragraph(paragraph, width)
        )
        start += len(paragraph) + 1
    return lines


def _wrap_paragraph(text: str, width: int) -> list[tuple[int, int]]:
    if cell_len(text) <= width:
        return [(0, len(text))]
    graphemes = _graphemes(text)
    lines: list[tuple[int, int]] = []
    first = used = index = 0
    while index < len(graphemes):
        cells = graphemes[index][2]
        if used + cells <= width or index == first:
            used += cells
            index += 1
            continue
        cut = _good_place(text, graphemes, first, index)
        begin = graphemes[first][0]
        lines.append((begin, _without_spaces(text, begin, cut, graphemes)))
        while cut < len(graphemes) and text[graphemes[cut][0] : graphemes[cut][1]].isspace():
            cut += 1
        first = index = cut
        used = 0
    if first < len(graphemes):
        lines.append((graphemes[first][0], len(text)))
    return lines


def _good_place(text: str, graphemes: list[tuple[int, int, int]], first: int, index: int) -> int:
    """Where to break a line that begins at the grapheme `first` and has no room for the one at `index`."""
    begin, end, _ = graphemes[index]
    if text[begin:end].isspace():
        return index
    for place in range(index, first, -1):
        if _may_break(text, graphemes[place - 1], graphemes[place]):
            return place
    return index


def _without_spaces(text: str, begin: int, cut: int, graphemes: list[tuple[int, int, int]]) -> int:
    """Where a line from `begin` up to the grapheme `cut` ends without the spaces at its end."""
    end = graphemes[cut - 1][1]
    stripped = len(text[begin:end].rstrip(" "))
    # Indentation alone is kept: it was meant.
    return begin + stripped if stripped else end


def _may_break(text: str, before: tuple[int, int, int], after: tuple[int, int, int]) -> bool:
    left, right = text[before[0] : before[1]], text[after[0] : after[1]]
    if left.isspace():
        return not right.isspace()
    if right.isspace():
        return False
    wide = (before[2] == 2 and not _HANGUL.match(left)) or (
        after[2] == 2 and not _HANGUL.match(right)
    )
    return (
        wide
        and unicodedata.category(left[0]) not in _OPENING
        and unicodedata.category(right[0]) not in _CLOSING
        and not _SMALL_KANA.match(right)
    )


def _graphemes(text: str) -> list[tuple[int, int, int]]:
    """The graphemes: where each begins and ends, and its cells. The two halves of a flag are one."""
    spans, _ = split_graphemes(text)
    if not _FLAG_HALF.search(text):
        return spans
    joined: list[tuple[int, int, int]] = []
    open_flag = False
    for begin, end, cells in spans:
        half = _FLAG_HALF.match(text[begin:end]) is not None
        if half and open_flag:
            joined[-1] = (joined[-1][0], end, joined[-1][2] + cells)
        else:
            joined.append((begin, end, cells))
        open_flag = half and not open_flag
    return joined
