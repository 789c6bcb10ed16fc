"""The HTTP port speaks TLS, and shows certificates that were renewed while it runs."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.integration.bridge.browser import PROTO, WebDevice
from tests.integration.certificates import HOST, Authority
from tests.integration.conftest import Serve
from tests.integration.wire import token
from tidings_server.bridge.certificate import ServerCertificate


async def test_the_bridge_speaks_tls(serve: Serve, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    certificate, key = authority.issue("server")
    server = await serve(bridge={"tls_cert_file": certificate, "tls_key_file": key})
    port = server.running.http_port
    assert port is not None
    believing = ssl.create_default_context(cafile=str(authority.path))

    async def chat() -> None:
        socket = await connect(
            f"wss://{HOST}:{port}/ws", ssl=believing, subprotocols=[Subprotocol(PROTO)]
        )
        alice = server.keep(WebDevice(socket, "alice"))
        await alice.show(token("alice", "browser"))
        await alice.open()

    def shown() -> str:
        return ssl.get_server_certificate((HOST, port))

    await chat()
    before = await asyncio.to_thread(shown)
    for old, new in zip((certificate, key), authority.issue("renewed"), strict=True):
        new.replace(old)
    assert await asyncio.to_thread(shown) != before
    await chat()
    # What can't be read changes nothing.
    key.unlink()
    await chat()
    with pytest.raises(ssl.SSLCertVerificationError):
        await connect(f"wss://{HOST}:{port}/ws", subprotocols=[Subprotocol(PROTO)])
    # Plain text on the port is no fault of anybody else's.
    _, writer = await asyncio.open_connection(HOST, port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    writer.close()
    await chat()


def test_files_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        ServerCertificate(tmp_path / "a", tmp_path / "b")
