"""The generated stubs on the client's own channel, with the client's token."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._grpc import GrpcTransport, bearer
from ._tokens import TokenSource
from .v1 import (
    chat_service_pb2_grpc,
    conversation_service_pb2_grpc,
    message_service_pb2_grpc,
    presence_service_pb2_grpc,
    receipt_service_pb2_grpc,
)

if TYPE_CHECKING:
    from .v1.chat_service_pb2_grpc import ChatServiceAsyncStub
    from .v1.conversation_service_pb2_grpc import ConversationServiceAsyncStub
    from .v1.message_service_pb2_grpc import MessageServiceAsyncStub
    from .v1.presence_service_pb2_grpc import PresenceServiceAsyncStub
    from .v1.receipt_service_pb2_grpc import ReceiptServiceAsyncStub


class _WithToken:
    """The channel of the moment, whose unary calls carry the client's token."""

    def __init__(self, transport: GrpcTransport, tokens: TokenSource) -> None:
        self._transport = transport
        self._tokens = tokens

    def unary_unary(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        async def call(request: Any, *, metadata: Any = (), **options: Any) -> Any:
            token = await self._tokens.get()
            multi = self._transport.channel.unary_unary(*args, **kwargs)
            return await multi(request, metadata=(*metadata, *bearer(token)), **options)

        return call

    def stream_stream(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            return self._transport.channel.stream_stream(*args, **kwargs)(*given, **options)

        return call


class RawStubs:
    """The generated stubs. Unary calls carry the client's token; they are awaited and not tried again.

    Attributes:
        chat: ChatService. Its stream is a session of its own: give it the metadata "authorization" of another device.
        conversations: ConversationService.
        messages: MessageService.
        receipts: ReceiptService.
        presence: PresenceService.
    """

    def __init__(self, transport: GrpcTransport, tokens: TokenSource) -> None:
        shim: Any = _WithToken(transport, tokens)
        self.chat: ChatServiceAsyncStub = chat_service_pb2_grpc.ChatServiceStub(shim)
        self.conversations: ConversationServiceAsyncStub = (
            conversation_service_pb2_grpc.ConversationServiceStub(shim)
        )
        self.messages: MessageServiceAsyncStub = message_service_pb2_grpc.MessageServiceStub(shim)
        self.receipts: ReceiptServiceAsyncStub = receipt_service_pb2_grpc.ReceiptServiceStub(shim)
        self.presence: PresenceServiceAsyncStub = presence_service_pb2_grpc.PresenceServiceStub(
            shim
        )
