"""What nodes ask each other about a message that an operator asks about: `WitnessRequest` and `WitnessResponse`."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from tidings.v1 import admin_service_pb2, node_service_pb2

from ..core import admin as a
from ..core import commands as c
from .events import to_response
from .fields import to_ms
from .requests import RequestReader


def question(asked: a.ExplainDelivery) -> bytes:
    """A `WitnessRequest`."""
    request = admin_service_pb2.ExplainDeliveryRequest(
        conversation_id=asked.conversation_id,
        user_id=asked.user_id,
        device_ids=asked.device_ids,
    )
    if asked.id is None:
        request.seq = asked.seq
    else:
        request.message_id = asked.id.text
    return node_service_pb2.WitnessRequest(question=request).SerializeToString()


def read_question(frame: bytes, reader: RequestReader) -> a.ExplainDelivery:
    """What is asked. Raises ValueError when the bytes are no question, and DomainError."""
    try:
        request = node_service_pb2.WitnessRequest.FromString(frame)
    except DecodeError as problem:
        raise ValueError("no tidings.v1.WitnessRequest") from problem
    asked: c.Command = reader.read(request.question)
    assert isinstance(asked, a.ExplainDelivery)
    return asked


def answer(told: a.DeliveryExplained) -> bytes:
    """A `WitnessResponse`."""
    explained = to_response(told)
    assert isinstance(explained, admin_service_pb2.ExplainDeliveryResponse)
    return node_service_pb2.WitnessResponse(answer=explained).SerializeToString()


def read_answer(frame: bytes) -> a.DeliveryExplained:
    """What a node tells. Raises ValueError when the bytes are no answer, or say what this version does not know."""
    try:
        told = node_service_pb2.WitnessResponse.FromString(frame).answer
    except DecodeError as problem:
        raise ValueError("no tidings.v1.WitnessResponse") from problem
    entry = None
    if told.seq:
        entry = a.ExplainedEntry(
            told.seq,
            told.message_id,
            told.sender_user_id,
            told.entry_kind,
            to_ms(told.commit_time),
        )
    return a.DeliveryExplained(
        a.DeliveryOutcome(told.outcome),
        tuple(_fact(f) for f in told.facts),
        entry,
        told.message_id,
        told.head_seq,
        told.node_id,
        tuple(a.SessionNote(to_ms(n.time), n.device_id, n.session_id, n.text) for n in told.notes),
    )


def _fact(f: admin_service_pb2.DeliveryFact) -> a.DeliveryFact:
    return a.DeliveryFact(
        a.DeliveryStep(f.step),
        a.FactState(f.state),
        f.text,
        a.FactSource(f.source),
        a.FactCause(f.cause),
        time_ms=to_ms(f.time),
        seq=f.seq,
        node_id=f.node_id,
        device_id=f.device_id,
        session_id=f.session_id,
    )
