"""The unary calls of a replay, in the name of any user, tried again for as long as the server is away."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from tidings.v1 import (
    conversation_pb2,
    conversation_service_pb2,
    message_pb2,
    message_service_pb2,
    receipt_service_pb2,
)

from .script import Conversation, Row
from .wire import cut
from .world import Metadata, World

_CHANNELS: Final = 4
_PAGE: Final = 1000
_GIVE_UP_S: Final = 120.0
_CALL_S: Final = 30.0
_DEVICE: Final = "api"
_AGAIN: Final = frozenset({"OUTCOME_UNKNOWN", "STORE_UNAVAILABLE", "DRAINING", ""})

_MessageT = TypeVar("_MessageT", bound=Message)


class Refused(Exception):
    """The server refused a call for good."""


class Api:
    """Calls by some connections of their own."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._channels = [world.channel(f"api {number}") for number in range(_CHANNELS)]
        self._next = itertools.cycle(self._channels)

    async def close(self) -> None:
        """Closes the connections."""
        for channel in self._channels:
            await channel.close()

    # Conversations

    async def create(self, conversation: Conversation) -> None:
        """Makes a conversation with all its members."""
        kind = "KIND_DIRECT" if conversation.direct else "KIND_GROUP"
        request = conversation_service_pb2.CreateConversationRequest(
            request_id="" if conversation.direct else self._world.new_id(),
            kind=conversation_pb2.ConversationKind.Value(f"CONVERSATION_{kind}"),
            title="" if conversation.direct else conversation.name,
            user_ids=conversation.founders[1:],
        )
        answer = await self.call(
            conversation.creator,
            "ConversationService/CreateConversation",
            request,
            conversation_service_pb2.CreateConversationResponse,
        )
        conversation.id = answer.conversation.conversation_id
        for users in conversation.additions:
            await self.call(
                conversation.creator,
                "ConversationService/AddMembers",
                conversation_service_pb2.AddMembersRequest(
                    conversation_id=conversation.id,
                    request_id=self._world.new_id(),
                    members=[conversation_pb2.Member(user_id=user) for user in users],
                ),
                conversation_service_pb2.AddMembersResponse,
            )

    async def conversations(self, user: str) -> list[conversation_pb2.Conversation]:
        """All conversations of a user."""
        found: list[conversation_pb2.Conversation] = []
        request = conversation_service_pb2.ListConversationsRequest(page_size=200)
        while True:
            answer = await self.call(
                user,
                "ConversationService/ListConversations",
                request,
                conversation_service_pb2.ListConversationsResponse,
            )
            found += answer.conversations
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    async def members(self, user: str, conversation_id: str) -> list[conversation_pb2.Member]:
        """All members of a conversation."""
        found: list[conversation_pb2.Member] = []
        request = conversation_service_pb2.ListMembersRequest(
            conversation_id=conversation_id, page_size=1000
        )
        while True:
            answer = await self.call(
                user,
                "ConversationService/ListMembers",
                request,
                conversation_service_pb2.ListMembersResponse,
            )
            found += answer.members
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    # Messages

    async def send(self, row: Row, message_id: str, reply_id: str) -> int:
        """Sends a message, under one id until it has a position, which is returned."""
        request = send_request(row, message_id, reply_id)
        answer = await self.call(
            row.sender,
            "MessageService/SendMessage",
            request,
            message_pb2.SendMessageResponse,
        )
        return answer.seq

    async def history(
        self, user: str, log: str, *, first: int = 0, last: int = 0, ascending: bool = True
    ) -> AsyncIterator[list[bytes]]:
        """The entries of a log as events, undecoded, page by page: all that a user may see, or from one position to
        another.
        """
        order = message_service_pb2.HistoryOrder.Value(
            f"HISTORY_ORDER_{'ASCENDING' if ascending else 'DESCENDING'}"
        )
        request = message_service_pb2.ListHistoryRequest(
            conversation_id=log, from_seq=first, order=order
        )
        left = last - first + 1 if last else 0
        while True:
            request.page_size = min(_PAGE, left) if last else _PAGE
            answer = await self.raw(user, "MessageService/ListHistory", request)
            elements, token = cut(answer)
            yield elements
            left -= len(elements)
            if not token or (last and left <= 0):
                return
            request.page_token = token.decode()

    # Receipts

    async def unread(
        self, user: str, conversations: Sequence[str] = ()
    ) -> receipt_service_pb2.GetUnreadResponse:
        """What a user has not read."""
        return await self.call(
            user,
            "ReceiptService/GetUnread",
            receipt_service_pb2.GetUnreadRequest(conversation_ids=conversations),
            receipt_service_pb2.GetUnreadResponse,
        )

    async def mark_read(
        self, user: str, conversation_id: str, seq: int
    ) -> receipt_service_pb2.MarkReadResponse:
        """Marks messages as read."""
        return await self.call(
            user,
            "ReceiptService/MarkRead",
            receipt_service_pb2.MarkReadRequest(conversation_id=conversation_id, seq=seq),
            receipt_service_pb2.MarkReadResponse,
        )

    # Calling

    async def call(
        self, user: str, method: str, request: Message, answer: type[_MessageT]
    ) -> _MessageT:
        """Carries out an operation. Raises Refused."""
        return answer.FromString(await self.raw(user, method, request))

    async def raw(self, user: str, method: str, request: Message) -> bytes:
        """The same, for the bytes of the answer."""
        loop = asyncio.get_running_loop()
        rng = self._world.rng
        deadline = loop.time() + _GIVE_UP_S
        payload = request.SerializeToString()
        metadata: Metadata = self._world.metadata(user, _DEVICE)
        attempt = 0
        while True:
            call: Any = next(self._next).unary_unary(f"/tidings.v1.{method}")
            try:
                answer: bytes = await call(payload, metadata=metadata, timeout=_CALL_S)
            except grpc.aio.AioRpcError as problem:
                if reason_of(problem) not in _AGAIN or loop.time() > deadline:
                    raise Refused(f"{method}: {problem.code().name} {problem.details()}") from None
            else:
                return answer
            attempt += 1
            self._world.tally.unary_retries += 1
            await asyncio.sleep(0.02 + rng.random() * min(1.0, 0.05 * 2**attempt))


def send_request(row: Row, message_id: str, reply_id: str) -> message_pb2.SendMessageRequest:
    """The request that sends a message."""
    return message_pb2.SendMessageRequest(
        conversation_id=row.conversation.id,
        message_id=message_id,
        content=message_pb2.MessageContent(text=row.text, reply_to_message_id=reply_id),
    )


def reason_of(problem: grpc.aio.AioRpcError) -> str:
    """The reason that the server gave, empty when it was not the server who spoke."""
    trailers: Any = problem.trailing_metadata() or ()
    for key, value in trailers:
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    reason: str = info.reason
                    return reason
    return ""
