"""The check of one conversation's history, entry by entry, against the script and what was acknowledged."""

from __future__ import annotations

from itertools import accumulate

from tidings.v1 import entry_pb2

from .board import Board
from .findings import Findings
from .ledger import read_entry
from .script import Conversation


class HistoryCheck:
    """Takes the entries of one conversation in ascending order, then in descending order.

    Afterwards `digests` and `facts` are those of the history by position, `ordinals` the count of messages up to each.
    """

    def __init__(
        self,
        conversation: Conversation,
        board: Board,
        findings: Findings,
        *,
        in_order: bool = False,
    ) -> None:
        self.conversation = conversation
        self.digests: list[int] = []
        self.facts: list[int] = []
        self.ordinals: list[int] = []
        self._board = board
        self._findings = findings
        self._in_order = in_order
        self._seen: dict[int, int] = {}
        self._last_of: dict[str, int] = {}
        self._last_time = (0, 0)
        self._messages = 0
        self._back = 0
        self._back_begun = False
        self._sums: dict[bool, list[int]] = {}

    @property
    def head(self) -> int:
        """The newest position."""
        return len(self.digests)

    def ascending(self, elements: list[bytes]) -> None:
        """The next entries, oldest first."""
        for element in elements:
            seen, entry = read_entry(element)
            expected = self.head + 1
            if seen.log != self.conversation.id:
                self._add("foreign", f"an entry of {seen.log}")
                continue
            if seen.seq < expected:
                kind = "doubled" if self.digests[seen.seq - 1] else "out of order"
                self._add(kind, f"{seen.seq} stands after {self.head}")
                if kind == "doubled":
                    continue
                self.digests[seen.seq - 1] = seen.digest
                self.facts[seen.seq - 1] = seen.facts
            else:
                missing = seen.seq - expected
                self.digests += [0] * missing + [seen.digest]
                self.facts += [0] * missing + [seen.facts]
                self.ordinals += [self._messages] * missing + [0]
            self._take(entry)
            self.ordinals[seen.seq - 1] = self._messages

    def _take(self, entry: entry_pb2.Entry) -> None:
        if entry.WhichOneof("body") == "message":
            self._messages += 1
            self._message(entry)
        if entry.ordinal != self._messages:
            self._add(
                "altered", f"{entry.seq} has the ordinal {entry.ordinal} after {self._messages}"
            )
        time = (entry.create_time.seconds, entry.create_time.nanos)
        if time < self._last_time:
            self._add("altered", f"the time of {entry.seq} goes back")
        self._last_time = time

    def _message(self, entry: entry_pb2.Entry) -> None:
        board, seq = self._board, entry.seq
        row = board.row(entry.id)
        if row is None or row.conversation is not self.conversation:
            self._add("foreign", f"{seq} is a message that was not sent here")
            return
        if row.index in self._seen:
            self._add("doubled", f"message {row.index} stands at {self._seen[row.index]} and {seq}")
            return
        self._seen[row.index] = seq
        if board.seqs[row.index] != seq:
            self._add(
                "moved",
                f"message {row.index} was acknowledged at {board.seqs[row.index]}, is at {seq}",
            )
        said = entry.message
        if said.text.encode() != row.text.encode():
            self._add("altered", f"the text at {seq} is not that of message {row.index}")
        if entry.user_id != row.sender:
            self._add("altered", f"{seq} is by {entry.user_id}, not by {row.sender}")
        if said.reply_to_message_id != board.reply_id(row):
            self._add("altered", f"{seq} answers {said.reply_to_message_id or 'nothing'}")
        if row.reply_to is not None and row.reply_to.index not in self._seen:
            self._add("out of order", f"{seq} stands before what it answers")
        # In a dialogue or a room kept in order there is one sequence, otherwise one for each sender.
        one = self._in_order or not self.conversation.room
        sender = "" if one else row.sender
        if self._last_of.get(sender, -1) > row.index:
            self._add(
                "out of order", f"message {row.index} of {row.sender} stands at {seq}, too late"
            )
        self._last_of[sender] = row.index

    def descending(self, elements: list[bytes]) -> None:
        """The next entries, newest first, once all came in ascending order."""
        if not self._back_begun:
            self._back, self._back_begun = self.head, True
        for element in elements:
            seen, _ = read_entry(element)
            if seen.seq != self._back:
                kind = "lost" if seen.seq < self._back else "doubled"
                self._add(kind, f"downwards {seen.seq} stands where {self._back} should")
            elif seen.digest != self.digests[seen.seq - 1]:
                self._add("altered", f"{seen.seq} differs downwards")
            self._back = min(self._back, seen.seq) - 1

    def finish(self) -> None:
        """All entries came, in both directions."""
        for seq, digest in enumerate(self.digests, 1):
            if not digest:
                self._add("lost", f"there is nothing at {seq}")
        for row in self.conversation.rows:
            if row.index not in self._seen:
                self._add(
                    "lost", f"message {row.index}, acknowledged at {self._board.seqs[row.index]}"
                )
        if self.head != self.conversation.entries:
            kind = "lost" if self.head < self.conversation.entries else "foreign"
            self._add(kind, f"{self.head} entries, not {self.conversation.entries}")
        if self._back != 0 or not self._back_begun:
            self._add("lost", f"downwards nothing comes from {self._back} on")

    def sums(self, *, by_facts: bool) -> list[int]:
        """The sums of the digests up to each position, beginning with 0 for none."""
        sums = self._sums.get(by_facts)
        if sums is None:
            sums = [0, *accumulate(self.facts if by_facts else self.digests)]
            self._sums[by_facts] = sums
        return sums

    def _add(self, kind: str, what: str) -> None:
        self._findings.add(kind, f"history of {self.conversation.name}: {what}")
