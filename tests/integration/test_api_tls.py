"""The API over TLS: who believes the certificate gets in, and a renewed one is shown without a restart."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from tests.integration.certificates import HOST, Authority
from tests.integration.processes import ServerProcess
from tests.integration.wire import token, until
from tidings_server.config import ConfigError, load
from tidings_server.core.principal import ADMIN_SCOPE
from tidings_server.rpc.certificate import Certificate


async def answered(address: str, authority: Authority | None) -> bool:
    """Whether a health check comes through."""
    if authority is None:
        channel = grpc.aio.insecure_channel(address)
    else:
        credentials = grpc.ssl_channel_credentials(authority.path.read_bytes())
        channel = grpc.aio.secure_channel(address, credentials)
    async with channel:
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/grpc.health.v1.Health/Check"
        )
        try:
            return await check(b"", timeout=5) == b"\x08\x01"
        except grpc.aio.AioRpcError as problem:
            if problem.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False


async def an_operator_asks(address: str, ours: Authority, theirs: Authority) -> None:
    """The command line gets in over TLS when it believes the certificate, and not otherwise."""
    admin = token("operator", scopes=(ADMIN_SCOPE,))

    def ask(*options: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "tidings_server", "nodes"]
        done = subprocess.run(
            [*command, "--server", address, "--token", admin, *options],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout or done.stderr

    code, said = await asyncio.to_thread(ask, "--ca", str(ours.path))
    assert code == 0, said
    assert "serving, answering: 0 sessions" in said
    for options in (("--ca", str(theirs.path)), ("--tls",), ()):
        code, said = await asyncio.to_thread(ask, *options)
        assert code == 1
        assert f"tidings-server: {address}: UNAVAILABLE: " in said


def shown(port: int) -> str:
    """The certificate that the server shows."""
    return ssl.get_server_certificate((HOST, port))


async def test_the_api_speaks_tls(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    certificate, key = ours.issue("server")
    server = ServerProcess(
        tmp_path, GRPC__TLS_CERT_FILE=str(certificate), GRPC__TLS_KEY_FILE=str(key)
    )
    await server.start()
    try:
        assert await answered(server.address, ours)
        assert not await answered(server.address, theirs)
        await an_operator_asks(server.address, ours, theirs)
        assert not await answered(server.address, None)
        before = shown(server.port)
        for old, new in zip((certificate, key), ours.issue("renewed"), strict=True):
            new.replace(old)
        await until(lambda: shown(server.port) != before)
        assert await answered(server.address, ours)
        # What can't be read changes nothing.
        key.unlink()
        assert await answered(server.address, ours)
    finally:
        await server.close()


def test_files_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Certificate(tmp_path / "a", tmp_path / "b")
    path = tmp_path / "server.toml"
    path.write_text('[grpc]\ntls_cert_file = "x"\n', "utf-8")
    with pytest.raises(ConfigError, match="go together"):
        load(path)
