"""The ledger: what the first device got at each position, so that every other one is compared with it as it comes.

Whether the first one got the right thing is for the history to tell, once everything was played.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from tidings.v1 import entry_pb2, event_pb2

from .findings import Findings
from .wire import cut, is_entry

_PIECES_KEPT = 20_000
_FRAMES_KEPT = 512


@dataclass(frozen=True, slots=True)
class Seen:
    """An entry: its log and position, a digest of its bytes, and one of what it says."""

    log: str
    seq: int
    digest: int
    facts: int


@dataclass(frozen=True, slots=True)
class Run:
    """Entries of one log that follow each other. `total` is the sum of their digests."""

    log: str
    first: int
    last: int
    total: int


Item = Run | event_pb2.Event
"""What a frame holds: runs of entries, and other events."""


def facts_of(user: str, entry_id: str, ordinal: int, kind: str, text: str, reply_to: str) -> int:
    """A digest of what an entry says. It is the same within a process only."""
    return hash((user, entry_id, ordinal, kind, text, reply_to)) & 0xFFFF_FFFF_FFFF_FFFF


def read_entry(element: bytes) -> tuple[Seen, entry_pb2.Entry]:
    """Reads an event that is an entry."""
    entry = event_pb2.Event.FromString(element).entry
    kind = entry.WhichOneof("body") or ""
    message = entry.message
    seen = Seen(
        entry.conversation_id,
        entry.seq,
        int.from_bytes(hashlib.blake2b(element, digest_size=8).digest(), "big"),
        facts_of(
            entry.user_id,
            entry.id,
            entry.ordinal,
            kind,
            message.text,
            message.reply_to_message_id,
        ),
    )
    return seen, entry


class Positions:
    """The digests of a log by position; 0 where nothing was seen."""

    __slots__ = ("digests", "facts")

    def __init__(self) -> None:
        self.digests: list[int] = []
        self.facts: list[int] = []

    @property
    def head(self) -> int:
        """The newest position that was seen."""
        return len(self.digests)

    def reach(self, seq: int) -> None:
        """Makes room for a position."""
        missing = seq - len(self.digests)
        if missing > 0:
            self.digests.extend([0] * missing)
            self.facts.extend([0] * missing)


class Ledger:
    """What devices got. Every difference is a finding."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._logs: dict[str, Positions] = {}
        self._pieces: dict[bytes, Seen] = {}
        self._frames: dict[bytes, tuple[Item, ...]] = {}

    def log(self, name: str) -> Positions:
        """The positions of a log."""
        positions = self._logs.get(name)
        if positions is None:
            positions = self._logs[name] = Positions()
        return positions

    def read(self, frame: bytes) -> tuple[Item, ...]:
        """What a frame of the Chat stream holds, in order. Raises ValueError when it can't be read.

        Members of a group get frames with the same bytes: those are read once.
        """
        items = self._frames.get(frame)
        if items is None:
            elements, _ = cut(frame)
            items = self.items(elements)
            if all(isinstance(item, Run) for item in items):
                if len(self._frames) >= _FRAMES_KEPT:
                    self._frames.clear()
                self._frames[frame] = items
        return items

    def items(self, elements: list[bytes]) -> tuple[Item, ...]:
        """What events hold, in order."""
        items: list[Item] = []
        log, first, last, total = "", 0, 0, 0
        for element in elements:
            seen = self._pieces.get(element)
            if seen is None:
                if not is_entry(element):
                    if log:
                        items.append(Run(log, first, last, total))
                        log = ""
                    items.append(event_pb2.Event.FromString(element))
                    continue
                seen = self._first_look(element)
            if seen.log == log and seen.seq == last + 1:
                last += 1
                total += seen.digest
                continue
            if log:
                items.append(Run(log, first, last, total))
            log, first, last, total = seen.log, seen.seq, seen.seq, seen.digest
        if log:
            items.append(Run(log, first, last, total))
        return tuple(items)

    def facts(self, log: str, seq: int, facts: int) -> None:
        """A device that sees no bytes was told this of a position."""
        positions = self.log(log)
        positions.reach(seq)
        known = positions.facts[seq - 1]
        if not known:
            positions.facts[seq - 1] = facts
        elif known != facts:
            self._findings.add("altered", f"{log} at {seq}: two devices were told different things")

    def _first_look(self, element: bytes) -> Seen:
        seen, _ = read_entry(element)
        positions = self.log(seen.log)
        positions.reach(seen.seq)
        known = positions.digests[seen.seq - 1]
        if known and known != seen.digest:
            self._findings.add(
                "altered", f"{seen.log} at {seen.seq}: two devices got different bytes"
            )
        elif not known:
            positions.digests[seen.seq - 1] = seen.digest
        self.facts(seen.log, seen.seq, seen.facts)
        if len(self._pieces) >= _PIECES_KEPT:
            self._pieces.clear()
        self._pieces[element] = seen
        return seen
