"""Tokens that must be believed, and those that must not."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.unit.tokens import (
    NOW_MS,
    PRIVATE,
    RSA_KEY,
    SECRET,
    FixedClock,
    claims,
    hmac_token,
    hs256,
    jwk,
    jwks,
    raw_token,
)
from tidings_server.auth import KeysUnusable, NoSecret, TokenPolicy, TokenVerifier, mint
from tidings_server.auth import verifier as verifier_module
from tidings_server.auth.keys import KeySet, parse_jwks
from tidings_server.errors import DomainError, Reason


class FixedSource:
    """Keys that are there."""

    retry_helps = False

    def __init__(self, keys: KeySet) -> None:
        self.keys = keys

    def current(self, now_ms: int) -> KeySet:
        return self.keys

    def may_refresh(self, now_ms: int, *, missing: bool) -> bool:
        return False

    async def refresh(self, now_ms: int) -> bool:
        return True


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def verifier(clock: FixedClock) -> TokenVerifier:
    """Believes HS256 by a secret and three public keys."""
    keys = parse_jwks(jwks(jwk("RS256"), jwk("ES256"), jwk("EdDSA")))
    return TokenVerifier(TokenPolicy(hs256_secret=SECRET), clock, source=FixedSource(keys))


async def refused(verifier: TokenVerifier, token: str) -> DomainError:
    with pytest.raises(DomainError) as caught:
        await verifier.verify(token)
    with pytest.raises(DomainError) as again:
        verifier.verify_now(token)
    assert again.value.reason is caught.value.reason
    return caught.value


async def test_a_minted_token_names_its_user_device_and_scopes(
    verifier: TokenVerifier, clock: FixedClock
) -> None:
    policy = TokenPolicy(hs256_secret=SECRET)
    token = mint(policy, clock, "alice", "phone", ttl_s=60, scopes=["admin", "feed"])
    principal = await verifier.verify(token)
    assert (principal.user_id, principal.device_id) == ("alice", "phone")
    assert principal.scopes == {"admin", "feed"}
    assert principal.expires_at_ms == NOW_MS + 60_000
    assert verifier.verify_now(token) is principal


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("named", [True, False])
async def test_public_keys_are_believed(
    verifier: TokenVerifier, algorithm: str, named: bool
) -> None:
    headers = {"kid": algorithm.lower()} if named else {}
    token = jwt.encode(claims(), PRIVATE[algorithm], algorithm, headers=headers)
    assert (await verifier.verify(token)).user_id == "alice"
    assert verifier.verify_now(token) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": None},
        {"iss": "somebody"},
        {"iss": ["tidings"]},
        {"aud": None},
        {"aud": "another"},
        {"aud": ["another"]},
        {"aud": {"tidings": 1}},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": True},
        {"exp": 1e400},
        {"exp": -1},
        {"exp": 10**20},
        {"sub": None},
        {"sub": ""},
        {"sub": "a b"},
        {"sub": "x" * 129},
        {"device_id": None},
        {"device_id": ""},
        {"device_id": 7},
        {"device_id": "a\nb"},
        {"device_id": "x" * 65},
        {"device_id": "é" * 33},
        {"scope": ["admin"]},
        {"scope": 1},
        {"scope": " ".join(str(i) for i in range(65))},
        {"nbf": NOW_MS // 1000 + 6},
        {"nbf": "now"},
        {"iat": NOW_MS // 1000 + 6},
        {"iat": []},
    ],
    ids=str,
)
async def test_claims_that_are_not_accepted(
    verifier: TokenVerifier, changes: dict[str, Any]
) -> None:
    token = hmac_token({"alg": "HS256"}, claims(**changes), SECRET)
    problem = await refused(verifier, token)
    assert problem.reason is Reason.TOKEN_INVALID
    assert problem.message == "The token is not accepted here."


async def test_clocks_may_differ_by_the_leeway(verifier: TokenVerifier) -> None:
    seconds = NOW_MS // 1000
    early = hs256(nbf=seconds + 5, iat=seconds + 5)
    await verifier.verify(early)
    await verifier.verify(hs256(exp=seconds - 4))
    assert (await refused(verifier, hs256(exp=seconds - 5))).reason is Reason.TOKEN_EXPIRED


async def test_a_remembered_token_still_expires(verifier: TokenVerifier, clock: FixedClock) -> None:
    token = hs256(exp=NOW_MS // 1000 + 60)
    await verifier.verify(token)
    clock.ms += 64_999
    await verifier.verify(token)
    clock.ms += 1
    assert (await refused(verifier, token)).reason is Reason.TOKEN_EXPIRED


async def test_a_forged_token_that_has_expired_is_invalid_not_expired(
    verifier: TokenVerifier,
) -> None:
    token = jwt.encode(
        claims(exp=NOW_MS // 1000 - 60), b"another secret of thirty-two byt", "HS256"
    )
    assert (await refused(verifier, token)).reason is Reason.TOKEN_INVALID


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, 7, ["HS256"], "HS512", "PS256"])
async def test_algorithms_that_are_not_accepted(verifier: TokenVerifier, alg: object) -> None:
    for header in ({"alg": alg}, {"alg": alg, "kid": "rs256"}):
        assert (await refused(verifier, raw_token(header, claims()))).reason is Reason.TOKEN_INVALID
        signed = hmac_token(header, claims(), SECRET)
        assert (await refused(verifier, signed)).reason is Reason.TOKEN_INVALID


@pytest.mark.parametrize("encoding", ["pem", "der", "jwk"])
async def test_a_public_key_is_never_taken_for_a_secret(
    verifier: TokenVerifier, encoding: str
) -> None:
    public = RSA_KEY.public_key()
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    secret = {
        "pem": public.public_bytes(serialization.Encoding.PEM, info),
        "der": public.public_bytes(serialization.Encoding.DER, info),
        "jwk": json.dumps(jwk("RS256")).encode(),
    }[encoding]
    for header in ({"alg": "HS256", "kid": "rs256"}, {"alg": "RS256", "kid": "rs256"}):
        token = hmac_token(header, claims(), secret)
        assert (await refused(verifier, token)).reason is Reason.TOKEN_INVALID


async def test_the_secret_is_never_taken_for_a_public_key(verifier: TokenVerifier) -> None:
    for alg in ("RS256", "ES256", "EdDSA"):
        token = hmac_token({"alg": alg, "kid": alg.lower()}, claims(), SECRET)
        assert (await refused(verifier, token)).reason is Reason.TOKEN_INVALID


async def test_a_key_checks_only_its_own_algorithm(clock: FixedClock) -> None:
    both = parse_jwks(jwks(jwk("RS256", kid="one"), jwk("ES256", kid="two")))
    verifier = TokenVerifier(TokenPolicy(), clock, source=FixedSource(both))
    token = jwt.encode(claims(), RSA_KEY, "RS256", headers={"kid": "two"})
    assert (await refused(verifier, token)).reason is Reason.TOKEN_INVALID
    hs = jwt.encode(claims(), SECRET, "HS256")
    assert (await refused(verifier, hs)).reason is Reason.TOKEN_INVALID


async def test_a_token_without_key_id_must_leave_no_choice(clock: FixedClock) -> None:
    two = parse_jwks(jwks(jwk("RS256", kid="one"), jwk("RS256", kid="two")))
    verifier = TokenVerifier(TokenPolicy(), clock, source=FixedSource(two))
    token = jwt.encode(claims(), RSA_KEY, "RS256")
    assert (await refused(verifier, token)).reason is Reason.TOKEN_INVALID
    named = jwt.encode(claims(), RSA_KEY, "RS256", headers={"kid": "two"})
    assert (await verifier.verify(named)).user_id == "alice"


async def test_nothing_is_believed_without_keys(clock: FixedClock) -> None:
    verifier = TokenVerifier(TokenPolicy(), clock)
    for token in (hs256(), jwt.encode(claims(), RSA_KEY, "RS256"), raw_token({}, {})):
        assert (await refused(verifier, token)).reason is Reason.TOKEN_INVALID


async def test_changed_tokens_are_refused(verifier: TokenVerifier) -> None:
    token = hs256()
    head, body, mac = token.split(".")
    other = raw_token({}, claims(sub="bob")).split(".")[1]
    for bad in (
        f"{head}.{other}.{mac}",
        f"{head}.{body}.",
        f"{head}.{body}",
        f"{head}.{body}.{mac}.{mac}",
        f" {token}",
        f"{token}\n",
        f"Bearer {token}",
        token * 100,
        token[:-2],
    ):
        assert (await refused(verifier, bad)).reason is Reason.TOKEN_INVALID


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.from_regex(r"[A-Za-z0-9_.=-]{0,80}", fullmatch=True)))
def test_garbage_is_refused(token: str) -> None:
    verifier = TokenVerifier(TokenPolicy(hs256_secret=SECRET), FixedClock())
    with pytest.raises(DomainError) as caught:
        verifier.verify_now(token)
    assert caught.value.reason is Reason.TOKEN_INVALID


@pytest.mark.parametrize(
    "header",
    [
        [],
        "x",
        {"alg": "HS256", "kid": 7},
        {"alg": "HS256", "crit": ["exp"]},
        {"alg": "HS256", "b64": False},
        {"alg": "HS256", "b64": False, "crit": ["b64"]},
        {"alg": "RS256", "kid": {}},
        {"alg": "RS256", "kid": None},
        {"alg": "RS256", "jwk": jwk("RS256"), "kid": "mine"},
        {"alg": "RS256", "jku": "https://example.com/keys", "kid": "mine"},
    ],
    ids=str,
)
async def test_headers_that_are_not_accepted(verifier: TokenVerifier, header: object) -> None:
    token = hmac_token(header, claims(), SECRET)
    assert (await refused(verifier, token)).reason is Reason.TOKEN_INVALID


async def test_deeply_nested_json_is_refused(verifier: TokenVerifier) -> None:
    deep = base64.urlsafe_b64encode(b"[" * 9_000).rstrip(b"=").decode()
    assert (await refused(verifier, f"{deep}..")).reason is Reason.TOKEN_INVALID


async def test_neither_errors_nor_logs_hold_the_token(verifier: TokenVerifier) -> None:
    token = hs256(iss="somebody else")
    with capture_logs() as logs:
        problem = await refused(verifier, token)
    assert logs
    for part in (*token.split("."), "somebody else", "alice"):
        assert part not in repr(logs)
        assert part not in str(problem) + repr(problem)


async def test_other_keys_make_forget_what_was_believed(clock: FixedClock) -> None:
    source = FixedSource(parse_jwks(jwks(jwk("RS256"))))
    verifier = TokenVerifier(TokenPolicy(), clock, source=source)
    token = jwt.encode(claims(), RSA_KEY, "RS256")
    await verifier.verify(token)
    source.keys = parse_jwks(jwks(jwk("ES256")))
    assert (await refused(verifier, token)).reason is Reason.TOKEN_INVALID


async def test_the_memory_of_tokens_is_bounded(
    clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifier_module, "CACHE_SIZE", 10)
    verifier = TokenVerifier(TokenPolicy(hs256_secret=SECRET), clock)
    tokens = [hs256(sub=f"user{i}") for i in range(25)]
    for token in tokens:
        await verifier.verify(token)
    assert len(verifier._cache) == 10
    assert (await verifier.verify(tokens[0])).user_id == "user0"


def test_minting_needs_a_secret_and_proper_ids(clock: FixedClock) -> None:
    with pytest.raises(NoSecret):
        mint(TokenPolicy(), clock, "alice", "phone", ttl_s=1)
    policy = TokenPolicy(hs256_secret=SECRET)
    with pytest.raises(DomainError, match="user_id"):
        mint(policy, clock, "a b", "phone", ttl_s=1)
    with pytest.raises(DomainError, match="device_id"):
        mint(policy, clock, "alice", "x" * 65, ttl_s=1)


def test_a_policy_does_not_show_its_secret() -> None:
    assert "secret of" not in repr(TokenPolicy(hs256_secret=SECRET))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "no valid JSON"),
        (b"[" * 100_000, "no valid JSON"),
        (b"[]", "no JWK set"),
        (b'{"keys": {}}', "no JWK set"),
        (b'{"keys": []}', "no public key"),
        (b'{"keys": [7, "x", null, {}]}', "no public key"),
        (jwks({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}), "no public key"),
        (jwks(jwk("RS256", use="enc")), "no public key"),
        (jwks(jwk("RS256", key_ops=["encrypt"])), "no public key"),
        (jwks(jwk("RS256", alg="RS512")), "no public key"),
        (jwks(jwk("RS256", alg="HS256")), "no public key"),
        (jwks(jwk("RS256", n="AQAB")), "no public key"),
        (jwks(jwk("ES256", x="AAAA")), "no public key"),
        (jwks(jwk("ES256", crv="P-384")), "no public key"),
        (jwks(jwk("EdDSA", x=7)), "no public key"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_sets_without_usable_keys(raw: bytes, why: str) -> None:
    with pytest.raises(KeysUnusable, match=why):
        parse_jwks(raw)


def test_weak_rsa_keys_are_left() -> None:
    weak = rsa.generate_private_key(65537, 1024).public_key()
    entry = json.loads(jwt.get_algorithm_by_name("RS256").to_jwk(weak))
    with capture_logs() as logs, pytest.raises(KeysUnusable):
        parse_jwks(jwks(entry))
    assert "2048" in repr(logs)


def test_of_a_private_key_only_the_public_part_is_kept() -> None:
    entry = json.loads(jwt.get_algorithm_by_name("RS256").to_jwk(RSA_KEY))
    del entry["key_ops"]
    with capture_logs() as logs:
        key = parse_jwks(jwks(entry)).keys[0]
    assert isinstance(key.material, rsa.RSAPublicKey)
    assert logs[0]["event"] == "jwks_holds_private_key"
    assert entry["d"] not in repr(logs)
