"""Public keys from files that change and from a real HTTP server that rotates, fails and lies."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.unit.tokens import (
    ED_KEY,
    FixedClock,
    claims,
    jwk,
    jwks,
)
from tidings_server.auth import KeysUnusable, TokenPolicy, TokenVerifier
from tidings_server.auth.keys import MAX_JWKS_BYTES, parse_jwks
from tidings_server.auth.sources import MAX_AGE_MS, MIN_INTERVAL_MS, fetch_jwks
from tidings_server.errors import DomainError, Reason

OTHER_KEY = ed25519.Ed25519PrivateKey.generate()


def ed_jwk(key: ed25519.Ed25519PrivateKey, kid: str) -> dict[str, object]:
    algorithm = jwt.get_algorithm_by_name("EdDSA")
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid}


OLD_SET = jwks(ed_jwk(ED_KEY, "old"))
NEW_SET = jwks(ed_jwk(OTHER_KEY, "new"))
BOTH_SET = jwks(ed_jwk(ED_KEY, "old"), ed_jwk(OTHER_KEY, "new"))


def token(key: ed25519.Ed25519PrivateKey, kid: str, **changes: object) -> str:
    return jwt.encode(claims(**changes), key, "EdDSA", headers={"kid": kid})


OLD = token(ED_KEY, "old")
NEW = token(OTHER_KEY, "new")


class Issuer:
    """A real HTTP server with a JWK set that tests change."""

    def __init__(self) -> None:
        self.body = OLD_SET
        self.status = 200
        self.location = ""
        self.requests = 0
        self.arrived = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.requests += 1
                issuer.arrived.set()
                issuer.gate.wait(30)
                self.send_response(issuer.status)
                if issuer.location:
                    self.send_header("Location", issuer.location)
                self.send_header("Content-Length", str(len(issuer.body)))
                self.end_headers()
                self.wfile.write(issuer.body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks.json"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.close()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


async def reason(verifier: TokenVerifier, text: str) -> Reason | None:
    try:
        await verifier.verify(text)
    except DomainError as problem:
        return problem.reason
    return None


async def settle(verifier: TokenVerifier) -> None:
    """Awaits a fetch that began in the background."""
    if verifier._background is not None:
        async with asyncio.timeout(10):
            await verifier._background


def write(path: Path, raw: bytes) -> None:
    """Replaces a file the way that deployments do, so that it surely has another inode."""
    new = path.with_suffix(".new")
    new.write_bytes(raw)
    new.replace(path)


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(OLD_SET)
    verifier = TokenVerifier(TokenPolicy(jwks_file=path), clock)
    assert await reason(verifier, OLD) is None
    write(path, BOTH_SET)
    assert await reason(verifier, NEW) is None, "a missing key is looked for at once"
    write(path, NEW_SET)
    clock.ms += 1_000
    assert await reason(verifier, OLD) is Reason.TOKEN_INVALID
    assert await reason(verifier, NEW) is None


@pytest.mark.parametrize("raw", [b"", b"{", b'{"keys": []}', b" " * (MAX_JWKS_BYTES + 1), None])
async def test_the_last_good_file_is_kept(
    tmp_path: Path, clock: FixedClock, raw: bytes | None
) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(OLD_SET)
    verifier = TokenVerifier(TokenPolicy(jwks_file=path), clock)
    if raw is None:
        path.unlink()
    else:
        write(path, raw)
    clock.ms += 1_000
    assert await reason(verifier, OLD) is None
    assert await reason(verifier, NEW) is Reason.TOKEN_INVALID
    write(path, NEW_SET)
    clock.ms += 1_000
    assert await reason(verifier, NEW) is None


def test_a_bad_file_is_told_at_the_start(tmp_path: Path, clock: FixedClock) -> None:
    with pytest.raises(KeysUnusable, match="No such file"):
        TokenVerifier(TokenPolicy(jwks_file=tmp_path / "none"), clock)
    (tmp_path / "bad").write_bytes(b"{}")
    with pytest.raises(KeysUnusable, match="no JWK set"):
        TokenVerifier(TokenPolicy(jwks_file=tmp_path / "bad"), clock)


def test_a_file_is_not_read_when_only_time_passed(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(OLD_SET)
    verifier = TokenVerifier(TokenPolicy(jwks_file=path), clock)
    stat = path.stat()
    path.write_bytes(b"x" * len(OLD_SET))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    clock.ms += 1_000
    assert verifier.verify_now(OLD) is not None


async def test_keys_are_fetched_when_the_first_token_comes(
    issuer: Issuer, clock: FixedClock
) -> None:
    verifier = TokenVerifier(TokenPolicy(jwks_url=issuer.url), clock)
    assert verifier.verify_now(OLD) is None
    assert (await verifier.verify(OLD)).user_id == "alice"
    assert verifier.verify_now(OLD) is not None
    assert issuer.requests == 1


async def test_rotation_is_followed(issuer: Issuer, clock: FixedClock) -> None:
    verifier = TokenVerifier(TokenPolicy(jwks_url=issuer.url), clock)
    assert await verifier.prepare()
    assert await reason(verifier, OLD) is None
    issuer.body = BOTH_SET
    clock.ms += MIN_INTERVAL_MS
    assert await reason(verifier, NEW) is None
    assert await reason(verifier, OLD) is None
    assert issuer.requests == 2
    issuer.body = NEW_SET
    clock.ms += MAX_AGE_MS
    # The old key is believed until the fetch that this begins is done, and then no more.
    assert verifier.verify_now(token(ED_KEY, "old", sub="bob")) is not None
    await settle(verifier)
    assert issuer.requests == 3
    assert await reason(verifier, OLD) is Reason.TOKEN_INVALID
    assert await reason(verifier, NEW) is None


async def test_unknown_keys_cause_no_storm_of_fetches(issuer: Issuer, clock: FixedClock) -> None:
    verifier = TokenVerifier(TokenPolicy(jwks_url=issuer.url), clock)
    issuer.gate.clear()
    tokens = [token(OTHER_KEY, f"made up {i}") for i in range(50)] + [OLD] * 50
    checks = [asyncio.create_task(reason(verifier, t)) for t in tokens]
    assert await asyncio.to_thread(issuer.arrived.wait, 10)
    checks[0].cancel()
    issuer.gate.set()
    answers = await asyncio.gather(*checks[1:])
    assert answers == [Reason.TOKEN_INVALID] * 49 + [None] * 50
    for text in tokens[:50]:
        assert await reason(verifier, text) is Reason.TOKEN_INVALID
    assert issuer.requests == 1
    clock.ms += MIN_INTERVAL_MS
    for text in tokens[:50]:
        assert await reason(verifier, text) is Reason.TOKEN_INVALID
    assert issuer.requests == 2


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b""), (404, OLD_SET), (200, b"<html>"), (200, b" " * (MAX_JWKS_BYTES + 1))],
)
async def test_the_last_good_answer_is_kept(
    issuer: Issuer, clock: FixedClock, status: int, body: bytes
) -> None:
    verifier = TokenVerifier(TokenPolicy(jwks_url=issuer.url), clock)
    await verifier.prepare()
    issuer.status, issuer.body = status, body
    clock.ms += MAX_AGE_MS
    assert await reason(verifier, OLD) is None
    await settle(verifier)
    assert await reason(verifier, OLD) is None
    assert await reason(verifier, NEW) is Reason.TOKEN_INVALID
    assert issuer.requests == 2
    issuer.status, issuer.body = 200, BOTH_SET
    clock.ms += MIN_INTERVAL_MS
    assert await reason(verifier, NEW) is None


async def test_without_keys_the_client_is_asked_to_try_again(
    issuer: Issuer, clock: FixedClock
) -> None:
    issuer.close()
    verifier = TokenVerifier(TokenPolicy(jwks_url=issuer.url), clock)
    assert not await verifier.prepare()
    clock.ms += MIN_INTERVAL_MS
    for _ in range(2):
        with pytest.raises(DomainError) as caught:
            await verifier.verify(OLD)
        assert caught.value.reason is Reason.TOKEN_INVALID
        assert caught.value.retry_after_ms


async def test_a_key_that_is_not_in_a_fresh_set_is_refused_for_good(
    issuer: Issuer, clock: FixedClock
) -> None:
    verifier = TokenVerifier(TokenPolicy(jwks_url=issuer.url), clock)
    with pytest.raises(DomainError) as caught:
        await verifier.verify(NEW)
    assert caught.value.retry_after_ms is None


@pytest.mark.parametrize(
    "location", ["http://example.invalid/keys", "ftp://127.0.0.1/keys", "file:///etc/passwd"]
)
def test_redirects_lead_nowhere_that_is_not_safe(issuer: Issuer, location: str) -> None:
    issuer.status, issuer.location = 302, location
    with pytest.raises(KeysUnusable):
        fetch_jwks(issuer.url)
    assert issuer.requests == 1


def test_redirects_on_this_machine_are_followed(issuer: Issuer) -> None:
    other = Issuer()
    try:
        issuer.status, issuer.location = 302, other.url
        assert fetch_jwks(issuer.url).find("EdDSA", "old") is not None
    finally:
        other.close()


@pytest.mark.parametrize("url", ["http://example.invalid/keys", "file:///etc/passwd", "ftp://x/y"])
def test_urls_that_are_not_safe_are_not_fetched(url: str) -> None:
    with pytest.raises(KeysUnusable, match="neither https"):
        fetch_jwks(url)


def test_keys_are_found_by_algorithm_and_id() -> None:
    keys = parse_jwks(jwks(jwk("RS256", kid="a"), jwk("ES256", kid="a")))
    rsa_key, ec_key = keys.find("RS256", "a"), keys.find("ES256", "a")
    assert rsa_key is not None
    assert ec_key is not None
    assert (rsa_key.algorithm, ec_key.algorithm) == ("RS256", "ES256")
    assert keys.find("EdDSA", "a") is None
