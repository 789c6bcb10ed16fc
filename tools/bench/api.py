"""The unary calls of the load client: it makes its conversations, and reads their history back."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import grpc

from tidings.v1 import (
    conversation_pb2,
    conversation_service_pb2,
    conversation_service_pb2_grpc,
    message_service_pb2,
    message_service_pb2_grpc,
)

from .device import CHANNEL_OPTIONS
from .frames import MessageIds
from .ledger import Ledger
from .processes import Target


class Api:
    """Calls in the name of any user."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._ids = MessageIds()
        self._channel = grpc.aio.insecure_channel(target.address, options=CHANNEL_OPTIONS)
        self._conversations = conversation_service_pb2_grpc.ConversationServiceStub(self._channel)
        self._messages = message_service_pb2_grpc.MessageServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._channel.close()

    async def direct(self, user: str, other: str) -> str:
        """Makes a direct conversation; its id."""
        return await self._create(
            user,
            conversation_service_pb2.CreateConversationRequest(
                kind=conversation_pb2.CONVERSATION_KIND_DIRECT, user_ids=[other]
            ),
        )

    async def group(self, user: str, others: Sequence[str]) -> str:
        """Makes a group; its id."""
        return await self._create(
            user,
            conversation_service_pb2.CreateConversationRequest(
                kind=conversation_pb2.CONVERSATION_KIND_GROUP,
                user_ids=others,
                request_id=self._ids.make(),
            ),
        )

    async def check_history(self, user: str, conversation: str, ledger: Ledger) -> None:
        """Holds the whole history of a conversation against what the devices got."""
        known = ledger.log(conversation).entries
        expected = 1
        token = ""
        while True:
            page = await self._messages.ListHistory(
                message_service_pb2.ListHistoryRequest(
                    conversation_id=conversation,
                    order=message_service_pb2.HISTORY_ORDER_ASCENDING,
                    page_size=1000,
                    page_token=token,
                ),
                metadata=self._metadata(user),
            )
            for event in page.events:
                entry = event.entry
                if entry.seq != expected:
                    ledger.problem(f"history of {conversation}: {entry.seq} instead of {expected}")
                expected = entry.seq + 1
                if entry.HasField("message") and known.get(entry.seq) != (
                    entry.id,
                    entry.message.text,
                ):
                    ledger.problem(f"history of {conversation}: another message at {entry.seq}")
            token = page.next_page_token
            if not token:
                break
        if expected - 1 != max(known, default=0):
            ledger.problem(f"history of {conversation} ends at {expected - 1}")

    async def _create(
        self, user: str, request: conversation_service_pb2.CreateConversationRequest
    ) -> str:
        answer = await self._conversations.CreateConversation(
            request, metadata=self._metadata(user)
        )
        return answer.conversation.conversation_id

    def _metadata(self, user: str) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._target.token(user, 'api')}"),)
