"""Findings: what a verification found wrong, counted by kind, with the first examples of each."""

from __future__ import annotations

from collections import Counter
from typing import Final

_EXAMPLES: Final = 5

KINDS: Final = {
    "lost": "a position or message that never came",
    "doubled": "a position or message that came twice",
    "out of order": "a position or message that came before one which precedes it",
    "altered": "content that differs from what was sent, or from what others got",
    "foreign": "an entry that nobody made, or that is of another conversation",
    "moved": "a position that differs from the acknowledged one",
    "refused": "a message or command that was refused for good",
    "not level": "a device that did not reach the head",
    "gap": "a gap or skip announced where there is none",
    "members": "a wrong list of members or conversations",
    "unread": "a wrong unread count or read mark",
    "beacon": "a beacon whose digest differs from what came before it",
    "fault": "a fault of the server or the replay itself",
}


class Findings:
    """Collects what is wrong."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def add(self, kind: str, what: str) -> None:
        """One thing is wrong. The kind is one of KINDS."""
        assert kind in KINDS, kind
        self.counts[kind] += 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(what)

    def __bool__(self) -> bool:
        return bool(self.counts)
