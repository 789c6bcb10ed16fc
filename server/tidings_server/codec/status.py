"""Domain errors as google.rpc.Status, with details for programs."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from ..errors import DomainError

DOMAIN = "tidings"


def to_status(problem: DomainError) -> status_pb2.Status:
    """The status of an error, with ErrorInfo, BadRequest for a field, and RetryInfo where waiting helps."""
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
    return status
