"""Watches the unary calls of one device: changes go to the ledger, and what is read is held against the truth."""

from __future__ import annotations

from dataclasses import dataclass, field

from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from tidings.v1 import (
    chat_service_pb2,
    conversation_service_pb2,
    error_pb2,
    event_pb2,
    message_pb2,
    message_service_pb2,
    receipt_service_pb2,
)
from tidings_server.errors import Reason

from .attempts import Attempt
from .became import listed_pins
from .network import Status
from .violation import Violation
from .watch import Judge, begin_attempt

_CHANGES: dict[str, tuple[type[Message], type[Message]]] = {
    "SendMessage": (message_pb2.SendMessageRequest, message_pb2.SendMessageResponse),
    "DeleteMessage": (message_pb2.DeleteMessageRequest, message_pb2.DeleteMessageResponse),
    "SetReaction": (message_pb2.SetReactionRequest, message_pb2.SetReactionResponse),
    "SetPin": (message_pb2.SetPinRequest, message_pb2.SetPinResponse),
    "EditMessage": (message_pb2.EditMessageRequest, message_pb2.EditMessageResponse),
    "CreateConversation": (
        conversation_service_pb2.CreateConversationRequest,
        conversation_service_pb2.CreateConversationResponse,
    ),
    "AddMembers": (
        conversation_service_pb2.AddMembersRequest,
        conversation_service_pb2.AddMembersResponse,
    ),
    "RemoveMember": (
        conversation_service_pb2.RemoveMemberRequest,
        conversation_service_pb2.RemoveMemberResponse,
    ),
    "LeaveConversation": (
        conversation_service_pb2.LeaveConversationRequest,
        conversation_service_pb2.LeaveConversationResponse,
    ),
    "UpdateConversation": (
        conversation_service_pb2.UpdateConversationRequest,
        conversation_service_pb2.UpdateConversationResponse,
    ),
    "SetRole": (
        conversation_service_pb2.SetRoleRequest,
        conversation_service_pb2.SetRoleResponse,
    ),
    "SetMute": (
        conversation_service_pb2.SetMuteRequest,
        conversation_service_pb2.SetMuteResponse,
    ),
    "SetBan": (conversation_service_pb2.SetBanRequest, conversation_service_pb2.SetBanResponse),
    "SetInvitation": (
        conversation_service_pb2.SetInvitationRequest,
        conversation_service_pb2.SetInvitationResponse,
    ),
    "JoinConversation": (
        conversation_service_pb2.JoinConversationRequest,
        conversation_service_pb2.JoinConversationResponse,
    ),
    "TransferOwnership": (
        conversation_service_pb2.TransferOwnershipRequest,
        conversation_service_pb2.TransferOwnershipResponse,
    ),
}
_READS: dict[str, tuple[type[Message], type[Message]]] = {
    "GetConversation": (
        conversation_service_pb2.GetConversationRequest,
        conversation_service_pb2.GetConversationResponse,
    ),
    "ListConversations": (
        conversation_service_pb2.ListConversationsRequest,
        conversation_service_pb2.ListConversationsResponse,
    ),
    "ListHistory": (
        message_service_pb2.ListHistoryRequest,
        message_service_pb2.ListHistoryResponse,
    ),
    "ListPins": (message_service_pb2.ListPinsRequest, message_service_pb2.ListPinsResponse),
    "GetMessage": (message_service_pb2.GetMessageRequest, message_service_pb2.GetMessageResponse),
    "MarkRead": (receipt_service_pb2.MarkReadRequest, receipt_service_pb2.MarkReadResponse),
    "MarkDelivered": (
        receipt_service_pb2.MarkDeliveredRequest,
        receipt_service_pb2.MarkDeliveredResponse,
    ),
    "ListReceipts": (
        receipt_service_pb2.ListReceiptsRequest,
        receipt_service_pb2.ListReceiptsResponse,
    ),
}


@dataclass(slots=True)
class _Call:
    method: str
    request: Message | None
    attempts: list[Attempt] = field(default_factory=list)
    name: str = ""
    # The receipts known to be in force when the call was made: (delivered, read) by user.
    marks: dict[str, tuple[int, int]] = field(default_factory=dict)
    # How far the log was known when the call was made.
    known: int = 0


