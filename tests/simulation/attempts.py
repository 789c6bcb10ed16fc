"""What was asked under which id, and what was answered: the ledger that acknowledgements and refusals are held to."""

from __future__ import annotations

from dataclasses import dataclass, field

from tidings.v1 import entry_pb2, error_pb2, message_pb2

from .became import answerable, content_of, erased
from .truth import OPEN, Log, Truth
from .violation import Violation

_TEXT = b"\x0a"
"""How the content of a message begins; other commands begin with their names."""

Key = tuple[str, str, str]
"""Conversation (or "create"), user, id."""


@dataclass(slots=True, eq=False)
class Attempt:
    """One sending of one change. `content` is what identifies it: the message's bytes, or the command. `truth` and
    `head` are the history when it was sent, and where the conversation stood.
    """

    key: Key
    content: bytes
    by: str
    truth: Truth
    head: int
    refused: bool = False
    acked: int = 0


@dataclass(slots=True)
class Ledger:
    """All attempts of a run."""

    attempts: dict[Key, list[Attempt]] = field(default_factory=dict)
    acks: int = 0
    refusals: int = 0
    repeats: int = 0

    def begin(self, key: Key, content: bytes, by: str, truth: Truth) -> Attempt:
        """A change is asked for."""
        log = truth.logs.get(key[0])
        attempt = Attempt(key, content, by, truth, log.head if log else 0)
        known = self.attempts.setdefault(key, [])
        self.repeats += bool(known)
        known.append(attempt)
        return attempt

    def appeared(self, log: Log, entry: entry_pb2.Entry) -> None:
        """An entry was committed. Raises Violation when nobody asked for it, or it was refused."""
        if log.name.startswith("inbox:"):
            return
        kind = entry.WhichOneof("body")
        if kind == "conversation_created":
            if log.kind == 1:
                return
            key = ("create", entry.user_id, entry.id)
        else:
            key = (log.name, entry.user_id, entry.id)
        where = f"{log.name}:{entry.seq} ({entry.id} of {entry.user_id})"
        attempts = self.attempts.get(key)
        if not attempts:
            raise Violation("I4", f"{where} was never sent")
        content = content_of(entry)
        same = [a for a in attempts if a.content == content]
        if not same:
            raise Violation("I4", f"{where} has other content than what was sent")
        if all(a.refused for a in same):
            raise Violation("I6", f"{where} was refused, and appears")

    def acknowledged(self, attempt: Attempt, truth: Truth, log_name: str, seq: int) -> None:
        """The server says that a change is durable. Raises Violation when it isn't."""
        self.acks += 1
        _, user, change_id = attempt.key
        attempt.acked = seq
        log = truth.log(log_name)
        where = f"{log_name}:{seq}"
        if seq > log.head:
            raise Violation("I1", f"{where} was acknowledged to {attempt.by}, and isn't durable")
        entry = log.entries[seq - 1]
        if (entry.user_id, entry.id) != (user, change_id):
            raise Violation(
                "I1", f"{where} was acknowledged to {attempt.by} for {change_id}, and is {entry.id}"
            )
        content = content_of(entry)
        # Of what was erased nobody can tell what it said.
        if content != attempt.content and seq not in erased(log, log.head):
            raise Violation("I2", f"{where} was acknowledged for content that it doesn't have")

    def refused(self, attempt: Attempt, truth: Truth, error: error_pb2.Error) -> None:
        """The server says no. Raises Violation when it may not."""
        reason = error_pb2.ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
        if reason == "OUTCOME_UNKNOWN":
            return
        self.refusals += 1
        attempt.refused = True
        log_name, user, change_id = attempt.key
        if log_name == "create":
            log_name = truth.created.get((user, change_id), "")
        log = truth.log(log_name)
        stay = log.stays[user][-1] if user in log.stays else None
        if (
            reason == "CONVERSATION_NOT_FOUND"
            and attempt.truth is truth
            and stay is not None
            and stay.first <= attempt.head
            and stay.last == OPEN
        ):
            raise Violation(
                "decision", f"{log_name}: {user}, a member all the time, was refused as a stranger"
            )
        if reason == "MESSAGE_NOT_FOUND" and _reply_is_there(attempt, truth, log, user):
            raise Violation(
                "decision", f"{log_name}: {user} was refused a reply to what can be read"
            )
        seq = log.by_id.get((user, change_id))
        if seq is None:
            if reason == "ID_REUSED" and attempt.key[0] != "create":
                raise Violation("I2", f"{change_id} of {user} was never used in {log_name}")
            return
        where = f"{log_name}:{seq} ({change_id} of {user})"
        entry = log.entries[seq - 1]
        content = content_of(entry)
        if reason == "ID_REUSED":
            if error.metadata.get("seq") != str(seq):
                raise Violation("I2", f"{where}: ID_REUSED names {error.metadata.get('seq')}")
            if content == attempt.content:
                raise Violation("I2", f"{where}: ID_REUSED for the same content")
            return
        others = self.attempts[attempt.key]
        if all(a.refused for a in others if a.content == content):
            raise Violation("I6", f"{where} was refused ({reason}), and is there")

    def forget_lost(self, truth: Truth) -> None:
        """After a restore: forgets acknowledgements of what is no more."""
        for attempts in self.attempts.values():
            for attempt in attempts:
                log_name, user, change_id = attempt.key
                if log_name == "create":
                    log_name = truth.created.get((user, change_id), "")
                log = truth.logs.get(log_name)
                if log is None or (user, change_id) not in log.by_id:
                    attempt.acked = 0

    def check(self, truth: Truth) -> None:
        """At the end: I1. Raises Violation."""
        for (log_name, user, change_id), attempts in self.attempts.items():
            for attempt in attempts:
                if not attempt.acked:
                    continue
                if log_name == "create":
                    log_name = truth.created.get((user, change_id), "")  # noqa: PLW2901
                if truth.log(log_name).by_id.get((user, change_id)) != attempt.acked:
                    raise Violation(
                        "I1", f"{log_name}:{attempt.acked} ({change_id} of {user}) is lost"
                    )


def _reply_is_there(attempt: Attempt, truth: Truth, log: Log, user: str) -> bool:
    """Whether a message that was sent replied to nothing, or to what its sender could read all the time."""
    if attempt.truth is not truth or not attempt.content.startswith(_TEXT):
        return False
    content = message_pb2.MessageContent.FromString(attempt.content)
    return not content.reply_to_message_id or answerable(log, user, content, attempt.head)
