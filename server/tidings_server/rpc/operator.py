"""What an operator asks of a server from the command line: AdminService as lines of text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tidings.v1 import admin_service_pb2 as pb
from tidings.v1.admin_service_pb2_grpc import AdminServiceStub

T = TypeVar("T", bound=Message)

_DEADLINE_S = 30.0


class Unanswered(Exception):
    """A server gave no answer; the text says why, in a line."""


class Operator:
    """Asks one server, over TLS when `tls`, believing these authorities (PEM) or else the system's. Its methods raise
    Unanswered.
    """

    def __init__(
        self, address: str, token: str, *, tls: bool = False, authorities: bytes | None = None
    ) -> None:
        self._address = address
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._credentials = grpc.ssl_channel_credentials(authorities) if tls else None

    def nodes(self) -> Iterator[str]:
        """A line for each node that lives."""
        answer = self._ask(lambda stub: stub.ListNodes, pb.ListNodesRequest(), pb.ListNodesResponse)
        for node in answer.nodes:
            told = f"{node.node_id}  {node.version or '-'}  {node.address or '-'}"
            if node.answering:
                load, state = node.load, pb.NodeState.Name(node.state)
                state = state.removeprefix("NODE_STATE_").lower()
                told += (
                    f"  {state}, answering: {load.sessions} sessions of {load.users} users,"
                    f" {load.followed_logs} logs followed, {load.loaded_logs} loaded,"
                    f" {load.outbox_bytes} bytes in outboxes"
                )
            yield told

    def sessions(self, user: str = "") -> Iterator[str]:
        """A line for each session of the node that answers, and one for each node that was not asked."""
        request = pb.ListSessionsRequest(user_id=user, page_size=1000)
        while True:
            answer = self._ask(lambda stub: stub.ListSessions, request, pb.ListSessionsResponse)
            for s in answer.sessions:
                state = f"lags in {s.lagging_logs}" if s.lagging_logs else "level"
                state = "syncing" if s.syncing else state
                yield (
                    f"{s.session_id}  {s.user_id}  {s.device_id}  since {_time(s.open_time)}  {state},"
                    f" {s.unacknowledged} of {s.window} unacknowledged, {s.outbox_bytes} bytes in its outbox"
                )
            request.page_token = answer.next_page_token
            if not request.page_token:
                break
        for node_id in answer.other_node_ids:
            yield f"(not asked: node {node_id})"

    def explain(
        self, conversation: str, message: str, user: str, devices: Sequence[str]
    ) -> Iterator[str]:
        """What became of a message, in a line, and a line for each fact. `message` is its id or its position."""
        request = pb.ExplainDeliveryRequest(
            conversation_id=conversation, user_id=user, device_ids=devices
        )
        if message.isdecimal() and len(message) < 19:
            request.seq = int(message)
        else:
            request.message_id = message
        told = self._ask(lambda stub: stub.ExplainDelivery, request, pb.ExplainDeliveryResponse)
        line = pb.DeliveryOutcome.Name(told.outcome).removeprefix("DELIVERY_OUTCOME_")
        if told.seq:
            line += f": {told.entry_kind} {told.message_id} of {told.sender_user_id} at {told.seq}"
        yield f"{line} (head {told.head_seq}; asked of node {told.node_id})"
        for f in told.facts:
            who = f" [{f.device_id}]" if f.device_id else ""
            when = f" ({_time(f.time)})" if f.HasField("time") else ""
            step = pb.DeliveryStep.Name(f.step).removeprefix("DELIVERY_STEP_").lower()
            state = pb.FactState.Name(f.state).removeprefix("FACT_STATE_").lower()
            yield f"  {state:<8}{step}{who}: {f.text}{when}"
        for note in told.notes:
            yield f"  {_time(note.time)}  session {note.session_id} [{note.device_id}] {note.text}"

    def _channel(self) -> grpc.Channel:
        if self._credentials is None:
            return grpc.insecure_channel(self._address)
        return grpc.secure_channel(self._address, self._credentials)

    def _ask(self, method: Callable[[Any], Any], request: Message, kind: type[T]) -> T:
        with self._channel() as channel:
            try:
                answer = method(AdminServiceStub(channel))(
                    request, metadata=self._metadata, timeout=_DEADLINE_S
                )
            except grpc.RpcError as problem:
                # Every error of a call is a call too, which the types don't know.
                call: Any = problem
                text = f"{self._address}: {call.code().name}: {call.details()}"
                raise Unanswered(text.replace("\n", " ")) from None
        assert isinstance(answer, kind)
        return answer


def _time(time: Timestamp) -> str:
    moment = datetime.fromtimestamp(time.seconds, UTC).replace(microsecond=time.nanos // 1000)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
