"""The messages of a conversation as they are now: entries and states, folded in whatever order they come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from .events import (
    Event,
    Gap,
    Message,
    MessageChange,
    MessageEdited,
    MessagePinned,
    MessageState,
    ReactionSet,
)
from .mentions import Mention

__all__ = ["FoldedMessage", "MessageFold"]

_MAX_WAITING: Final = 10_000


@dataclass(frozen=True, slots=True)
class FoldedMessage:
    """A message and what became of it.

    Attributes:
        message: Its entry.
        state: What became of it, up to `state.as_of`.
    """

    message: Message
    state: MessageState

    @property
    def text(self) -> str:
        """What it says now; nothing when it is deleted."""
        return self.message.text if self.state.text is None else self.state.text

    @property
    def reply_to(self) -> str | None:
        """The id of the message that it replies to now, or None."""
        return self.message.reply_to if self.state.text is None else self.state.reply_to

    @property
    def mentions(self) -> tuple[Mention, ...]:
        """Who is mentioned now, in the order of the text."""
        return self.message.mentions if self.state.text is None else self.state.mentions

    @property
    def deleted(self) -> bool:
        """Whether it was deleted for all."""
        return self.message.erased or self.state.deleted

    @property
    def edited(self) -> bool:
        """Whether it was edited."""
        return bool(self.state.edit_seqs)

    @property
    def pinned(self) -> bool:
        """Whether it is pinned."""
        return self.state.pin_seq > 0


class MessageFold:
    """What is held of the messages of one conversation.

    It takes the events of the stream and what is fetched from history, in any mixture: a change that is in a fetched
    state already is passed over, and one that comes before its message waits for it. What lies in a gap has to be
    fetched.
    """

    def __init__(self) -> None:
        self._messages: dict[int, FoldedMessage] = {}
        # Changes of messages that aren't held, in their order.
        self._waiting: dict[int, list[MessageChange]] = {}
        self._waiting_count = 0

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[FoldedMessage]:
        """The messages, by position."""
        return (self._messages[seq] for seq in sorted(self._messages))

    def get(self, seq: int) -> FoldedMessage | None:
        """The message at a position, or None when it isn't held."""
        return self._messages.get(seq)

    def take(self, event: Event) -> int | None:
        """Take an event of the conversation; returns the position of the message that looks otherwise now, or None."""
        if isinstance(event, Message):
            return self._take_message(event)
        if isinstance(event, MessageState):
            return self._take_state(event)
        if isinstance(event, MessageChange):
            return self._take_change(event)
        if isinstance(event, Gap):
            # What is held of it was never known to be applied: what became of it may be in the gap as well.
            first = event.stale_from_seq or event.from_seq
            for seq in [seq for seq in self._messages if first <= seq <= event.to_seq]:
                self.forget(seq)
        return None

    def forget(self, seq: int) -> None:
        """Hold the message at a position no more."""
        self._messages.pop(seq, None)

    def drop(self, seq: int) -> None:
        """Nothing holds that was made beyond a position: drop it. See IncarnationChanged and PositionLost.

        Messages before the position that were changed beyond it are dropped too, and have to be fetched again.
        """
        self._messages = {
            at: held for at, held in self._messages.items() if at <= seq and held.state.as_of <= seq
        }
        self._waiting.clear()
        self._waiting_count = 0

    def _take_message(self, message: Message) -> int | None:
        held = self._messages.get(message.seq)
        state = message.state or MessageState(
            conversation_id=message.conversation_id, seq=message.seq, as_of=message.seq
        )
        if held is not None and held.state.as_of >= state.as_of:
            return None
        folded = _without_erased(FoldedMessage(replace(message, state=None), state))
        waiting = self._waiting.pop(message.seq, [])
        self._waiting_count -= len(waiting)
        for change in waiting:
            folded = _folded(folded, change)
        self._messages[message.seq] = folded
        return message.seq

    def _take_state(self, state: MessageState) -> int | None:
        held = self._messages.get(state.seq)
        if held is None or held.state.as_of >= state.as_of:
            return None
        self._messages[state.seq] = _without_erased(FoldedMessage(held.message, state))
        return state.seq

    def _take_change(self, change: MessageChange) -> int | None:
        held = self._messages.get(change.message_seq)
        if held is None:
            if self._waiting_count >= _MAX_WAITING:
                # Whoever fetches them later gets newer states than these changes.
                self._waiting.clear()
                self._waiting_count = 0
            self._waiting.setdefault(change.message_seq, []).append(change)
            self._waiting_count += 1
            return None
        folded = _folded(held, change)
        if folded is held:
            return None
        self._messages[change.message_seq] = folded
        return change.message_seq


def _folded(held: FoldedMessage, change: MessageChange) -> FoldedMessage:
    """A message after a change; the same one when the change is in it already."""
    state = held.state
    if change.seq <= state.as_of:
        return held
    if isinstance(change, MessageEdited):
        state = replace(
            state,
            as_of=change.seq,
            text=change.text,
            reply_to=change.reply_to,
            mentions=change.mentions,
            edit_seqs=(*state.edit_seqs, change.seq),
            edit_time=change.time,
        )
    elif isinstance(change, ReactionSet):
        state = replace(
            state,
            as_of=change.seq,
            reactions=_counted(state.reactions, change.replaced, change.reaction),
            own_reaction=change.reaction if change.own else state.own_reaction,
        )
    elif isinstance(change, MessagePinned):
        state = replace(state, as_of=change.seq, pin_seq=change.seq if change.pinned else 0)
    else:
        state = replace(
            state,
            as_of=change.seq,
            text=None,
            reply_to=None,
            mentions=(),
            deleted=True,
            reactions=(),
            own_reaction="",
            pin_seq=0,
        )
    return _without_erased(FoldedMessage(held.message, state))


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


def _without_erased(held: FoldedMessage) -> FoldedMessage:
    """A message, without its content when it is deleted."""
    if not held.state.deleted:
        return held
    bare = replace(held.message, text="", reply_to=None, mentions=(), erased=True)
    return FoldedMessage(bare, held.state)
