"""The messages of one conversation that are held: one unbroken stretch up to the newest, and what is on its way out."""

from __future__ import annotations

import bisect
import enum
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from tidings import (
    Entry,
    FoldedMessage,
    Message,
    MessageChange,
    MessageFold,
    MessageState,
    TidingsError,
)


class Loading(enum.Enum):
    """How much of a timeline is there."""

    NOTHING = enum.auto()
    """Nothing; entries aren't kept."""
    NEWEST = enum.auto()
    """The newest page is being fetched; entries that come meanwhile are kept."""
    LOADED = enum.auto()


@dataclass(slots=True)
class Outgoing:
    """An own message that doesn't stand in the conversation yet.

    Attributes:
        message_id: The id under which it will stand there.
        text: The text.
        reply_to: The id of the message that it replies to, or None.
        time: When it was queued, in UTC.
        seq: Its position, once it was sent; its entry is still to come.
        error: Why it was refused for good, or None.
    """

    message_id: str
    text: str
    reply_to: str | None
    time: datetime
    seq: int = 0
    error: TidingsError | None = None


@dataclass(slots=True)
class Timeline:
    """The held stretch of a conversation's log, and the own messages that aren't in it yet.

    Attributes:
        entries: What is held, by position; messages as they are now, without the entries that changed them.
        outgoing: Own messages on their way, by id, in the order of sending.
        quotes: Messages that are quoted and not held, by id; None for those that can't be had.
        loading: How much is there.
        low: The position below which older entries are to be fetched.
        at_top: Whether there is nothing older.
        generation: Grows when what was held is dropped: what was asked for before that doesn't belong here any more.
        version: Grows with every change.
        problem: Why the newest page couldn't be fetched, or None.
    """

    entries: list[Entry] = field(default_factory=list)
    outgoing: dict[str, Outgoing] = field(default_factory=dict)
    quotes: dict[str, Message | None] = field(default_factory=dict)
    loading: Loading = Loading.NOTHING
    low: int = 0
    at_top: bool = False
    generation: int = 0
    version: int = 0
    problem: TidingsError | None = None
    _ids: dict[str, Message] = field(default_factory=dict)
    _fold: MessageFold = field(default_factory=MessageFold)

    def find(self, message_id: str) -> Message | None:
        """A held or quoted message."""
        return self._ids.get(message_id) or self.quotes.get(message_id)

    def missing_quotes(self) -> list[str]:
        """The ids of messages that are replied to and of which nothing is known yet."""
        wanted = dict.fromkeys(
            entry.reply_to
            for entry in self.entries
            if isinstance(entry, Message) and entry.reply_to is not None
        )
        wanted.update(dict.fromkeys(own.reply_to for own in self.outgoing.values() if own.reply_to))
        return [
            message_id
            for message_id in wanted
            if message_id not in self._ids
            and message_id not in self.quotes
            and message_id not in self.outgoing
        ]

    def quote(self, message_id: str, message: Message | None) -> None:
        """Take a message that is replied to; None when it can't be had."""
        self.quotes[message_id] = None
        if message is not None:
            fold = MessageFold()
            fold.take(message)
            held = fold.get(message.seq)
            self.quotes[message_id] = as_it_is(held) if held is not None else None
        self.version += 1

    # Entries

    def begin(self) -> int:
        """The newest page is about to be fetched; returns the generation to hand in with it."""
        if self.loading is Loading.NOTHING:
            self.loading = Loading.NEWEST
            self.low = 0
            self.at_top = False
        self.problem = None
        self.version += 1
        return self.generation

    def load(self, generation: int, page: Iterable[Entry], *, at_top: bool) -> bool:
        """Take the newest page, or the one before what is held; returns whether it was still wanted."""
        if generation != self.generation:
            return False
        page = list(page)
        self._insert(page)
        if page:
            lowest = min(entry.seq for entry in page)
            self.low = lowest if self.low == 0 else min(self.low, lowest)
        self.at_top = self.at_top or at_top
        self.loading = Loading.LOADED
        self.version += 1
        return True

    def fail(self, generation: int, error: TidingsError) -> None:
        """The newest page couldn't be fetched."""
        if generation == self.generation and self.loading is Loading.NEWEST:
            self.drop()
            self.problem = error

    def add(self, entry: Entry) -> None:
        """Take an entry from the stream."""
        self.settle(entry)
        if isinstance(entry, MessageChange):
            self._forget_quote(entry.message_seq)
        if self.loading is not Loading.NOTHING:
            self._insert([entry])
        self.version += 1

    def become(self, state: MessageState) -> None:
        """Take what became of a message."""
        self._forget_quote(state.seq)
        self._show(self._fold.take(state))

    def _forget_quote(self, seq: int) -> None:
        """Something became of a message that may be quoted: what is shown of it is fetched anew."""
        self.quotes = {
            message_id: message
            for message_id, message in self.quotes.items()
            if message is None or message.seq != seq
        }

    def settle(self, entry: Entry) -> None:
        """An own message stands in the conversation: it isn't on its way any more."""
        if isinstance(entry, Message) and entry.own:
            self.outgoing.pop(entry.message_id, None)

    def gap(self, to_seq: int) -> None:
        """What comes up to a position isn't sent: what is held before it is no part of the stretch any more."""
        self.quotes = {}
        if self.loading is Loading.NOTHING:
            return
        kept = [entry for entry in self.entries if entry.seq > to_seq]
        self.entries = kept
        self._ids = {entry.message_id: entry for entry in kept if isinstance(entry, Message)}
        self.low = to_seq + 1
        self.at_top = False
        self.generation += 1
        if self.loading is Loading.NEWEST:
            # The page that was asked for isn't taken any more; this stretch grows from here by itself.
            self.loading = Loading.LOADED
        self.version += 1

    def drop(self) -> None:
        """Hold nothing any more, apart from what is on its way out."""
        self.entries = []
        self.quotes = {}
        self._ids = {}
        self._fold = MessageFold()
        self.loading = Loading.NOTHING
        self.low = 0
        self.at_top = False
        self.generation += 1
        self.version += 1

    def trim(self, keep: int) -> bool:
        """Hold only so many of the newest entries; returns whether that changed anything."""
        if self.loading is not Loading.LOADED or len(self.entries) <= keep:
            return False
        for entry in self.entries[:-keep]:
            if isinstance(entry, Message):
                self._ids.pop(entry.message_id, None)
                self._fold.forget(entry.seq)
        self.entries = self.entries[-keep:]
        self.low = self.entries[0].seq
        self.at_top = False
        self.generation += 1
        self.version += 1
        return True

    def _insert(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self.settle(entry)
            changed = self._fold.take(entry)
            if isinstance(entry, MessageChange):
                self._show(changed)
                continue
            index = bisect.bisect_left(self.entries, entry.seq, key=_seq_of)
            if index < len(self.entries) and self.entries[index].seq == entry.seq:
                self._show(changed)
                continue
            self.entries.insert(index, entry)
            self._show(entry.seq)

    def _show(self, seq: int | None) -> None:
        """Puts the message at a position into what is held, as it is now."""
        held = self._fold.get(seq) if seq is not None else None
        if held is None:
            return
        index = bisect.bisect_left(self.entries, held.message.seq, key=_seq_of)
        if index == len(self.entries) or self.entries[index].seq != held.message.seq:
            return
        shown = as_it_is(held)
        self.entries[index] = shown
        self._ids[shown.message_id] = shown
        self.version += 1

    # Own messages on their way

    def queue(self, outgoing: Outgoing, *, replaces: str | None = None) -> None:
        """An own message is in the outbox, perhaps under another id than before."""
        self.version += 1
        if replaces is not None and replaces in self.outgoing:
            self.outgoing = {
                outgoing.message_id if key == replaces else key: outgoing
                if key == replaces
                else own
                for key, own in self.outgoing.items()
            }
        elif outgoing.message_id not in self._ids:
            self.outgoing[outgoing.message_id] = outgoing

    def sent(self, message_id: str, seq: int, time: datetime) -> None:
        """An own message has its position; its entry comes, or is here already."""
        own = self.outgoing.get(message_id)
        if own is None:
            return
        self.version += 1
        if self.loading is Loading.NOTHING or seq < self.low or self._holds(seq):
            # It is in a page that may be fetched, or is held.
            del self.outgoing[message_id]
        else:
            own.seq = seq
            own.time = time

    def failed(self, message_id: str, error: TidingsError) -> None:
        """An own message was refused for good."""
        own = self.outgoing.get(message_id)
        if own is not None:
            own.error = error
            self.version += 1

    def forget(self, message_id: str) -> Outgoing | None:
        """Take an own message off the list of those on their way."""
        self.version += 1
        return self.outgoing.pop(message_id, None)

    def _holds(self, seq: int) -> bool:
        index = bisect.bisect_left(self.entries, seq, key=_seq_of)
        return index < len(self.entries) and self.entries[index].seq == seq


def as_it_is(held: FoldedMessage) -> Message:
    """A message with what it says now."""
    return replace(held.message, text=held.text, reply_to=held.reply_to, state=held.state)


def _seq_of(entry: Entry) -> int:
    return entry.seq
