"""Authentication: signed tokens in, principals out."""

from __future__ import annotations

from tidings_server.auth.minting import NoSecret, mint
from tidings_server.auth.policy import KeysUnusable, TokenPolicy
from tidings_server.auth.verifier import TokenVerifier

__all__ = ["KeysUnusable", "NoSecret", "TokenPolicy", "TokenVerifier", "mint"]
