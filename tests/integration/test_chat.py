"""The way of a message over real streams: to every device, in order, once."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.conftest import Serve, Served
from tests.integration.wire import new_id


async def test_a_message_reaches_every_device(server: Served) -> None:
    alice = server.caller("alice")
    log = await alice.group("bob", "carol")
    devices = [
        await server.device("alice"),
        await server.device("bob"),
        await server.device("bob", "tablet"),
        await server.device("carol"),
    ]
    stranger = await server.device("mallory")
    assert await devices[1].post(log, "hello") == 2
    assert await alice.post(log, "welcome") == 3
    for device in devices:
        await device.level(log, 3)
        assert device.texts(log) == ["hello", "welcome"]
    assert not stranger.of("entry")
