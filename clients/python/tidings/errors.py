"""The errors of the SDK: one tree, by the codes of google.rpc.Code."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Cancelled",
    "ClientClosed",
    "Code",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "StateError",
    "TidingsError",
    "Unauthenticated",
    "Unavailable",
    "error_for",
]


class Code(enum.IntEnum):
    """google.rpc.Code, the codes of gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @classmethod
    def _missing_(cls, value: object) -> Code | None:
        return cls.UNKNOWN if isinstance(value, int) else None


_NO_METADATA: Mapping[str, str] = MappingProxyType({})


class TidingsError(Exception):
    """What the server or the SDK refused, and why.

    Attributes:
        code: The kind of failure.
        reason: Why, for programs: a name of ErrorReason without its prefix, such as "ID_REUSED"; empty when the failure
            doesn't come from a Tidings server (a network, a proxy, the SDK itself).
        message: A sentence for developers.
        field: The path of the request's field at fault, or empty.
        retry_after: Seconds to wait before trying again, or None where waiting doesn't help or isn't known.
        metadata: Further facts, such as "seq" for ID_REUSED.
    """

    code: Code = Code.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: Code | None = None,
        reason: str = "",
        field: str = "",
        retry_after: float | None = None,
        metadata: Mapping[str, str] = _NO_METADATA,
    ) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        self.reason = reason
        self.message = message
        self.field = field
        self.retry_after = retry_after
        self.metadata = metadata

    def __str__(self) -> str:
        name = f"{self.code.name} ({self.reason})" if self.reason else self.code.name
        return f"{name}: {self.field}: {self.message}" if self.field else f"{name}: {self.message}"


class Cancelled(TidingsError):
    """The call was given up by its caller."""

    code = Code.CANCELLED


class ClientClosed(Cancelled):
    """The client was closed while this was waiting, or before it was asked for."""


class StateError(TidingsError):
    """The state store can't be used: locked by another process, of another user or device, or of a newer version."""

    code = Code.FAILED_PRECONDITION


class InvalidArgument(TidingsError):
    """A field of the request is missing or has a value that is not allowed; `field` names it."""

    code = Code.INVALID_ARGUMENT


class DeadlineExceeded(TidingsError):
    """No answer came in time. A change may have been made: the same id sent again tells."""

    code = Code.DEADLINE_EXCEEDED


class NotFound(TidingsError):
    """There is no such thing, or the user may not see it: both answer alike."""

    code = Code.NOT_FOUND


class AlreadyExists(TidingsError):
    """The id was used before for something else."""

    code = Code.ALREADY_EXISTS


class PermissionDenied(TidingsError):
    """The user may not do this."""

    code = Code.PERMISSION_DENIED


class ResourceExhausted(TidingsError):
    """A limit of size or rate was reached."""

    code = Code.RESOURCE_EXHAUSTED


class FailedPrecondition(TidingsError):
    """The conversation or the session is not in a state that allows this."""

    code = Code.FAILED_PRECONDITION


class Aborted(TidingsError):
    """Something else came between; trying again may help."""

    code = Code.ABORTED


class OutOfRange(TidingsError):
    """A position lies outside the log."""

    code = Code.OUT_OF_RANGE


class Internal(TidingsError):
    """A fault of the server."""

    code = Code.INTERNAL


class Unavailable(TidingsError):
    """The server or its store can't be reached now; trying again helps."""

    code = Code.UNAVAILABLE


class Unauthenticated(TidingsError):
    """The token is missing, expired or refused."""

    code = Code.UNAUTHENTICATED


_BY_CODE: Mapping[Code, type[TidingsError]] = {
    kind.code: kind
    for kind in (
        Cancelled,
        InvalidArgument,
        DeadlineExceeded,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        ResourceExhausted,
        FailedPrecondition,
        Aborted,
        OutOfRange,
        Internal,
        Unavailable,
        Unauthenticated,
    )
}


def error_for(
    code: Code,
    message: str,
    *,
    reason: str = "",
    field: str = "",
    retry_after: float | None = None,
    metadata: Mapping[str, str] = _NO_METADATA,
) -> TidingsError:
    """The error of the class that belongs to a code."""
    return _BY_CODE.get(code, TidingsError)(
        message,
        code=code,
        reason=reason,
        field=field,
        retry_after=retry_after,
        metadata=metadata,
    )
