"""Public keys from a JWK set, each bound to the one algorithm that it may check."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from tidings_server.auth.policy import KeysUnusable

MIN_RSA_BITS = 2048
MAX_JWKS_BYTES = 1_048_576
_PUBLIC_MEMBERS = frozenset({"kty", "crv", "x", "y", "n", "e"})
_log = structlog.get_logger("tidings.auth")


@dataclass(frozen=True, slots=True)
class Key:
    """A key and its algorithm. `kid` is empty when the set gives it no name."""

    algorithm: str
    kid: str
    material: Any


class KeySet:
    """The usable keys of a JWK set."""

    def __init__(self, keys: tuple[Key, ...] = ()) -> None:
        self.keys = keys

    def find(self, algorithm: str, kid: str) -> Key | None:
        """The key for a token's header.

        A token that names no key is for the only key of its algorithm, if there is only one.
        """
        fitting = [k for k in self.keys if k.algorithm == algorithm]
        if kid:
            return next((k for k in fitting if k.kid == kid), None)
        return fitting[0] if len(fitting) == 1 else None


def parse_jwks(raw: bytes) -> KeySet:
    """The keys of a JWK set that can be used; others (for encryption, symmetric, weak) are left.

    Raises KeysUnusable when it is no JWK set or holds no usable key.
    """
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise KeysUnusable("it is no valid JSON") from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise KeysUnusable('it is no JWK set: an object with "keys" is expected')
    keys = tuple(key for entry in listed if (key := _key(entry)) is not None)
    if not keys:
        raise KeysUnusable("it holds no public key for RS256, ES256 or EdDSA signatures")
    return KeySet(keys)


def _key(entry: object) -> Key | None:
    if not isinstance(entry, dict):
        return None
    kid = entry.get("kid", "")
    kid = kid if isinstance(kid, str) else ""
    algorithm = {
        ("RSA", None): "RS256",
        ("EC", "P-256"): "ES256",
        ("OKP", "Ed25519"): "EdDSA",
    }.get((_text(entry, "kty") or "", _text(entry, "crv")))
    operations = entry.get("key_ops", ["verify"])
    if (
        algorithm is None
        or entry.get("alg", algorithm) != algorithm
        or entry.get("use", "sig") != "sig"
        or not isinstance(operations, list)
        or "verify" not in operations
    ):
        _log.info("jwks_key_passed_over", kid=kid, why="of another kind or use")
        return None
    if "d" in entry:
        _log.warning("jwks_holds_private_key", kid=kid)
    try:
        # Only the public part: a private key must never be needed, nor kept, here.
        public = {name: value for name, value in entry.items() if name in _PUBLIC_MEMBERS}
        material = jwt.PyJWK(public, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        _log.warning("jwks_key_passed_over", kid=kid, why="malformed")
        return None
    if isinstance(material, RSAPublicKey) and material.key_size < MIN_RSA_BITS:
        _log.warning("jwks_key_passed_over", kid=kid, why=f"shorter than {MIN_RSA_BITS} bits")
        return None
    return Key(algorithm, kid, material)


def _text(entry: dict[str, Any], name: str) -> str | None:
    value = entry.get(name)
    return value if isinstance(value, str) else None
