"""How a WebSocket is closed: codes that say whether to connect again (docs/bridge.md)."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import Code, DomainError, Reason

AGAIN = 4000
"""Plus the gRPC status: connect again."""
STOP = 4100
"""Plus the gRPC status: the same would end the same way."""
MAX_REASON_BYTES = 123
_STOPS = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.ALREADY_EXISTS,
        Code.PERMISSION_DENIED,
        Code.OUT_OF_RANGE,
        12,  # UNIMPLEMENTED, which this server never says, but one elsewhere may
    }
)


@dataclass(frozen=True, slots=True)
class Close:
    """A close code and its reason, the name of an `ErrorReason` or else of a gRPC status."""

    code: int
    reason: str


GOING_AWAY = Close(AGAIN + Code.UNAVAILABLE, Reason.DRAINING.name)
LEFT = Close(AGAIN + 1, "CANCELLED")
NO_ANSWER = Close(AGAIN + 4, "DEADLINE_EXCEEDED")
SILENT = Close(AGAIN + Code.FAILED_PRECONDITION, Reason.HELLO_EXPECTED.name)
FAULT = Close(AGAIN + Code.INTERNAL, Reason.INTERNAL.name)


def close_for(status: int, name: str, reason: str, *, waiting_helps: bool = False) -> Close:
    """How to close for a gRPC status, its name, and the name of an `ErrorReason`, empty when there is none.

    What came without a reason is no answer of a server: trying again may help whatever it is.
    """
    stop = status in _STOPS and reason != ""
    if reason == Reason.SESSION_REPLACED.name:
        stop = True
    elif reason == Reason.TOKEN_INVALID.name:
        stop = not waiting_helps
    return Close((STOP if stop else AGAIN) + status, (reason or name)[:MAX_REASON_BYTES])


def close_of(problem: DomainError) -> Close:
    """How to close for an error."""
    code, helps = problem.code, problem.retry_after_ms is not None
    return close_for(code, code.name, problem.reason.name, waiting_helps=helps)
