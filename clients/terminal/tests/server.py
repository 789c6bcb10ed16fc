"""A real server in this process that can be stopped and started again, and people with sessions on it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from tidings import Client, ClientConfig, MemoryStateStore, StateStore
from tidings_chat.session import ChatSession
from tidings_server.bus.local import LocalBus
from tidings_server.core.clock import SystemClock
from tidings_server.core.ids import uuid7
from tidings_server.core.principal import Principal
from tidings_server.node import Node
from tidings_server.rpc.server import RpcServer
from tidings_server.storage.sqlite import SqliteOptions, SqliteStore

_T = TypeVar("_T")
CONFIG = ClientConfig(auto_apply=False, backoff_base=0.05, backoff_cap=0.2)
_HOUR_MS = 3_600_000


class Server:
    """A server over one SQLite file. A token is "user/device"."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "server.db"
        self._clock = SystemClock()
        self._rng = random.Random(5)
        self._running: tuple[SqliteStore, Node, RpcServer] | None = None
        self.port = 0

    @property
    def target(self) -> str:
        """Where it is."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Serve, on the port that it had before."""
        store = SqliteStore(
            SqliteOptions(path=self._path), new_id=lambda: uuid7(self._clock.now_ms(), self._rng)
        )
        await store.open()
        node = Node(store, LocalBus(), self._clock, self._rng, self._verify)
        rpc = RpcServer(node, f"127.0.0.1:{self.port}")
        self.port = rpc.port
        await node.start()
        await rpc.start()
        self._running = store, node, rpc

    async def stop(self) -> None:
        """Stop serving; nothing is announced."""
        if self._running is not None:
            (store, node, rpc), self._running = self._running, None
            await rpc.stop(0.0)
            await node.stop()
            await store.close()

    async def _verify(self, token: str) -> Principal:
        user, _, device = token.partition("/")
        return Principal(user, device, self._clock.now_ms() + _HOUR_MS)

    def client(
        self,
        user: str,
        state: StateStore | Path | None = None,
        device: str = "d1",
        config: ClientConfig = CONFIG,
    ) -> Client:
        """A client of a user, not open yet."""
        return Client(
            self.target,
            token_provider=lambda: f"{user}/{device}",
            state=state,
            config=config,
        )

    def session(
        self, user: str, state: StateStore | Path | None = None, config: ClientConfig = CONFIG
    ) -> ChatSession:
        """A session of a user, not open yet."""
        kept = state or MemoryStateStore()
        return ChatSession(lambda: self.client(user, kept, config=config))


async def until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Wait until something holds."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s: {what}") from None


async def until_async(
    ask: Callable[[], Awaitable[_T]], condition: Callable[[_T], bool], what: str
) -> None:
    """Ask until the answer is right."""
    answer: _T | None = None
    try:
        async with asyncio.timeout(30.0):
            while not condition(answer := await ask()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within 30 s: {what}, but {answer}") from None
