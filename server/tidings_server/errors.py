"""The one tree of domain errors: everything that the server refuses, with its reason, field and
remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType


class Reason(IntEnum):
    """Why something was refused. Numbers and meaning are those of `tidings.v1.ErrorReason`."""

    INVALID_FIELD = 1
    UNKNOWN_FIELD = 2
    MALFORMED_FRAME = 3
    TOO_LARGE = 4
    HELLO_EXPECTED = 5
    TOKEN_INVALID = 6
    TOKEN_EXPIRED = 7
    CONVERSATION_NOT_FOUND = 8
    MESSAGE_NOT_FOUND = 9
    RIGHT_MISSING = 10
    DENIED = 11
    ID_REUSED = 12
    ID_AHEAD = 13
    PREDECESSOR_MISSING = 14
    OUTCOME_UNKNOWN = 15
    STORE_UNAVAILABLE = 16
    DRAINING = 17
    TOO_MANY_IN_FLIGHT = 18
    POSITION_AHEAD = 19
    MEMBER_LIMIT = 20
    DIRECT_FIXED = 21
    SESSION_REPLACED = 22
    INTERNAL = 23
    INCARNATION_CHANGED = 24
    OTHER_NODE = 25
    EDIT_LIMIT = 26
    REACTION_LIMIT = 27
    PIN_LIMIT = 28
    MEMBER_NOT_FOUND = 30
    LAST_OWNER = 31
    MUTED = 32
    MEMBER_BANNED = 33
    FROZEN = 34
    INVITATION_LIMIT = 35


class Code(IntEnum):
    """The google.rpc.Code of an error."""

    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


CODES: Mapping[Reason, Code] = MappingProxyType(
    {
        Reason.INVALID_FIELD: Code.INVALID_ARGUMENT,
        Reason.UNKNOWN_FIELD: Code.INVALID_ARGUMENT,
        Reason.MALFORMED_FRAME: Code.INVALID_ARGUMENT,
        Reason.TOO_LARGE: Code.RESOURCE_EXHAUSTED,
        Reason.HELLO_EXPECTED: Code.FAILED_PRECONDITION,
        Reason.TOKEN_INVALID: Code.UNAUTHENTICATED,
        Reason.TOKEN_EXPIRED: Code.UNAUTHENTICATED,
        Reason.CONVERSATION_NOT_FOUND: Code.NOT_FOUND,
        Reason.MESSAGE_NOT_FOUND: Code.NOT_FOUND,
        Reason.RIGHT_MISSING: Code.PERMISSION_DENIED,
        Reason.DENIED: Code.PERMISSION_DENIED,
        Reason.ID_REUSED: Code.ALREADY_EXISTS,
        Reason.ID_AHEAD: Code.INVALID_ARGUMENT,
        Reason.PREDECESSOR_MISSING: Code.FAILED_PRECONDITION,
        Reason.OUTCOME_UNKNOWN: Code.UNAVAILABLE,
        Reason.STORE_UNAVAILABLE: Code.UNAVAILABLE,
        Reason.DRAINING: Code.UNAVAILABLE,
        Reason.TOO_MANY_IN_FLIGHT: Code.RESOURCE_EXHAUSTED,
        Reason.POSITION_AHEAD: Code.OUT_OF_RANGE,
        Reason.MEMBER_LIMIT: Code.FAILED_PRECONDITION,
        Reason.DIRECT_FIXED: Code.FAILED_PRECONDITION,
        Reason.SESSION_REPLACED: Code.ABORTED,
        Reason.INTERNAL: Code.INTERNAL,
        Reason.INCARNATION_CHANGED: Code.ABORTED,
        Reason.OTHER_NODE: Code.FAILED_PRECONDITION,
        Reason.EDIT_LIMIT: Code.FAILED_PRECONDITION,
        Reason.REACTION_LIMIT: Code.FAILED_PRECONDITION,
        Reason.PIN_LIMIT: Code.FAILED_PRECONDITION,
        Reason.MEMBER_NOT_FOUND: Code.NOT_FOUND,
        Reason.LAST_OWNER: Code.FAILED_PRECONDITION,
        Reason.MUTED: Code.PERMISSION_DENIED,
        Reason.MEMBER_BANNED: Code.FAILED_PRECONDITION,
        Reason.FROZEN: Code.FAILED_PRECONDITION,
        Reason.INVITATION_LIMIT: Code.FAILED_PRECONDITION,
    }
)
"""The status code of each reason: the only place where the two meet."""


class DomainError(Exception):
    """Something was refused. The text is for developers and holds neither bodies nor tokens nor
    causes inside the server.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        field: str = "",
        retry_after_ms: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        self.retry_after_ms = retry_after_ms
        self.metadata = dict(metadata or {})

    @property
    def code(self) -> Code:
        """The google.rpc.Code."""
        return CODES[self.reason]

    def __repr__(self) -> str:
        return f"DomainError({self.reason.name}, {self.message!r}, field={self.field!r})"


def invalid(field: str, message: str) -> DomainError:
    """A field has a value that is not allowed."""
    return DomainError(Reason.INVALID_FIELD, f"{field}: {message}", field=field)


def conversation_not_found() -> DomainError:
    """The caller may not know of the conversation: the same whether it exists or not."""
    return DomainError(
        Reason.CONVERSATION_NOT_FOUND,
        "There is no such conversation among the caller's.",
        field="conversation_id",
    )


def message_not_found(field: str) -> DomainError:
    """There is no such message, or it is not for the caller: both are answered alike."""
    return DomainError(
        Reason.MESSAGE_NOT_FOUND,
        "There is no such message among those that the caller may read.",
        field=field,
    )


def member_not_found() -> DomainError:
    """A user whom a member names is none."""
    return DomainError(
        Reason.MEMBER_NOT_FOUND, "The user is no member of the conversation.", field="user_id"
    )


def store_unavailable() -> DomainError:
    """The store can't be used now, and nothing was changed."""
    return DomainError(
        Reason.STORE_UNAVAILABLE,
        "The store can't be used at the moment; nothing was changed.",
        retry_after_ms=1000,
    )


def outcome_unknown() -> DomainError:
    """It is not known whether a change was stored."""
    return DomainError(
        Reason.OUTCOME_UNKNOWN,
        "It is not known whether the change was stored; send the same id again to learn it.",
        retry_after_ms=1000,
    )
