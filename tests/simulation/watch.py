"""Watches over devices: every frame and call of each is held against the truth at the moment when it leaves the server.

What the server says is judged when it says it, not when it arrives: what isn't durable then may not be told, even if
it would be a moment later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from tidings.v1 import (
    conversation_pb2,
    conversation_service_pb2,
    entry_pb2,
    error_pb2,
    event_pb2,
    message_pb2,
)
from tidings_server.errors import Reason

from . import rules
from .attempts import Attempt, Ledger
from .became import asked_as, erased, fresh, told, without_content
from .truth import Log, Truth
from .violation import Violation

if TYPE_CHECKING:
    from .loop import SimLoop

_REASONS = {reason.value: reason.name for reason in Reason}


def reason_name(error: error_pb2.Error) -> str:
    """The name of an error's reason."""
    return _REASONS.get(error.reason, str(error.reason))


@dataclass(slots=True)
class Marks:
    """The largest receipts of a (conversation, user) that anybody was told to be in force."""

    delivered: dict[tuple[str, str], int] = field(default_factory=dict)
    read: dict[tuple[str, str], int] = field(default_factory=dict)


class Judge:
    """What all watches share: the truth, the ledger, and whom to tell of violations and of what happens."""

    def __init__(
        self,
        loop: SimLoop,
        truth: Callable[[], Truth],
        report: Callable[[Violation], None],
        story: Callable[[str, str], None],
    ) -> None:
        self.loop = loop
        self._truth = truth
        self.report = report
        self.story = story
        self.ledger = Ledger()
        self.marks = Marks()
        self.known: dict[str, int] = {}
        """The newest position of each log that anybody was told of."""
        self.checks = 0
        self.ended: dict[str, Truth] = {}
        """The histories that ended in a restore, by their incarnations."""

    @property
    def truth(self) -> Truth:
        """What the disk holds now."""
        return self._truth()

    def truth_of(self, incarnation: str) -> Truth:
        """The history of an incarnation; of one that isn't known, or none, the present one."""
        return self.ended.get(incarnation) or self.truth

    def appeared(self, log: Log, entry: entry_pb2.Entry) -> None:
        """An entry was committed. Raises Violation when it may not be."""
        self.ledger.appeared(log, entry)

    def shown(self, user: str, name: str, seq: int, raw: bytes, who: str, known: int = 0) -> None:
        """An entry is given to a user. Raises Violation when it is another than the stored one, or not theirs, or was
        erased by an entry up to `known`, the position up to which the log was known when it was asked for.
        """
        self.checks += 1
        self.known[name] = max(self.known.get(name, 0), seq)
        log = self.truth.log(name)
        where = f"{name}:{seq}"
        if not 1 <= seq <= log.head:
            raise Violation("I4", f"{where} is given to {who}, and isn't stored")
        if raw != log.raw[seq - 1]:
            left = event_pb2.Event(entry=without_content(log.entries[seq - 1]))
            if seq not in erased(log, log.head) or raw != left.SerializeToString():
                raise Violation("I4", f"{where} is given to {who} other than it is stored")
        elif seq in erased(log, known):
            raise Violation("erasure", f"{where} is given to {who}, and was erased")
        if not log.visible(user, seq):
            raise Violation("I9", f"{where} is given to {who}, who may not see it")

    def state_told(self, user: str, state: message_pb2.MessageState, who: str) -> None:
        """What became of a message is told. Raises Violation when that is not so."""
        self.checks += 1
        told(self.truth.log(state.conversation_id), user, state, who)

    def fetched(
        self,
        user: str,
        name: str,
        seq: int,
        state: message_pb2.MessageState | None,
        known: int,
        who: str,
    ) -> None:
        """A message was fetched, when the log was known up to a position. Raises Violation."""
        if not name.startswith("inbox:"):
            fresh(self.truth.log(name), user, seq, state, known, who)

    def conversation_told(
        self, user: str, conversation: conversation_pb2.Conversation, who: str
    ) -> None:
        """A conversation is told. Raises Violation when it is another than its entries say."""
        self.checks += 1
        rules.told(self.truth.log(conversation.conversation_id), user, conversation, who)

    def mark_told(self, name: str, user: str, delivered: int, read: int, who: str) -> None:
        """A receipt is told. Raises Violation when it lies beyond the head."""
        head = self.truth.log(name).head
        if max(delivered, read) > head:
            raise Violation(
                "I7", f"{name}: {user} at {delivered}/{read} is told to {who}, the head is {head}"
            )
        key = (name, user)
        marks = self.marks
        marks.delivered[key] = max(marks.delivered.get(key, 0), delivered)
        marks.read[key] = max(marks.read.get(key, 0), read)

    def outcome(
        self, attempt: Attempt, log_name: str, seq: int, error: error_pb2.Error | None
    ) -> None:
        """A change that was asked for has ended. Raises Violation."""
        self.checks += 1
        if error is not None:
            self.ledger.refused(attempt, self.truth, error)
        elif seq:
            self.known[log_name] = max(self.known.get(log_name, 0), seq)
            self.ledger.acknowledged(attempt, self.truth, log_name, seq)


def begin_attempt(
    judge: Judge, user: str, who: str, request: Message
) -> tuple[Attempt | None, str]:
    """Notes a change that is asked for; gives its conversation too, for whatever request."""
    name: str = getattr(request, "conversation_id", "")
    if isinstance(request, message_pb2.SendMessageRequest):
        content, change_id = request.content.SerializeToString(), request.message_id
    elif isinstance(
        request,
        message_pb2.EditMessageRequest
        | message_pb2.DeleteMessageRequest
        | message_pb2.SetReactionRequest
        | message_pb2.SetPinRequest,
    ):
        content, change_id = asked_as(request), request.request_id
    elif isinstance(request, conversation_service_pb2.CreateConversationRequest):
        if not request.request_id:
            return None, ""
        name, content, change_id = "create", b"conversation_created", request.request_id
    elif isinstance(request, conversation_service_pb2.AddMembersRequest):
        content, change_id = b"members_added", request.request_id
    elif isinstance(
        request,
        conversation_service_pb2.RemoveMemberRequest
        | conversation_service_pb2.LeaveConversationRequest,
    ):
        content, change_id = b"member_removed", request.request_id
    elif isinstance(request, conversation_service_pb2.UpdateConversationRequest):
        content, change_id = b"conversation_updated", request.request_id
    elif isinstance(
        request,
        conversation_service_pb2.SetRoleRequest | conversation_service_pb2.TransferOwnershipRequest,
    ):
        content, change_id = b"member_role_set", request.request_id
    elif isinstance(request, conversation_service_pb2.SetInvitationRequest):
        content, change_id = b"invitation_set", request.request_id
    elif isinstance(request, conversation_service_pb2.JoinConversationRequest):
        content, change_id = b"members_added", request.request_id
    elif isinstance(request, conversation_service_pb2.SetMuteRequest):
        content, change_id = b"member_muted", request.request_id
    elif isinstance(request, conversation_service_pb2.SetBanRequest):
        content, change_id = b"ban", request.request_id
    else:
        return None, name
    attempt = judge.ledger.begin((name, user, change_id), content, who, judge.truth)
    return attempt, name
