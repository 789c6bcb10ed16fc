"""The API over TLS: who believes the certificate gets in, and a renewed one is shown without a restart."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc
import pytest

from tests.integration.certificates import HOST, Authority
from tests.integration.processes import ServerProcess
from tests.integration.wire import until
from tidings_server.config import ConfigError, load
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
