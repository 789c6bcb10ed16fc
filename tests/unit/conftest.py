"""Which event loop a unit test runs on, and the node that many of them try."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from tests.unit.virtual_loop import VirtualLoop
from tests.unit.world import Sent, World


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "virtual_time: runs on an event loop on which hours pass at once"
    )


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("virtual_time") is not None:
        return {"virtual": VirtualLoop}
    return {"default": asyncio.new_event_loop}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World().start()
    yield world
    await world.stop()


@pytest.fixture
async def log(world: World) -> str:
    """A group of alice and bob, its creation being entry 1."""
    return await world.group("alice", "bob")


@pytest.fixture
def sent(world: World) -> Sent:
    return Sent(world.node.sequencer, world)
