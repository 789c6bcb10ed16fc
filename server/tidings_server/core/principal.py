"""Who is calling."""

from __future__ import annotations

from dataclasses import dataclass

ADMIN_SCOPE = "admin"
"""The scope of a token that may call AdminService."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A device of a user, as a verified token names it.

    `expires_at_ms` is the token's expiry in milliseconds since the Unix epoch. `scopes` are the
    rights beyond a user's own.
    """

    user_id: str
    device_id: str
    expires_at_ms: int
    scopes: frozenset[str] = frozenset()
