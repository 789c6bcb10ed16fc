"""Domain errors as gRPC statuses, with google.rpc details for programs."""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from ..errors import DomainError

DOMAIN = "tidings"
_DETAILS_KEY = "grpc-status-details-bin"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def status_code(problem: DomainError) -> grpc.StatusCode:
    """The gRPC code of an error."""
    return _CODES[problem.code.value]


def trailers(problem: DomainError) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata that tells programs why: ErrorInfo, BadRequest for a field, RetryInfo
    where waiting helps.
    """
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=problem.reason.name, domain=DOMAIN, metadata=problem.metadata
        )
    ]
    if problem.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=problem.field, description=problem.message
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if problem.retry_after_ms is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(problem.retry_after_ms)
        details.append(retry)
    status = status_pb2.Status(code=problem.code.value, message=problem.message)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return ((_DETAILS_KEY, status.SerializeToString()),)
