"""Looking again at the heads of what a session follows, when the bus may have lost something."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from ..storage.base import StoreUnavailable
from .position import Position
from .services import SessionServices

log = structlog.get_logger(__name__)

_RETRY_S = 0.5


class Recheck:
    """Looks at the heads of one session's logs, and calls `moved` for each that goes further than was known.

    `times` counts how often it was asked for: whoever reads a head meanwhile reads it again.
    """

    __slots__ = ("_looking", "_moved", "_positions", "_services", "_session_id", "_spawn", "times")

    def __init__(
        self,
        services: SessionServices,
        session_id: str,
        positions: Mapping[str, Position],
        moved: Callable[[Position], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._services = services
        self._session_id = session_id
        self._positions = positions
        self._moved = moved
        self._spawn = spawn
        self._looking = False
        self.times = 0

    def soon(self) -> None:
        """Looks soon. While the bus comes and goes and the store is away, one look waits for all."""
        if not self._looking:
            self._looking = True
            self._spawn(self._look())

    async def _look(self) -> None:
        try:
            seen = -1
            while seen != self.times:
                seen = self.times
                await self._look_once()
        finally:
            self._looking = False

    async def _look_once(self) -> None:
        heads = None
        while heads is None:
            try:
                # All sessions look at once when the bus was renewed.
                async with self._services.catch_up_slots:
                    heads = await self._services.store.heads(list(self._positions))
            except StoreUnavailable as problem:
                log.warning("recheck_waits", cause=str(problem), session=self._session_id)
                await asyncio.sleep(_RETRY_S)
        for name, head in heads.items():
            position = self._positions.get(name)
            if position is not None and head.last_seq > position.head:
                position.head = head.last_seq
                self._moved(position)
