"""Everything here is run twice: on the bridge in the server, and on one apart, which speaks gRPC to the server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Serve, Served, settings
from tidings_server.app import serving
from tidings_server.bridging import bridging


@pytest.fixture(params=["in the server", "apart"])
async def serve(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts servers with a bridge, given settings by their groups."""
    apart = request.param == "apart"
    async with AsyncExitStack() as stack:

        async def start(**groups: Mapping[str, Any]) -> Served:
            given = settings(tmp_path, **groups)
            own = given.bridge.model_copy(update={"enabled": not apart})
            running = await stack.enter_async_context(
                serving(given.model_copy(update={"bridge": own}))
            )
            if apart:
                remote = own.model_copy(update={"servers": f"127.0.0.1:{running.port}"})
                bridge = await stack.enter_async_context(
                    bridging(given.model_copy(update={"bridge": remote}))
                )
                running = replace(running, http_port=bridge.port)
            clients = await stack.enter_async_context(AsyncExitStack())
            return Served(running, clients)

        yield start
