"""A client of the model server, and what tests do with its events."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from tidings import (
    Client,
    ConnectionState,
    Event,
    Message,
)

from .network import Network

_EventT = TypeVar("_EventT", bound=Event)


def client_of(network: Network, user: str = "alice", **options: Any) -> Client:
    """A client of the model server, with simulated clock and seeded randomness."""
    options.setdefault("token_provider", lambda: f"{user}/phone")
    options.setdefault("rng", random.Random(7))
    options.setdefault("wall_clock", lambda: 1_700_000_000_000 + now_ms())
    return Client("model", transport=network.transport, **options)


def now_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)


async def next_of(client: Client, kind: type[_EventT], count: int = 1) -> list[_EventT]:
    """The next events of a kind; others are passed over."""
    found: list[_EventT] = []
    async with asyncio.timeout(1000):
        async for event in client.events():
            if isinstance(event, kind):
                found.append(event)
                if len(found) == count:
                    break
    return found


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, in simulated time."""
    async with asyncio.timeout(1000):
        while not condition():  # noqa: ASYNC110 - what changes is in another's hands
            await asyncio.sleep(0.01)


@asynccontextmanager
async def collecting(client: Client) -> AsyncIterator[list[Event]]:
    """All events, taken as they come."""
    seen: list[Event] = []

    async def collect() -> None:
        async for event in client.events():
            seen.append(event)  # noqa: PERF401 - each is to be seen as it comes

    task = asyncio.create_task(collect())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def statuses(events: list[Event]) -> list[str]:
    return [event.status.value for event in events if isinstance(event, ConnectionState)]


def texts(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Message)]
