"""A small honest server for the tests of the SDK: it keeps the protocol, checks that the client does, and does its work
only when told to. It is a double of what stands behind the transport; the SDK runs for real.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tidings.v1 import (
    chat_service_pb2,
    conversation_pb2,
    entry_pb2,
    error_pb2,
    event_pb2,
    message_pb2,
)

SKEW_MS = 5 * 60 * 1000
OPEN_END = 1 << 62
GROUP = conversation_pb2.CONVERSATION_KIND_GROUP


def id_time(message_id: str) -> int:
    """The time of a UUIDv7, checked to be one."""
    assert len(message_id) == 36, message_id
    assert message_id == message_id.lower(), message_id
    assert message_id[14] == "7", message_id
    assert message_id[19] in "89ab", message_id
    return int(message_id[:8] + message_id[9:13], 16)


def timestamp(ms: int) -> Timestamp:
    return Timestamp(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)


def error(code: int, reason: str, **fields: object) -> error_pb2.Error:
    return error_pb2.Error(
        code=code,
        reason=error_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}"),
        message=reason.lower(),
        **fields,  # type: ignore[arg-type]
    )


UNAVAILABLE = error(14, "STORE_UNAVAILABLE")
UNKNOWN_OUTCOME = error(14, "OUTCOME_UNKNOWN")
EXHAUSTED = error(8, "TOO_MANY_IN_FLIGHT", retry_delay=Duration(seconds=1))
ABORTED = error(10, "INCARNATION_CHANGED")
INTERNAL = error(13, "INTERNAL")
RETRYABLE = (UNAVAILABLE, EXHAUSTED, ABORTED, INTERNAL)
DENIED = error(7, "RIGHT_MISSING")
NOT_FOUND = error(5, "CONVERSATION_NOT_FOUND")


@dataclass
class Log:
    """A log: its entries, and who may see what of it."""

    name: str
    entries: list[entry_pb2.Entry] = field(default_factory=list)
    visible: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    ids: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def head(self) -> int:
        return len(self.entries)

    def member(self, user: str) -> bool:
        return self.visible.get(user, [(0, 0)])[-1][1] == OPEN_END

    def end(self, user: str) -> int:
        return min(self.head, self.visible[user][-1][1])

    def parts(self, user: str, first: int, last: int) -> Iterator[tuple[str, int, int]]:
        """What a user sees of some positions: ("show" | "skip", first, last)."""
        for low, high in self.visible[user]:
            if first < low and first <= last:
                yield "skip", first, min(low - 1, last)
                first = low
            if first <= min(high, last):
                yield "show", first, min(high, last)
                first = min(high, last) + 1


class ModelServer:
    """All logs, in memory, durable by decree."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now_ms = now_ms
        self.incarnation = "one"
        self.restored: dict[str, dict[str, int]] = {}
        self.logs: dict[str, Log] = {}
        self.remembered: dict[tuple[str, str], dict[str, int]] = {}
        self.sessions: list[ModelSession] = []
        self.received_ids: list[str] = []
        self.beacon_interval_ms = 10_000
        self.max_in_flight = 20
        self.expire_ms = 0

    # Logs

    def inbox(self, user: str) -> Log:
        name = f"inbox:{user}"
        if name not in self.logs:
            self.logs[name] = Log(name, visible={user: [(1, OPEN_END)]})
        return self.logs[name]

    def append(self, log: Log, user: str, entry_id: str, **body: object) -> int:
        last = log.entries[-1] if log.entries else entry_pb2.Entry()
        entry = entry_pb2.Entry(
            conversation_id=log.name,
            seq=log.head + 1,
            ordinal=last.ordinal + ("message" in body),
            id=entry_id,
            user_id=user,
            create_time=timestamp(self.now_ms),
            **body,  # type: ignore[arg-type]
        )
        log.entries.append(entry)
        log.ids[user, entry_id] = entry.seq
        return entry.seq

    def create(self, name: str, *users: str) -> Log:
        log = self.logs[name] = Log(name)
        members = [conversation_pb2.Member(user_id=user, join_seq=1) for user in users]
        self.append(
            log,
            users[0],
            f"create-{name}",
            conversation_created=entry_pb2.ConversationCreated(kind=GROUP, members=members),
        )
        for user in users:
            log.visible[user] = [(1, OPEN_END)]
            self._joined(log, user, 1)
        self.pump()
        return log

    def add(self, log: Log, user: str) -> None:
        if not log.member(user):
            seq = self.append(
                log,
                "owner",
                f"add-{log.head}",
                members_added=entry_pb2.MembersAdded(
                    members=[conversation_pb2.Member(user_id=user, join_seq=log.head + 1)]
                ),
            )
            log.visible.setdefault(user, []).append((seq, OPEN_END))
            self._joined(log, user, seq)
            self.pump()

    def remove(self, log: Log, user: str) -> None:
        if log.member(user):
            seq = self.append(
                log,
                "owner",
                f"remove-{log.head}",
                member_removed=entry_pb2.MemberRemoved(user_id=user),
            )
            low, _ = log.visible[user].pop()
            log.visible[user].append((low, seq))
            inbox = self.inbox(user)
            self.append(
                inbox,
                user,
                f"left-{log.name}-{seq}",
                conversation_left=entry_pb2.ConversationLeft(conversation_id=log.name, seq=seq),
            )
            self.pump()

    def post(self, log: Log, user: str, text: str) -> int:
        seq = self.append(
            log, user, f"{user}-{log.head}", message=message_pb2.MessageContent(text=text)
        )
        self.pump()
        return seq

    def _joined(self, log: Log, user: str, seq: int) -> None:
        joined = entry_pb2.ConversationJoined(conversation_id=log.name, seq=seq, kind=GROUP)
        self.append(self.inbox(user), user, f"in-{log.name}-{seq}", conversation_joined=joined)

    def restore(self, heads: dict[str, int], incarnation: str) -> None:
        """Go back to a backup: what some logs had beyond these heads is lost, and every session with it."""
        kept = {name: min(heads.get(name, 0), log.head) for name, log in self.logs.items()}
        self.restored = {
            old: {name: min(kept.get(name, 0), seq) for name, seq in shared.items()}
            for old, shared in self.restored.items()
        }
        self.restored[self.incarnation] = kept
        self.incarnation = incarnation
        for name, log in list(self.logs.items()):
            del log.entries[kept[name] :]
            log.ids = {key: seq for key, seq in log.ids.items() if seq <= kept[name]}
            for user, ranges in list(log.visible.items()):
                low_kept = [(low, high) for low, high in ranges if low <= kept[name]]
                log.visible[user] = [
                    (low, high if high <= kept[name] else OPEN_END) for low, high in low_kept
                ]
                if not log.visible[user] and not name.startswith("inbox:"):
                    del log.visible[user]
                elif not log.visible[user]:
                    log.visible[user] = [(1, OPEN_END)]
        for positions in self.remembered.values():
            for name in positions:
                positions[name] = min(positions[name], kept.get(name, 0))
        for session in list(self.sessions):
            session.close()

    # Sessions

    def connect(self, user: str, device: str) -> ModelSession:
        for session in list(self.sessions):
            if (session.user, session.device) == (user, device):
                session.end(error(10, "SESSION_REPLACED"), reconnect=False)
        session = ModelSession(self, user, device)
        self.sessions.append(session)
        return session

    def pump(self) -> None:
        for session in self.sessions:
            session.pump()

    def commit(self, user: str, send: message_pb2.SendMessageRequest) -> int | error_pb2.Error:
        """Take a message, as the real server decides."""
        log = self.logs.get(send.conversation_id)
        sent_at = id_time(send.message_id)
        if log is None or not log.member(user):
            return NOT_FOUND
        seq = log.ids.get((user, send.message_id))
        if seq is not None:
            if log.entries[seq - 1].message != send.content:
                return error(6, "ID_REUSED", metadata={"seq": str(seq)})
            return seq
        if sent_at > self.now_ms + SKEW_MS:
            return error(3, "ID_AHEAD")
        if send.after_message_id and (user, send.after_message_id) not in log.ids:
            return error(9, "PREDECESSOR_MISSING")
        self.received_ids.append(send.message_id)
        seq = self.append(log, user, send.message_id, message=send.content)
        self.pump()
        return seq


