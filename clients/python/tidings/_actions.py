"""What the core asks of the shell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from .errors import TidingsError


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Leave this connection and make another, after `delay` seconds or, with None, after the usual backoff."""

    error: TidingsError
    delay: float | None = None


@dataclass(frozen=True, slots=True)
class GoAway:
    """Leave this connection when `delay` seconds are over, or it is gone, and make another."""

    delay: float


@dataclass(frozen=True, slots=True)
class End:
    """Leave this connection and don't connect again, except with another token if that was what was wrong."""

    error: TidingsError


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """Get a new token and give it to `refresh_token`."""


Action: TypeAlias = Reconnect | GoAway | End | RefreshToken
