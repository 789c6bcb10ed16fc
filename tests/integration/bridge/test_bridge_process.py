"""`tidings-bridge` as users start it: beside a server that is killed, and told to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.bridge.browser import WebDevice, dial
from tests.integration.processes import ServerProcess
from tests.integration.wire import PATIENCE_S


class BridgeProcess(ServerProcess):
    """A bridge to a server, which may be started again where it was."""

    def __init__(self, folder: Path, server: ServerProcess, **settings: str) -> None:
        super().__init__(folder)
        self.settings |= settings
        self.server = server

    async def start(self) -> BridgeProcess:
        await self.launch(
            "tidings_server.bridge_cli", "bridging", BRIDGE__SERVERS=self.server.address
        )
        self.http_port = self.log[-1]["http_port"]
        return self


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    # One that is known beforehand, so that it is the same after a restart.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    made = ServerProcess(tmp_path, GRPC__LISTEN=f"127.0.0.1:{port}")
    yield await made.start()
    await made.close()


@pytest.fixture
async def bridge(server: ServerProcess, tmp_path: Path) -> AsyncIterator[BridgeProcess]:
    made = BridgeProcess(tmp_path, server)
    yield await made.start()
    await made.close()


async def back(port: int, user: str, cursors: dict[str, int]) -> WebDevice:
    """A device that comes back as a client does: again and again, as long as the code says so."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            device = await dial(port, user)
            opening = asyncio.ensure_future(device.open(cursors))
            over = asyncio.ensure_future(device.over())
            await asyncio.wait([opening, over], return_when=asyncio.FIRST_COMPLETED)
            over.cancel()
            if opening.done():
                return await opening
            opening.cancel()
            assert device.closed is not None
            assert 4000 <= device.closed[0] < 4100
            await device.close()
            await asyncio.sleep(0.1)


async def test_the_server_is_killed_and_comes_back(
    server: ServerProcess, bridge: BridgeProcess
) -> None:
    log = await server.caller("alice").group("bob")
    # One by each way.
    alice = await (await dial(bridge.http_port, "alice")).open()
    bob = await (await dial(server.http_port, "bob")).open()
    assert await alice.post(log, "one") == 2
    await bob.level(log, 2)
    await server.kill()
    assert await alice.over() == (4014, "UNAVAILABLE")
    assert (await bob.over())[0] == 1006
    await server.start()
    alice = await back(bridge.http_port, "alice", {log: 2, "inbox:alice": 1})
    bob = await back(server.http_port, "bob", {log: 2, "inbox:bob": 1})
    assert await bob.post(log, "two") == 3
    for device in (alice, bob):
        await device.level(log, 3, start=2)
        assert device.texts(log) == ["two"]
        await device.close()


async def test_the_bridge_is_told_to_stop(server: ServerProcess, bridge: BridgeProcess) -> None:
    devices = [await (await dial(bridge.http_port, f"user-{i}")).open() for i in range(5)]
    log = await server.caller("user-0").group(*(f"user-{i}" for i in range(1, 5)))
    await devices[0].post(log, "hello")
    for device in devices:
        await device.level(log, 2)
    bridge.signal(signal.SIGTERM)
    for device in devices:
        assert await device.over() == (4014, "DRAINING")
        await device.close()
    assert await bridge.ended() == 0
    # The server has let go of them.
    caller = await (await dial(server.http_port, "user-0")).open()
    await caller.close()


async def test_the_bridge_is_killed(server: ServerProcess, bridge: BridgeProcess) -> None:
    alice = await (await dial(bridge.http_port, "alice")).open()
    await bridge.kill()
    assert (await alice.over())[0] == 1006
    assert await server.logged("serving")


async def test_no_server_and_wrong_settings(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nowhere = ServerProcess(tmp_path)
        nowhere.port = taken.getsockname()[1]
    bridge = await BridgeProcess(tmp_path, nowhere).start()
    try:
        device = await dial(bridge.http_port, "alice")
        assert await device.over() == (4014, "UNAVAILABLE")
        reader, writer = await asyncio.open_connection("127.0.0.1", bridge.http_port)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        assert b" 503 " in answer
        assert answer.endswith(b"no server can be reached\n")
        second = BridgeProcess(tmp_path, nowhere, BRIDGE__LISTEN=f"127.0.0.1:{bridge.http_port}")
        with pytest.raises(AssertionError, match=r"it ended with 1.*can't listen on"):
            await second.start()
        wrong = BridgeProcess(tmp_path, nowhere, BRIDGE__ALLOWED_ORIGINS="chat.example.com/x")
        with pytest.raises(AssertionError, match=r"it ended with 2.*bridge\.allowed_origins"):
            await wrong.start()
    finally:
        await bridge.close()
