"""What is decided beforehand about tokens: issuer, audience, and the keys that sign."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


class KeysUnusable(Exception):
    """Keys can't be had, or none of them can be used. The text holds no key material."""


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """Which tokens are believed.

    Attributes:
        issuer: What `iss` must be.
        audience: What `aud` must be or contain.
        leeway_s: Seconds by which the clocks of issuer and server may differ.
        hs256_secret: Signs with HS256, at least 32 bytes. For development: who can check such a
            token can also make one.
        jwks_file: A JWK set (RFC 7517) of public keys for RS256, ES256 and EdDSA.
        jwks_url: The same by https, or by http from this machine.
    """

    issuer: str = "tidings"
    audience: str = "tidings"
    leeway_s: float = 5
    hs256_secret: bytes | None = field(default=None, repr=False)
    jwks_file: Path | None = None
    jwks_url: str | None = None
