"""Access: which methods are open to whom. What is not in the table is denied."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum

from ..core.principal import ADMIN_SCOPE, Principal
from ..errors import DomainError, Reason

Verify = Callable[[str], Awaitable[Principal]]


class Access(Enum):
    """Who may call a method."""

    PUBLIC = "anybody"
    USER = "whoever has a valid token"
    ADMIN = "whoever has a valid token with the scope admin"


RULES: dict[str, Access] = {
    "/tidings.v1.ChatService/Chat": Access.USER,
    "/tidings.v1.ConversationService/CreateConversation": Access.USER,
    "/tidings.v1.ConversationService/GetConversation": Access.USER,
    "/tidings.v1.ConversationService/ListConversations": Access.USER,
    "/tidings.v1.ConversationService/ListMembers": Access.USER,
    "/tidings.v1.ConversationService/AddMembers": Access.USER,
    "/tidings.v1.ConversationService/RemoveMember": Access.USER,
    "/tidings.v1.ConversationService/LeaveConversation": Access.USER,
    "/tidings.v1.ConversationService/UpdateConversation": Access.USER,
    "/tidings.v1.ConversationService/SetRole": Access.USER,
    "/tidings.v1.ConversationService/TransferOwnership": Access.USER,
    "/tidings.v1.ConversationService/SetMute": Access.USER,
    "/tidings.v1.ConversationService/SetBan": Access.USER,
    "/tidings.v1.ConversationService/SetInvitation": Access.USER,
    "/tidings.v1.ConversationService/JoinConversation": Access.USER,
    "/tidings.v1.MessageService/SendMessage": Access.USER,
    "/tidings.v1.MessageService/EditMessage": Access.USER,
    "/tidings.v1.MessageService/DeleteMessage": Access.USER,
    "/tidings.v1.MessageService/SetReaction": Access.USER,
    "/tidings.v1.MessageService/ListReactions": Access.USER,
    "/tidings.v1.MessageService/SetPin": Access.USER,
    "/tidings.v1.MessageService/ListPins": Access.USER,
    "/tidings.v1.MessageService/ListHistory": Access.USER,
    "/tidings.v1.MessageService/GetMessage": Access.USER,
    "/tidings.v1.ReceiptService/MarkDelivered": Access.USER,
    "/tidings.v1.ReceiptService/MarkRead": Access.USER,
    "/tidings.v1.ReceiptService/ListReceipts": Access.USER,
    "/tidings.v1.ReceiptService/GetUnread": Access.USER,
    "/tidings.v1.PresenceService/GetPresence": Access.USER,
    "/tidings.v1.PresenceService/SetStatus": Access.USER,
    "/tidings.v1.AdminService/ListNodes": Access.ADMIN,
    "/tidings.v1.AdminService/ListSessions": Access.ADMIN,
    "/tidings.v1.AdminService/GetConversationState": Access.ADMIN,
    "/tidings.v1.AdminService/ListConversationStates": Access.ADMIN,
    "/tidings.v1.AdminService/DrainNode": Access.ADMIN,
    "/tidings.v1.AdminService/ExplainDelivery": Access.ADMIN,
    "/grpc.health.v1.Health/Check": Access.PUBLIC,
    "/grpc.health.v1.Health/Watch": Access.PUBLIC,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": Access.PUBLIC,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Access.PUBLIC,
}


def authorise(method: str, caller: Principal) -> None:
    """Refuses a caller whom the table does not allow a method. Raises DomainError (DENIED)."""
    if RULES[method] is Access.ADMIN and ADMIN_SCOPE not in caller.scopes:
        raise DomainError(Reason.DENIED, 'This needs a token with the scope "admin".')


def bearer(authorization: str) -> str:
    """The token of "Bearer <token>". Raises DomainError (TOKEN_INVALID)."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise DomainError(Reason.TOKEN_INVALID, "There is no 'authorization: Bearer <token>'.")
    return token.strip()
