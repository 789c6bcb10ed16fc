"""The Python SDK of Tidings: a typed, asynchronous chat client.

Importing this package is cheap: the server imports its generated messages (`tidings.v1`) through it. What it exports is
loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._client import Client, EventStream, SendHandle
    from ._config import ClientConfig
    from ._sqlite import FileStateStore
    from ._state import (
        MemoryStateStore,
        StateStore,
        StoredCursor,
        StoredFailure,
        StoredMessage,
        StoredSession,
        StoredState,
    )
    from ._tokens import TokenProvider
    from ._transport import Connection, ConnectionLost, EndOfStream, Transport
    from .errors import (
        Aborted,
        AlreadyExists,
        Cancelled,
        ClientClosed,
        Code,
        DeadlineExceeded,
        FailedPrecondition,
        Internal,
        InvalidArgument,
        NotFound,
        OutOfRange,
        PermissionDenied,
        ResourceExhausted,
        StateError,
        TidingsError,
        Unauthenticated,
        Unavailable,
    )
    from .events import (
        ConnectionState,
        ConnectionStatus,
        ConversationCreated,
        ConversationJoined,
        ConversationLeft,
        ConversationUpdated,
        Entry,
        Event,
        Gap,
        IncarnationChanged,
        LogEntry,
        MemberBanned,
        MemberMuted,
        MemberRemoved,
        MemberRoleSet,
        MembersAdded,
        Message,
        MessageChange,
        MessageDeleted,
        MessageEdited,
        MessageFailed,
        MessagePending,
        MessageSent,
        MessageState,
        PositionLost,
        ReactionSet,
        ReceiptUpdate,
        Skipped,
        SyncComplete,
        UnknownEntry,
    )
    from .folding import FoldedMessage, MessageFold
    from .models import (
        Availability,
        Conversation,
        ConversationKind,
        HistoryOrder,
        Member,
        MemberRole,
        Presence,
        Receipt,
        ScaleClass,
        Unread,
        UnreadCount,
    )

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Availability",
    "Cancelled",
    "Client",
    "ClientClosed",
    "ClientConfig",
    "Code",
    "Connection",
    "ConnectionLost",
    "ConnectionState",
    "ConnectionStatus",
    "Conversation",
    "ConversationCreated",
    "ConversationJoined",
    "ConversationKind",
    "ConversationLeft",
    "ConversationUpdated",
    "DeadlineExceeded",
    "EndOfStream",
    "Entry",
    "Event",
    "EventStream",
    "FailedPrecondition",
    "FileStateStore",
    "FoldedMessage",
    "Gap",
    "HistoryOrder",
    "IncarnationChanged",
    "Internal",
    "InvalidArgument",
    "LogEntry",
    "Member",
    "MemberBanned",
    "MemberMuted",
    "MemberRemoved",
    "MemberRole",
    "MemberRoleSet",
    "MembersAdded",
    "MemoryStateStore",
    "Message",
    "MessageChange",
    "MessageDeleted",
    "MessageEdited",
    "MessageFailed",
    "MessageFold",
    "MessagePending",
    "MessageSent",
    "MessageState",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "PositionLost",
    "Presence",
    "ReactionSet",
    "Receipt",
    "ReceiptUpdate",
    "ResourceExhausted",
    "ScaleClass",
    "SendHandle",
    "Skipped",
    "StateError",
    "StateStore",
    "StoredCursor",
    "StoredFailure",
    "StoredMessage",
    "StoredSession",
    "StoredState",
    "SyncComplete",
    "TidingsError",
    "TokenProvider",
    "Transport",
    "Unauthenticated",
    "Unavailable",
    "UnknownEntry",
    "Unread",
    "UnreadCount",
]

_MODULES = {
    "_client": ("Client", "EventStream", "SendHandle"),
    "_config": ("ClientConfig",),
    "_sqlite": ("FileStateStore",),
    "_state": (
        "MemoryStateStore",
        "StateStore",
        "StoredCursor",
        "StoredFailure",
        "StoredMessage",
        "StoredSession",
        "StoredState",
    ),
    "_tokens": ("TokenProvider",),
    "_transport": ("Connection", "ConnectionLost", "EndOfStream", "Transport"),
    "folding": ("FoldedMessage", "MessageFold"),
    "models": (
        "Availability",
        "Conversation",
        "ConversationKind",
        "HistoryOrder",
        "Member",
        "MemberRole",
        "Presence",
        "Receipt",
        "ScaleClass",
        "Unread",
        "UnreadCount",
    ),
    "events": (
        "ConnectionState",
        "ConnectionStatus",
        "ConversationCreated",
        "ConversationJoined",
        "ConversationLeft",
        "ConversationUpdated",
        "Entry",
        "Event",
        "Gap",
        "IncarnationChanged",
        "LogEntry",
        "MemberBanned",
        "MemberMuted",
        "MemberRemoved",
        "MemberRoleSet",
        "MembersAdded",
        "Message",
        "MessageChange",
        "MessageDeleted",
        "MessageEdited",
        "MessageFailed",
        "MessagePending",
        "MessageSent",
        "MessageState",
        "PositionLost",
        "ReactionSet",
        "ReceiptUpdate",
        "Skipped",
        "SyncComplete",
        "UnknownEntry",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # What isn't named above is an error class.
    module = importlib.import_module(f".{_MODULE_OF.get(name, 'errors')}", __name__)
    value: object = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
