"""The proxy that faults are made with, between a real client and a real server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from tools.stack.proxy import Link, Proxy

DEADLINE_S = 20.0


@dataclass
class Echo:
    """A server that gives back what it gets, and remembers it."""

    got: bytearray = field(default_factory=bytearray)
    server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self.server is not None
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1000):
                self.got += data
                writer.write(data)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def has(self, wanted: bytes) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while bytes(self.got) != wanted:  # noqa: ASYNC110  # the kernel's doing
                await asyncio.sleep(0.001)


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    made = Echo()
    made.server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    yield made
    made.server.close()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    made = Proxy(echo.port)
    await made.start()
    yield made
    await made.stop()


class Client:
    """A connection that says something and hears the answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def say(self, what: bytes) -> None:
        self._writer.write(what)

    async def hears(self, what: bytes) -> None:
        async with asyncio.timeout(DEADLINE_S):
            assert await self._reader.readexactly(len(what)) == what

    async def is_reset(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(ConnectionResetError):
                await self._reader.readexactly(1)

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


Connect = Callable[[Proxy], Awaitable[Client]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    made: list[Client] = []

    async def one(proxy: Proxy) -> Client:
        made.append(Client(*await asyncio.open_connection("127.0.0.1", proxy.port)))
        return made[-1]

    yield one
    for client in made:
        await client.close()


async def until_lost(proxy: Proxy, count: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while proxy.lost < count:  # noqa: ASYNC110  # the kernel's doing
            await asyncio.sleep(0.001)


async def until_held(proxy: Proxy) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not proxy.holding:  # noqa: ASYNC110  # the kernel's doing
            await asyncio.sleep(0.001)


async def test_everything_passes_in_both_directions(proxy: Proxy, connect: Connect) -> None:
    client = await connect(proxy)
    for size in (1, 1_000, 300_000):
        client.say(b"x" * size)
        await client.hears(b"x" * size)


async def test_a_cut_resets_what_is_open_and_nothing_else(proxy: Proxy, connect: Connect) -> None:
    client = await connect(proxy)
    client.say(b"a")
    await client.hears(b"a")
    proxy.cut()
    await client.is_reset()
    again = await connect(proxy)
    again.say(b"b")
    await again.hears(b"b")


async def test_whoever_is_refused_is_reset_until_it_is_healed(
    proxy: Proxy, echo: Echo, connect: Connect
) -> None:
    before = await connect(proxy)
    before.say(b"a")
    await before.hears(b"a")
    proxy.refuse()
    await before.is_reset()
    await (await connect(proxy)).is_reset()
    proxy.heal()
    after = await connect(proxy)
    after.say(b"b")
    await after.hears(b"b")
    await echo.has(b"ab")


async def test_half_open_connections_stay_and_what_was_said_never_comes(
    proxy: Proxy, echo: Echo, connect: Connect
) -> None:
    before = await connect(proxy)
    before.say(b"a")
    await before.hears(b"a")
    proxy.half_open()
    new = await connect(proxy)
    before.say(b"lost")
    new.say(b"lost as well")
    await until_held(proxy)
    assert bytes(echo.got) == b"a"
    proxy.heal()
    await before.is_reset()
    await new.is_reset()
    after = await connect(proxy)
    after.say(b"b")
    await after.hears(b"b")
    await echo.has(b"ab")


async def test_dropped_answers_are_to_requests_that_passed(
    proxy: Proxy, echo: Echo, connect: Connect
) -> None:
    client = await connect(proxy)
    proxy.drop_answers()
    client.say(b"done")
    await echo.has(b"done")
    await until_lost(proxy, 4)
    # Bytes are missing now: the rest must not be taken for the answer.
    proxy.answering = True
    client.say(b"more")
    await until_lost(proxy, 8)
    proxy.heal()
    await client.is_reset()


async def test_what_is_held_may_come_after_its_client_is_gone(
    proxy: Proxy, echo: Echo, connect: Connect
) -> None:
    client = await connect(proxy)
    proxy.passing = False
    client.say(b"late")
    await until_held(proxy)
    proxy.cut()
    await client.is_reset()
    assert not echo.got
    proxy.passing = True
    await proxy.release()
    await echo.has(b"late")


async def test_a_slow_link_gives_everything_in_order(proxy: Proxy, connect: Connect) -> None:
    proxy.slow_s = 0.01
    client = await connect(proxy)
    data = bytes(range(256)) * 1000
    client.say(data)
    await client.hears(data)


async def test_links_of_one_proxy_have_fates_of_their_own(echo: Echo, connect: Connect) -> None:
    links = [Link(), Link()]
    turn = iter(links)
    proxy = Proxy(echo.port, choose=lambda _: next(turn))
    await proxy.start()
    first, second = await connect(proxy), await connect(proxy)
    for client in (first, second):
        client.say(b"a")
        await client.hears(b"a")
    links[0].refuse()
    await first.is_reset()
    second.say(b"b")
    await second.hears(b"b")
    await proxy.stop()
    await second.is_reset()


async def test_without_a_server_behind_it_nobody_gets_through(echo: Echo, connect: Connect) -> None:
    proxy = Proxy(echo.port)
    assert echo.server is not None
    echo.server.close()
    await proxy.start()
    await (await connect(proxy)).is_reset()
    await proxy.stop()
