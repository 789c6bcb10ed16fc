"""What sessions need of the node that they belong to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..codec.requests import RequestReader
from ..core.clock import Clock
from ..core.limits import Limits
from ..core.principal import Principal
from ..messaging.handlers import Handlers
from ..messaging.message_states import MessageStates
from ..messaging.sequencer import Sequencer
from ..storage.base import Store
from ..storage.tail_cache import TailCache
from ..telemetry.counters import Counters
from ..telemetry.tracing import Tracer
from ..telemetry.trail import Trail
from .acks import AckBook
from .sync import Synchroniser

if TYPE_CHECKING:
    from .session import Session

Verify = Callable[[str], Awaitable[Principal]]


class Registry(Protocol):
    """Which sessions of a node get what is published: the hub, as its sessions see it."""

    @property
    def draining(self) -> bool:
        """Whether no new sessions are taken."""
        ...

    def open(self, session: Session) -> None:
        """A device has said hello. An older session of it ends."""
        ...

    def close(self, session: Session) -> None:
        """A session has ended. May be called twice."""
        ...

    async def join(self, logs: Iterable[str], session: Session) -> None:
        """A session is to get what is published to these logs from now on; returns when that is
        sure.
        """
        ...

    def leave(self, log: str, session: Session) -> None:
        """A session gets no more of a log."""
        ...

    def has_joined(self, log: str, session: Session) -> bool:
        """Whether a session gets what is published to a log."""
        ...


@dataclass(frozen=True, slots=True)
class SessionServices:
    """What sessions need of the node. One instance serves all of them."""

    store: Store
    pages: TailCache
    sequencer: Sequencer
    states: MessageStates
    handlers: Handlers
    hub: Registry
    sync: Synchroniser
    acks: AckBook
    reader: RequestReader
    clock: Clock
    limits: Limits
    counters: Counters
    tracer: Tracer
    trail: Trail
    verify: Verify
    catch_up_slots: asyncio.Semaphore
    token_warning_ms: int = 60_000
