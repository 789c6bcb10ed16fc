"""Domain errors as gRPC statuses, with google.rpc details for programs."""

from __future__ import annotations

import grpc

from ..codec.status import to_status
from ..errors import DomainError

_DETAILS_KEY = "grpc-status-details-bin"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def status_code(problem: DomainError) -> grpc.StatusCode:
    """The gRPC code of an error."""
    return _CODES[problem.code.value]


def trailers(problem: DomainError) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata that tells programs why."""
    return ((_DETAILS_KEY, to_status(problem).SerializeToString()),)
