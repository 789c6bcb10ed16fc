"""Overlays: what later entries made of a message, as a fold over them."""

from __future__ import annotations

from dataclasses import replace

from .entries import Entry, MessageDeleted, MessageEdited, MessagePinned, ReactionSet
from .records import record

MAX_REACTIONS = 100
"""How many different reactions a message can have."""
MAX_EDITS = 100
"""How often a message can be edited: the history of edits is short, and erased whole with the message."""


@record(frozen=True, slots=True)
class Overlay:
    """What became of the message at `seq` by the entries up to `as_of`.

    `content` is a serialised `MessageContent`, empty while that of the message's own entry holds. `edits` are the
    positions of the entries that edited it, ascending, and `edit_ms` is the time of the newest, 0 for none. When it is
    `deleted`, its content and that of its edits is erased. `reactions` are how many users have reacted with what, the
    largest counts first. `pin_seq` is the position of the entry that pinned it, 0 while it is not pinned.
    """

    seq: int
    as_of: int
    content: bytes = b""
    edits: tuple[int, ...] = ()
    edit_ms: int = 0
    deleted: bool = False
    reactions: tuple[tuple[str, int], ...] = ()
    pin_seq: int = 0


def fold_overlay(before: Overlay | None, seq: int, entry: Entry) -> Overlay:
    """The overlay of the message at `seq` after an entry about it. Folding an entry again, or an older one, changes
    nothing.
    """
    state = before or Overlay(seq, 0)
    if state.as_of >= entry.seq:
        return state
    match entry.body:
        case MessageEdited(content=content):
            return replace(
                state,
                as_of=entry.seq,
                content=content,
                edits=(*state.edits, entry.seq),
                edit_ms=entry.time_ms,
            )
        case MessageDeleted():
            return replace(
                state, as_of=entry.seq, content=b"", deleted=True, reactions=(), pin_seq=0
            )
        case MessagePinned(pinned=pinned):
            return replace(state, as_of=entry.seq, pin_seq=entry.seq if pinned else 0)
        case ReactionSet(reaction=new, replaced=old):
            counts = _counted(state.reactions, old, new)
            return replace(state, as_of=entry.seq, reactions=counts)
    raise TypeError(f"{type(entry.body).__name__} is about no message")


def _counted(
    counts: tuple[tuple[str, int], ...], old: str, new: str
) -> tuple[tuple[str, int], ...]:
    """Counts after a user has changed a reaction; either may be empty."""
    now = dict(counts)
    if old in now:
        now[old] -= 1
    if new:
        now[new] = now.get(new, 0) + 1
    there = [(reaction, count) for reaction, count in now.items() if count > 0]
    return tuple(sorted(there, key=lambda item: (-item[1], item[0])))
