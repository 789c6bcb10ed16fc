"""Tokens and keys for tests of authentication."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

NOW_MS = 1_750_000_000_000
SECRET = b"a secret of thirty-two bytes or so"
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
PRIVATE: dict[str, RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey] = {
    "RS256": RSA_KEY,
    "ES256": EC_KEY,
    "EdDSA": ED_KEY,
}


class FixedClock:
    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms


def jwk(algorithm: str, **more: Any) -> dict[str, Any]:
    key = PRIVATE[algorithm].public_key()
    maker = jwt.get_algorithm_by_name(algorithm)
    made: dict[str, Any] = json.loads(maker.to_jwk(key))
    return {**made, "kid": algorithm.lower(), **more}


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    made = {
        "iss": "tidings",
        "aud": "tidings",
        "sub": "alice",
        "device_id": "phone",
        "iat": NOW_MS // 1000,
        "exp": NOW_MS // 1000 + 3600,
        **changes,
    }
    return {name: value for name, value in made.items() if value is not None}


def hs256(**changes: Any) -> str:
    return jwt.encode(claims(**changes), SECRET, "HS256")


def raw_token(header: object, payload: object, signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(payload).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(p).rstrip(b"=").decode() for p in parts)


def hmac_token(header: object, payload: object, secret: bytes) -> str:
    unsigned = raw_token(header, payload).removesuffix(".")
    mac = hmac.new(secret, unsigned.encode(), hashlib.sha256).digest()
    return f"{unsigned}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