class ModelSession:
    """One Chat stream, from the server's side."""

    def __init__(self, server: ModelServer, user: str, device: str) -> None:
        self.server = server
        self.user = user
        self.device = device
        self.todo: deque[chat_service_pb2.Command] = deque()
        self.out: deque[event_pb2.Event] = deque()
        self.sent: dict[str, int] | None = None
        self.acked: dict[str, int] = {}
        self.window = 0
        self.open_commands: set[int] = set()
        self.hello: chat_service_pb2.Hello | None = None
        self.tokens: list[str] = []
        self.closed = False

    # From the client

    def receive(self, frame: bytes) -> None:
        assert len(frame) <= 1 << 20
        request = chat_service_pb2.ChatRequest.FromString(frame)
        assert request.commands or request.acks, "an empty frame"
        for ack in request.acks:
            assert self.sent is not None, "an ack before anything was sent"
            assert ack.seq <= self.sent[ack.conversation_id], "an ack of what was not sent"
            self.acked[ack.conversation_id] = max(ack.seq, self.acked[ack.conversation_id])
            mine = self.server.remembered.setdefault((self.user, self.device), {})
            mine[ack.conversation_id] = max(ack.seq, mine.get(ack.conversation_id, 0))
        for command in request.commands:
            assert command.command_id not in self.open_commands
            self.open_commands.add(command.command_id)
            assert len(self.open_commands) <= self.server.max_in_flight
            if command.HasField("hello"):
                assert self.hello is None, "hello twice"
                self.hello = command.hello
                self._welcome(command.command_id, command.hello)
            else:
                assert self.hello is not None, "a command before hello"
                self.todo.append(command)
        self.pump()

    def _welcome(self, command_id: int, hello: chat_service_pb2.Hello) -> None:
        server = self.server
        self.window = hello.window
        self.out.append(
            event_pb2.Event(
                welcome=event_pb2.Welcome(
                    session_id="s",
                    user_id=self.user,
                    device_id=self.device,
                    server_time=timestamp(server.now_ms),
                    incarnation=server.incarnation,
                    incarnation_changed=hello.incarnation not in ("", server.incarnation),
                    token_expire_time=timestamp(server.expire_ms) if server.expire_ms else None,
                    limits=event_pb2.Limits(
                        window=hello.window,
                        max_text_bytes=16384,
                        max_frame_bytes=1 << 20,
                        max_commands_in_flight=server.max_in_flight,
                        beacon_interval_ms=server.beacon_interval_ms,
                        max_members=500,
                    ),
                )
            )
        )
        refused: list[event_pb2.CursorRefusal] = []
        starts = self._starts(hello, refused)
        self._result(command_id, hello=event_pb2.HelloResult(refused_cursors=refused))
        self.sent = {}
        self.acked = {}
        for log, known, begin in starts:
            for kind, first, last in log.parts(self.user, known + 1, begin):
                if kind == "skip":
                    self._skipped(log.name, first, last)
                else:
                    gap = event_pb2.Gap(conversation_id=log.name, from_seq=first, to_seq=last)
                    self.out.append(event_pb2.Event(gap=gap))
            self.sent[log.name] = self.acked[log.name] = begin
        self.syncing = {log.name: log.end(self.user) for log, _, _ in starts}

    syncing: dict[str, int] | None = None

    def _starts(
        self, hello: chat_service_pb2.Hello, refused: list[event_pb2.CursorRefusal]
    ) -> list[tuple[Log, int, int]]:
        server = self.server
        server.inbox(self.user)
        logs = {name: log for name, log in server.logs.items() if log.visible.get(self.user)}
        named: dict[str, int] = {}
        shared = server.restored.get(hello.incarnation, {})
        for cursor in hello.cursors:
            log = logs.get(cursor.conversation_id)
            if log is None:
                refused.append(
                    event_pb2.CursorRefusal(conversation_id=cursor.conversation_id, error=NOT_FOUND)
                )
                continue
            end = log.end(self.user)
            if hello.incarnation != server.incarnation:
                end = min(end, shared.get(log.name, 0))
            if cursor.seq > end:
                refused.append(
                    event_pb2.CursorRefusal(
                        conversation_id=log.name, seq=end, error=error(11, "POSITION_AHEAD")
                    )
                )
            named[log.name] = min(cursor.seq, end)
        remembered = server.remembered.get((self.user, self.device), {})
        starts = []
        for log in logs.values():
            known = named.get(log.name, 0)
            begin = known
            if log.name not in named:
                begin = min(remembered.get(log.name, 0), log.end(self.user))
            if log.end(self.user) - begin > hello.catch_up_limit:
                begin = log.end(self.user) - hello.catch_up_limit
            starts.append((log, known, begin))
        return starts

    # To the client

    def _skipped(self, name: str, first: int, last: int) -> None:
        skipped = event_pb2.Skipped(conversation_id=name, from_seq=first, to_seq=last)
        self.out.append(event_pb2.Event(skipped=skipped))

    def _result(self, command_id: int, **outcome: object) -> None:
        self.open_commands.discard(command_id)
        result = event_pb2.CommandResult(command_id=command_id, **outcome)  # type: ignore[arg-type]
        self.out.append(event_pb2.Event(result=result))

    def unacked(self) -> int:
        assert self.sent is not None
        count = 0
        for name, seq in self.sent.items():
            for kind, first, last in self.server.logs[name].parts(
                self.user, self.acked[name] + 1, seq
            ):
                count += last - first + 1 if kind == "show" else 0
        return count

    def pump(self) -> None:
        """Send what the window allows of everything that the device has not got."""
        if self.sent is None or self.closed:
            return
        for log in self.server.logs.values():
            if log.visible.get(self.user):
                self.sent.setdefault(log.name, 0)
                self.acked.setdefault(log.name, 0)
                self._pump(log, self.sent)
        if self.syncing is not None and all(
            self.sent[name] >= end for name, end in self.syncing.items()
        ):
            self.syncing = None
            complete = event_pb2.SyncComplete(conversations=len(self.sent))
            self.out.append(event_pb2.Event(sync_complete=complete))

    def _pump(self, log: Log, sent: dict[str, int]) -> None:
        for kind, first, last in log.parts(self.user, sent[log.name] + 1, log.end(self.user)):
            if kind == "skip":
                self._skipped(log.name, first, last)
                sent[log.name] = last
                continue
            for seq in range(first, last + 1):
                if self.unacked() >= self.window:
                    return
                self.out.append(event_pb2.Event(entry=log.entries[seq - 1]))
                sent[log.name] = seq

    def frame(self, count: int) -> bytes | None:
        """The next events as one frame."""
        events = [self.out.popleft() for _ in range(min(count, len(self.out)))]
        if not events:
            return None
        return chat_service_pb2.ChatResponse(events=events).SerializeToString()

    def level(self) -> bool:
        return (
            self.sent is not None
            and self.syncing is None
            and all(
                self.sent.get(log.name) == log.end(self.user)
                for log in self.server.logs.values()
                if log.visible.get(self.user)
            )
        )

    def beacon(self) -> None:
        if self.sent is None:
            return
        beacon = event_pb2.Beacon(server_time=timestamp(self.server.now_ms), level=self.level())
        if beacon.level:
            positions = [(name, seq) for name, seq in self.sent.items() if seq]
            total = sum(
                int.from_bytes(hashlib.sha256(f"{name}:{seq}".encode()).digest()[:8], "big")
                for name, seq in positions
            )
            beacon.digest = total % (1 << 64)
            beacon.conversations = len(positions)
        self.out.append(event_pb2.Event(beacon=beacon))

    def work(self, index: int = 0, problem: error_pb2.Error | None = None) -> None:
        """Carry out one of the waiting commands, or refuse it."""
        command = self.todo[index]
        del self.todo[index]
        if command.HasField("refresh_token"):
            self.tokens.append(command.refresh_token.token)
            if problem is not None:
                self._result(command.command_id, error=problem)
            else:
                expires = timestamp(self.server.now_ms + 3_600_000)
                self._result(
                    command.command_id,
                    refresh_token=event_pb2.RefreshTokenResult(token_expire_time=expires),
                )
            return
        assert command.HasField("send_message")
        if problem is not None:
            if problem is UNKNOWN_OUTCOME:
                self.server.commit(self.user, command.send_message)
            self._result(command.command_id, error=problem)
            return
        outcome = self.server.commit(self.user, command.send_message)
        if isinstance(outcome, int):
            entry = self.server.logs[command.send_message.conversation_id].entries[outcome - 1]
            self._result(
                command.command_id,
                send_message=message_pb2.SendMessageResponse(
                    seq=outcome, create_time=entry.create_time
                ),
            )
        else:
            self._result(command.command_id, error=outcome)

    def end(self, problem: error_pb2.Error, *, reconnect: bool) -> None:
        ended = event_pb2.SessionEnded(error=problem, reconnect=reconnect)
        self.out.append(event_pb2.Event(session_ended=ended))
        self.close()

    def close(self) -> None:
        self.closed = True
        if self in self.server.sessions:
            self.server.sessions.remove(self)