class CallWatch:
    """The unary calls of one device."""

    def __init__(self, judge: Judge, user: str, device: str) -> None:
        self._judge = judge
        self.user = user
        self.who = f"{user}/{device}"
        self._calls: list[_Call] = []

    def called(self, method: str, request: bytes, copies: int) -> int:
        """See `network.CallWatch`."""
        name = method.rpartition("/")[2]
        kinds = _CHANGES.get(name) or _READS.get(name)
        call = _Call(name, kinds[0].FromString(request) if kinds else None)
        if call.request is not None:
            for _ in range(copies):
                attempt, call.name = begin_attempt(self._judge, self.user, self.who, call.request)
                if attempt is not None:
                    call.attempts.append(attempt)
        call.known = self._judge.known.get(getattr(call.request, "conversation_id", ""), 0)
        if name == "ListReceipts":
            marks = self._judge.marks
            conversation = getattr(call.request, "conversation_id", "")
            for user in self._judge.truth.log(conversation).stays:
                key = (conversation, user)
                call.marks[user] = (marks.delivered.get(key, 0), marks.read.get(key, 0))
        self._calls.append(call)
        return len(self._calls) - 1

    def served(self, number: int, answer: bytes | Status) -> None:
        """See `network.CallWatch`."""
        call = self._calls[number]
        try:
            if isinstance(answer, Status):
                self._refused(call, error_of(answer))
            elif call.method in _CHANGES:
                self._changed(call, _CHANGES[call.method][1].FromString(answer))
            elif call.method in _READS:
                self._read(call, _READS[call.method][1].FromString(answer))
        except Violation as violation:
            self._judge.report(violation)

    def _refused(self, call: _Call, error: error_pb2.Error) -> None:
        if error.reason == Reason.INTERNAL:  # type: ignore[comparison-overlap]
            raise Violation("internal", f"{self.who}: {call.method}: {error.message}")
        if call.attempts:
            self._judge.outcome(call.attempts.pop(), call.name, 0, error)

    def _changed(self, call: _Call, answer: Message) -> None:
        if not call.attempts:
            return
        name, seq = call.name, 1
        if isinstance(answer, conversation_service_pb2.CreateConversationResponse):
            name = answer.conversation.conversation_id
        else:
            seq = answer.seq  # type: ignore[attr-defined]
        self._judge.outcome(call.attempts.pop(), name, seq, None)

    def _read(self, call: _Call, answer: Message) -> None:
        request = call.request
        name: str = getattr(request, "conversation_id", "")
        judge, user = self._judge, self.user
        match answer:
            case message_service_pb2.ListHistoryResponse():
                assert isinstance(request, message_service_pb2.ListHistoryRequest)
                self._history(request, answer, call.known)
            case message_service_pb2.ListPinsResponse():
                self._pins(name, answer, call.known)
            case message_service_pb2.GetMessageResponse():
                entry = answer.entry
                raw = event_pb2.Event(entry=entry).SerializeToString()
                judge.shown(user, name, entry.seq, raw, self.who, call.known)
                state = answer.state if answer.HasField("state") else None
                if state is not None:
                    judge.state_told(user, state, self.who)
                judge.fetched(user, name, entry.seq, state, call.known, self.who)
            case receipt_service_pb2.MarkReadResponse():
                judge.mark_told(name, user, 0, answer.read_seq, self.who)
            case conversation_service_pb2.GetConversationResponse():
                judge.conversation_told(user, answer.conversation, self.who)
            case conversation_service_pb2.ListConversationsResponse():
                for conversation in answer.conversations:
                    judge.conversation_told(user, conversation, self.who)
            case receipt_service_pb2.MarkDeliveredResponse():
                judge.mark_told(name, user, answer.delivered_seq, 0, self.who)
            case receipt_service_pb2.ListReceiptsResponse():
                for r in answer.receipts:
                    judge.mark_told(name, r.user_id, r.delivered_seq, r.read_seq, self.who)
                    delivered, read = call.marks.get(r.user_id, (0, 0))
                    if r.delivered_seq < delivered or r.read_seq < read:
                        raise Violation(
                            "I7",
                            f"{name}: {r.user_id} went back from {delivered}/{read} "
                            f"to {r.delivered_seq}/{r.read_seq}",
                        )

    def _pins(self, name: str, answer: message_service_pb2.ListPinsResponse, known: int) -> None:
        events = chat_service_pb2.ChatResponse(events=answer.events).events
        states = {e.message_state.seq: e.message_state for e in events if not e.HasField("entry")}
        entries = [event for event in events if event.HasField("entry")]
        seqs = [event.entry.seq for event in entries]
        listed_pins(self._judge.truth.log(name), self.user, seqs, known, self.who)
        for event in entries:
            seq, raw = event.entry.seq, event.SerializeToString()
            self._judge.shown(self.user, name, seq, raw, self.who, known)
            self._judge.state_told(self.user, states[seq], self.who)
            self._judge.fetched(self.user, name, seq, states[seq], known, self.who)

    def _history(
        self,
        request: message_service_pb2.ListHistoryRequest,
        answer: message_service_pb2.ListHistoryResponse,
        known: int,
    ) -> None:
        name = request.conversation_id
        events = chat_service_pb2.ChatResponse(events=answer.events).events
        seqs: list[int] = []
        states = {e.message_state.seq: e.message_state for e in events if not e.HasField("entry")}
        for event in events:
            if event.HasField("message_state"):
                if not seqs or seqs[-1] != event.message_state.seq:
                    raise Violation("I4", f"{self.who}: a state of {name} follows no message")
                self._judge.state_told(self.user, event.message_state, self.who)
                continue
            seqs.append(event.entry.seq)
            raw = event.SerializeToString()
            self._judge.shown(self.user, name, event.entry.seq, raw, self.who, known)
            state = states.get(event.entry.seq)
            self._judge.fetched(self.user, name, event.entry.seq, state, known, self.who)
        if not seqs:
            return
        upwards = request.order == message_service_pb2.HISTORY_ORDER_ASCENDING
        ascending = seqs if upwards else seqs[::-1]
        visible = self._judge.truth.log(name).visible_seqs(self.user)
        at = visible.index(ascending[0])
        if visible[at : at + len(ascending)] != ascending:
            raise Violation("I4", f"{self.who}: the history of {name} has holes: {seqs}")


def error_of(status: Status) -> error_pb2.Error:
    """The error that a status carries."""
    error = error_pb2.Error(code=status.code.value[0], message=status.details)
    for key, value in status.trailers:
        if key != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                error.reason = Reason[info.reason].value  # type: ignore[assignment]
                error.metadata.update(info.metadata)
    return error
