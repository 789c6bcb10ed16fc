"""The queue of one log: what waits for its next commit, its state when loaded, and what it is busy with."""

from __future__ import annotations

import asyncio
from collections import deque

from .log_state import LogState
from .proposals import Proposal


class LogQueue:
    """One log of a sequencer, whose own it is. While it is `busy` its state moves; while `blocked` nothing is taken.
    `effects` writes those of its newest change, and `folding` those of the newest change of a message.
    """

    __slots__ = ("blocked", "busy", "effects", "folding", "name", "queue", "state", "waiters")

    def __init__(self, name: str) -> None:
        self.name = name
        self.queue: deque[Proposal] = deque()
        self.state: LogState | None = None
        self.busy = False
        self.blocked = False
        self.effects: asyncio.Task[None] | None = None
        self.folding: asyncio.Task[None] | None = None
        self.waiters: list[asyncio.Future[None]] = []
