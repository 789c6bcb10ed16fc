"""A network to the model server: what the client's transport is in the tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message as ProtoMessage

from tidings import ClientConfig, Connection, ConnectionLost, EndOfStream, Transport
from tidings.errors import Code, NotFound, TidingsError, Unauthenticated, error_for
from tidings.v1 import (
    conversation_pb2,
    conversation_service_pb2,
    error_pb2,
    message_service_pb2,
    presence_service_pb2,
    receipt_service_pb2,
)

from .model import Log, ModelServer, ModelSession, timestamp

LATENCY = 0.001


class Network:
    """All connections to one server. Work is done as it comes, unless `working` is off."""

    def __init__(self, server: ModelServer | None = None) -> None:
        self.server = server or ModelServer()
        self.links: list[Link] = []
        self.up = True
        self.silent = False
        self.working = True
        self.problems: list[error_pb2.Error | None] = []
        """What the next commands are refused with; None for nothing."""
        self.call_problems: list[TidingsError] = []
        self.refused_tokens: set[str] = set()
        self.tokens: list[str] = []
        self.calls: list[str] = []
        self.frames: list[bytes] = []
        self.connects: list[float] = []
        self.renewals = 0

    def transport(self, target: str, config: ClientConfig) -> Transport:
        assert target == "model"
        assert isinstance(config, ClientConfig)
        return ModelTransport(self)

    def cut(self) -> None:
        """Every connection is lost, with what is on its way."""
        for link in list(self.links):
            link.lose()

    def changed(self) -> None:
        """The server has done something: let it go out."""
        for link in list(self.links):
            link.changed.set()

    def beacons(self) -> None:
        for link in self.links:
            link.session.beacon()
        self.changed()

    def work(self) -> None:
        for link in list(self.links):
            while self.working and link.session.todo:
                link.session.work(0, self.problems.pop(0) if self.problems else None)
        self.changed()


class ModelTransport:
    """See Transport."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.closed = False

    async def connect(self, token: str) -> Connection:
        network = self.network
        network.connects.append(asyncio.get_running_loop().time())
        network.tokens.append(token)
        await asyncio.sleep(LATENCY)
        if not network.up:
            raise ConnectionLost("the network is down")
        if token in network.refused_tokens:
            raise Unauthenticated("refused", reason="TOKEN_INVALID")
        user, device, *_ = token.split("/")
        link = Link(network, network.server.connect(user, device))
        network.changed()
        network.links.append(link)
        return link

    async def call(self, method: str, request: bytes, token: str, timeout: float) -> bytes:
        network = self.network
        assert timeout > 0
        network.calls.append(method)
        await asyncio.sleep(LATENCY)
        if network.call_problems:
            raise network.call_problems.pop(0)
        if token in network.refused_tokens:
            raise Unauthenticated("refused", reason="TOKEN_INVALID")
        answer = Unary(network.server, token.split("/", maxsplit=1)[0]).answer(method, request)
        network.changed()
        return answer.SerializeToString()

    def renew(self) -> None:
        self.network.renewals += 1

    async def close(self) -> None:
        self.closed = True


class Link:
    """See Connection."""

    def __init__(self, network: Network, session: ModelSession) -> None:
        self.network = network
        self.session = session
        self.changed = asyncio.Event()
        self.lost = False
        self.ended: TidingsError | None = None
        self.graceful: bool | None = None

    def lose(self) -> None:
        self.lost = True
        self.session.close()
        if self in self.network.links:
            self.network.links.remove(self)
        self.changed.set()

    async def send(self, frame: bytes) -> None:
        await asyncio.sleep(LATENCY)
        if self.lost:
            raise ConnectionLost("lost")
        self.network.frames.append(frame)
        self.session.receive(frame)
        self.network.work()

    async def receive(self) -> bytes:
        while True:
            self.changed.clear()
            if self.lost:
                raise ConnectionLost("lost")
            if not self.network.silent:
                frame = self.session.frame(100)
                if frame is not None:
                    await asyncio.sleep(LATENCY)
                    return frame
                if self.ended is not None or self.session.closed:
                    raise EndOfStream(self.ended)
            await self.changed.wait()

    async def close(self, *, graceful: bool) -> None:
        self.graceful = graceful
        self.session.close()
        self.lose()


