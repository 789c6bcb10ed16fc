"""The bus within one process: a publication is handed on at once."""

from __future__ import annotations

from collections.abc import Iterable

from .base import Bus, Publication


class LocalBus(Bus):
    """Loses nothing and keeps the order."""

    def __init__(self) -> None:
        self._logs: set[str] = set()

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing to let go of."""

    def publish(self, publication: Publication) -> None:
        """See `Bus`."""
        if publication.log in self._logs:
            self.on_publication(publication)

    def mark(self) -> int:
        """See `Bus`."""
        return 0

    def taken(self, mark: int) -> bool:
        """See `Bus`."""
        return mark <= self.mark()

    async def subscribe(self, logs: Iterable[str]) -> None:
        """See `Bus`."""
        self._logs.update(logs)

    def unsubscribe(self, logs: Iterable[str]) -> None:
        """See `Bus`."""
        self._logs.difference_update(logs)
