"""The verifier: a token in, the principal that it names out, or a refusal that tells no secrets."""

from __future__ import annotations

import asyncio
import json
import math
from collections import OrderedDict
from hashlib import sha256
from typing import Any

import jwt
import structlog
from jwt.utils import base64url_decode

from tidings_server.auth.keys import Key, KeySet
from tidings_server.auth.policy import KeysUnusable, TokenPolicy
from tidings_server.auth.sources import JwksFile, JwksUrl, KeySource
from tidings_server.core.clock import Clock
from tidings_server.core.ids import user_id_problem
from tidings_server.core.principal import Principal
from tidings_server.errors import DomainError, Reason

MAX_TOKEN_BYTES = 16_384
MAX_DEVICE_ID_BYTES = 64
CACHE_SIZE = 20_000
_MAX_SCOPES = 64
_RETRY_MS = 5_000
_OPTIONS: Any = {
    # Times are checked here, by the server's clock.
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "require": ["iss", "aud", "exp", "sub", "device_id"],
    "enforce_minimum_key_length": True,
}
_log = structlog.get_logger("tidings.auth")


class _KeyMissing(Exception):
    """The token's key is not at hand."""


class TokenVerifier:
    """Checks tokens against a policy. For one event loop.

    A token that was found good is remembered by its SHA-256 until it expires or the keys change,
    so that a unary call does not pay for a signature each time.
    """

    def __init__(
        self, policy: TokenPolicy, clock: Clock, *, source: KeySource | None = None
    ) -> None:
        """Reads the JWK set if it is a file. Raises KeysUnusable when it can't be used."""
        self._policy = policy
        self._clock = clock
        self._leeway_ms = int(policy.leeway_s * 1000)
        self._secret: Key | None = None
        if policy.hs256_secret is not None:
            self._secret = Key("HS256", "", policy.hs256_secret)
        self._source = source if source is not None else _source(policy)
        self._keys: KeySet | None = None
        self._cache: OrderedDict[bytes, Principal] = OrderedDict()
        self._jwt = jwt.PyJWT()
        self._background: asyncio.Task[bool] | None = None

    async def prepare(self) -> bool:
        """Fetches keys, if they come from a URL, before the first token does; whether they came.

        A server may start without: keys are fetched again when a token needs them.
        """
        if self._source is None:
            return True
        return await self._source.refresh(self._clock.now_ms())

    async def verify(self, token: str) -> Principal:
        """The principal of a token. Raises DomainError: TOKEN_INVALID or TOKEN_EXPIRED.

        `retry_after_ms` is set when the keys could not be had, so that trying again may help.
        """
        principal = self.verify_now(token)
        if principal is not None:
            return principal
        assert self._source is not None
        fresh = await self._source.refresh(self._clock.now_ms())
        try:
            return self._verify(token)
        except _KeyMissing:
            raise _refuse("key unknown", retry=not fresh) from None

    def verify_now(self, token: str) -> Principal | None:
        """Like `verify`, at once; None when keys have to be fetched first, which `verify` does."""
        now = self._clock.now_ms()
        digest = sha256(token.encode("utf-8", "replace")).digest()
        source = self._source
        if source is not None:
            keys = source.current(now)
            if keys is not self._keys:
                self._keys = keys
                self._cache.clear()
            if source.may_refresh(now, missing=False):
                self._refresh_later(source, now)
        known = self._cache.get(digest)
        if known is not None:
            if now < known.expires_at_ms + self._leeway_ms:
                return known
            del self._cache[digest]
        try:
            principal = self._verify(token)
        except _KeyMissing:
            if source is not None and source.may_refresh(now, missing=True):
                return None
            raise _refuse("key unknown", retry=source is not None and source.retry_helps) from None
        if len(self._cache) >= CACHE_SIZE:
            self._cache.popitem(last=False)
        self._cache[digest] = principal
        return principal

    def _refresh_later(self, source: KeySource, now: int) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._background = loop.create_task(source.refresh(now))

    def _verify(self, token: str) -> Principal:
        if not token or len(token) > MAX_TOKEN_BYTES:
            raise _refuse("empty or too long")
        try:
            header = _header(token)
            key = self._key(header)
            claims = self._jwt.decode(
                token,
                key.material,
                algorithms=[key.algorithm],
                options=_OPTIONS,
                issuer=self._policy.issuer,
                audience=self._policy.audience,
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as problem:
            # The name only: texts of the library may quote the token.
            raise _refuse(type(problem).__name__) from None
        return self._principal(claims)

    def _key(self, header: dict[str, Any]) -> Key:
        """The key is chosen by the algorithm that it is bound to: HS256 can mean the secret only,
        and no other algorithm can.
        """
        algorithm, kid = header.get("alg"), header.get("kid", "")
        if algorithm == "HS256":
            if self._secret is None:
                raise _refuse("HS256 without a secret")
            return self._secret
        if algorithm not in {"RS256", "ES256", "EdDSA"} or self._source is None:
            raise _refuse("algorithm not allowed")
        key = self._source.current(self._clock.now_ms()).find(algorithm, kid)
        if key is None:
            raise _KeyMissing
        return key

    def _principal(self, claims: dict[str, Any]) -> Principal:
        now = self._clock.now_ms()
        expires = _time(claims, "exp")
        if expires is None:
            raise _refuse("exp is no time")
        for name in ("nbf", "iat"):
            if name in claims:
                start = _time(claims, name)
                if start is None or now < start - self._leeway_ms:
                    raise _refuse(f"{name} is no time or lies ahead")
        user_id, device_id = claims["sub"], claims["device_id"]
        scope = claims.get("scope", "")
        if not isinstance(user_id, str) or user_id_problem(user_id):
            raise _refuse("sub can't be a user id")
        if not isinstance(device_id, str) or device_id_problem(device_id):
            raise _refuse("device_id is malformed")
        scopes = scope.split() if isinstance(scope, str) else None
        if scopes is None or len(scopes) > _MAX_SCOPES:
            raise _refuse("scope is malformed")
        if now >= expires + self._leeway_ms:
            _log.debug("token_refused", why="expired")
            raise DomainError(Reason.TOKEN_EXPIRED, "The token has expired.")
        return Principal(user_id, device_id, expires, frozenset(scopes))


def _header(token: str) -> dict[str, Any]:
    """The header, to choose a key by. Nothing of it is believed: decoding looks at everything again."""
    header = json.loads(base64url_decode(token.partition(".")[0]))
    if not isinstance(header, dict):
        raise TypeError("a header is an object")
    return header


def device_id_problem(device_id: str) -> str | None:
    """What is wrong with a device id, or None. It is made like a user id, of at most 64 bytes."""
    if problem := user_id_problem(device_id):
        return problem
    if len(device_id.encode()) > MAX_DEVICE_ID_BYTES:
        return f"must be at most {MAX_DEVICE_ID_BYTES} bytes of UTF-8"
    return None


def _source(policy: TokenPolicy) -> KeySource | None:
    if policy.jwks_file is not None:
        try:
            return JwksFile(policy.jwks_file)
        except KeysUnusable as problem:
            raise KeysUnusable(f"auth.jwks_file {policy.jwks_file}: {problem}") from None
    if policy.jwks_url is not None:
        return JwksUrl(policy.jwks_url)
    return None


def _time(claims: dict[str, Any], name: str) -> int | None:
    """A time claim in milliseconds since the Unix epoch, or None when it is none."""
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Up to the year 9999: what follows counts in 64 bits and shows dates.
    return int(value * 1000) if math.isfinite(value) and 0 <= value <= 253_402_300_799 else None


def _refuse(why: str, *, retry: bool = False) -> DomainError:
    _log.debug("token_refused", why=why)
    if retry:
        return DomainError(
            Reason.TOKEN_INVALID,
            "The token can't be checked at the moment.",
            retry_after_ms=_RETRY_MS,
        )
    return DomainError(Reason.TOKEN_INVALID, "The token is not accepted here.")