class Unary:
    """The unary operations of the model, for one user; those that the tests use."""

    def __init__(self, server: ModelServer, user: str) -> None:
        self.server = server
        self.user = user

    def answer(self, method: str, request: bytes) -> ProtoMessage:
        name = method.rpartition("/")[2]
        service = {
            "CreateConversation": conversation_service_pb2,
            "GetConversation": conversation_service_pb2,
            "ListConversations": conversation_service_pb2,
            "ListMembers": conversation_service_pb2,
            "AddMembers": conversation_service_pb2,
            "RemoveMember": conversation_service_pb2,
            "LeaveConversation": conversation_service_pb2,
            "ListHistory": message_service_pb2,
            "GetMessage": message_service_pb2,
            "MarkRead": receipt_service_pb2,
            "MarkDelivered": receipt_service_pb2,
            "ListReceipts": receipt_service_pb2,
            "GetUnread": receipt_service_pb2,
            "GetPresence": presence_service_pb2,
            "SetStatus": presence_service_pb2,
        }[name]
        parsed = getattr(service, f"{name}Request").FromString(request)
        handler: Callable[[Any], ProtoMessage] = getattr(self, name)
        return handler(parsed)

    def log(self, name: str) -> Log:
        log = self.server.logs.get(name)
        if log is None or self.user not in log.visible:
            raise NotFound("no such conversation", reason="CONVERSATION_NOT_FOUND")
        return log

    def conversation(self, log: Log) -> conversation_pb2.Conversation:
        return conversation_pb2.Conversation(
            conversation_id=log.name,
            kind=conversation_pb2.CONVERSATION_KIND_GROUP,
            title=f"title of {log.name}",
            create_time=log.entries[0].create_time,
            update_time=log.entries[-1].create_time,
            member_count=sum(log.member(user) for user in log.visible),
            head_seq=log.end(self.user),
            role=conversation_pb2.MEMBER_ROLE_MEMBER,
            join_seq=log.visible[self.user][0][0],
        )

    def CreateConversation(  # noqa: N802
        self, request: conversation_service_pb2.CreateConversationRequest
    ) -> ProtoMessage:
        name = request.request_id or "-".join(sorted([self.user, *request.user_ids]))
        log = self.server.logs.get(name) or self.server.create(name, self.user, *request.user_ids)
        return conversation_service_pb2.CreateConversationResponse(
            conversation=self.conversation(log)
        )

    def ListConversations(  # noqa: N802
        self, request: conversation_service_pb2.ListConversationsRequest
    ) -> ProtoMessage:
        logs = [
            log
            for log in self.server.logs.values()
            if self.user in log.visible and not log.name.startswith("inbox:")
        ]
        first = int(request.page_token or 0)
        page = logs[first : first + request.page_size]
        more = str(first + len(page)) if first + len(page) < len(logs) else ""
        return conversation_service_pb2.ListConversationsResponse(
            conversations=[self.conversation(log) for log in page], next_page_token=more
        )

    def ListMembers(  # noqa: N802
        self, request: conversation_service_pb2.ListMembersRequest
    ) -> ProtoMessage:
        log = self.log(request.conversation_id)
        users = sorted(user for user in log.visible if log.member(user))
        first = int(request.page_token or 0)
        page = users[first : first + request.page_size]
        more = str(first + len(page)) if first + len(page) < len(users) else ""
        return conversation_service_pb2.ListMembersResponse(
            members=[conversation_pb2.Member(user_id=user, join_seq=1) for user in page],
            next_page_token=more,
        )

    def ListHistory(self, request: message_service_pb2.ListHistoryRequest) -> ProtoMessage:  # noqa: N802
        log = self.log(request.conversation_id)
        ascending = request.order == message_service_pb2.HISTORY_ORDER_ASCENDING
        seqs = [
            seq
            for kind, first, last in log.parts(self.user, 1, log.end(self.user))
            if kind == "show"
            for seq in range(first, last + 1)
        ]
        at = int(request.page_token) if request.page_token else request.from_seq
        if ascending:
            chosen = [seq for seq in seqs if seq >= at]
        else:
            chosen = [seq for seq in reversed(seqs) if not at or seq <= at]
        response = message_service_pb2.ListHistoryResponse()
        for seq in chosen[: request.page_size]:
            response.events.add().entry.CopyFrom(log.entries[seq - 1])
        if len(chosen) > request.page_size:
            response.next_page_token = str(chosen[request.page_size])
        return response

    def GetMessage(self, request: message_service_pb2.GetMessageRequest) -> ProtoMessage:  # noqa: N802
        for entry in self.log(request.conversation_id).entries:
            if request.message_id in ("", entry.id) and request.seq in (0, entry.seq):
                return message_service_pb2.GetMessageResponse(entry=entry)
        raise error_for(Code.NOT_FOUND, "no such message", reason="MESSAGE_NOT_FOUND")

    def MarkRead(self, request: receipt_service_pb2.MarkReadRequest) -> ProtoMessage:  # noqa: N802
        log = self.log(request.conversation_id)
        return receipt_service_pb2.MarkReadResponse(
            read_seq=min(request.seq, log.head), unread_count=max(0, log.head - request.seq)
        )

    def GetPresence(self, request: presence_service_pb2.GetPresenceRequest) -> ProtoMessage:  # noqa: N802
        return presence_service_pb2.GetPresenceResponse(
            presences=[
                presence_service_pb2.Presence(
                    user_id=user, last_seen_time=timestamp(1_000), status_text="here"
                )
                for user in request.user_ids
            ]
        )
