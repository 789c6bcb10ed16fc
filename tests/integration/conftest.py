"""Real servers: one in this process, or one in a process of its own, each on a database and a port of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
import uvloop

from tests.integration.processes import ServerProcess
from tests.integration.wire import SECRET, Caller, Device
from tidings_server.app import Running, serving
from tidings_server.config import Settings


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


class Closable(Protocol):
    async def close(self) -> None: ...


Closing = TypeVar("Closing", bound=Closable)


class Served:
    """A server in this process, with clients that are closed with it."""

    def __init__(self, running: Running, stack: AsyncExitStack) -> None:
        self.running = running
        self.node = running.node
        self.address = f"127.0.0.1:{running.port}"
        self._stack = stack

    def caller(self, user: str) -> Caller:
        caller = Caller(self.address, user)
        self._stack.push_async_callback(caller.close)
        return caller

    def connect(self, user: str, device: str = "phone", *, bearer: str = "") -> Device:
        """A device that has not said hello."""
        made = Device(self.address, user, device, bearer=bearer)
        self._stack.push_async_callback(made.close)
        return made

    def keep(self, client: Closing) -> Closing:
        """A client that is closed with the server."""
        self._stack.push_async_callback(client.close)
        return client

    async def device(self, user: str, device: str = "phone", **hello: Any) -> Device:
        """A device that is level."""
        return await self.connect(user, device).open(**hello)


Serve = Callable[..., Awaitable[Served]]


def settings(folder: Path, **groups: Mapping[str, Any]) -> Settings:
    made: dict[str, Any] = {
        "grpc": {"listen": "127.0.0.1:0"},
        "bridge": {"listen": "127.0.0.1:0"},
        "metrics": {"enabled": False},
        "store": {"path": folder / "tidings.db"},
        "auth": {"hs256_secret": SECRET},
        "drain": {"delay_spread_s": 0, "grace_s": 1},
    }
    for name, group in groups.items():
        made[name] = {**made.get(name, {}), **group}
    return Settings(**made)


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts servers, given settings by their groups."""
    async with AsyncExitStack() as servers:

        async def start(**groups: Mapping[str, Any]) -> Served:
            running = await servers.enter_async_context(serving(settings(tmp_path, **groups)))
            clients = await servers.enter_async_context(AsyncExitStack())
            return Served(running, clients)

        yield start


@pytest.fixture
async def server(serve: Serve) -> Served:
    """A server with the default settings."""
    return await serve()


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server in a process of its own, that is not started yet."""
    made = ServerProcess(tmp_path)
    yield made
    await made.close()
