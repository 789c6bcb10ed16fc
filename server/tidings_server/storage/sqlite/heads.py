"""What the writer remembers of logs, so that the condition of an append is checked without asking the database."""

from __future__ import annotations

KnownLog = tuple[int, int]
"""The number of a log in the database, and its newest position."""


class HeadCache:
    """The logs used last: at least `size` of them, at most twice as many.

    Two generations instead of an exact order: a log that is used moves to the young one; when that is full, it becomes
    the old one, and what was old is forgotten.
    """

    __slots__ = ("_old", "_size", "_young")

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: dict[str, KnownLog] = {}
        self._old: dict[str, KnownLog] = {}

    def get(self, name: str) -> KnownLog | None:
        """What is known of a log."""
        found = self._young.get(name)
        if found is None:
            found = self._old.get(name)
            if found is not None:
                self.set(name, found)
        return found

    def set(self, name: str, known: KnownLog) -> None:
        """Notes what is known of a log."""
        if len(self._young) >= self._size and name not in self._young:
            self._old, self._young = self._young, {}
        self._young[name] = known

    def clear(self) -> None:
        """Forgets everything."""
        self._young.clear()
        self._old.clear()
