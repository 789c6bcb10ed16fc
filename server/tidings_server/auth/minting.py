"""Making tokens for development; in production the issuer of a product makes them."""

from __future__ import annotations

from collections.abc import Iterable

import jwt

from tidings_server.auth.policy import TokenPolicy
from tidings_server.auth.verifier import device_id_problem
from tidings_server.core.clock import Clock
from tidings_server.core.ids import user_id_problem
from tidings_server.errors import invalid


class NoSecret(Exception):
    """There is no secret to sign with."""


def mint(
    policy: TokenPolicy,
    clock: Clock,
    user_id: str,
    device_id: str,
    *,
    ttl_s: float,
    scopes: Iterable[str] = (),
) -> str:
    """A token for a device of a user, good for `ttl_s` seconds, signed with the HS256 secret.

    Raises NoSecret, and DomainError (INVALID_FIELD) for ids that the server would refuse.
    """
    if policy.hs256_secret is None:
        raise NoSecret
    if problem := user_id_problem(user_id):
        raise invalid("user_id", problem)
    if problem := device_id_problem(device_id):
        raise invalid("device_id", problem)
    now = clock.now_ms() / 1000
    claims = {
        "iss": policy.issuer,
        "aud": policy.audience,
        "sub": user_id,
        "device_id": device_id,
        "iat": int(now),
        "exp": int(now + ttl_s),
    }
    scope = " ".join(sorted(set(scopes)))
    if scope:
        claims["scope"] = scope
    return jwt.encode(claims, policy.hs256_secret, algorithm="HS256")
