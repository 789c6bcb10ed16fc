"""Commands and their results: every operation of the API, free of its encoding.

A command that exists has passed the checks that need no state: sizes, forms, ranges. `execute` in
`messaging` takes them from the stream and from unary calls alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import DomainError
from .admin import AdminCommand, AdminResult
from .entries import ConversationKind, NewMember, RightOverride, Role, Setting
from .memberships import Membership
from .records import record


@record(frozen=True, slots=True)
class ChangeId:
    """The client's id of a change: its text form, its 16 bytes, and its time in milliseconds since
    the Unix epoch.
    """

    text: str
    raw: bytes
    time_ms: int


@dataclass(frozen=True, slots=True)
class Hello:
    """Opens a session. `cursors` maps logs to positions; `window` and `catch_up_limit` are already
    within the limits.
    """

    incarnation: str
    cursors: dict[str, int]
    window: int
    catch_up_limit: int
    client: str


@record(frozen=True, slots=True)
class SendMessage:
    """Posts a message. `content` is a serialised `MessageContent`."""

    conversation_id: str
    id: ChangeId
    content: bytes
    after: ChangeId | None = None


@dataclass(frozen=True, slots=True)
class EditMessage:
    """Gives the message at `seq` another content, a serialised `MessageContent`."""

    conversation_id: str
    id: ChangeId
    seq: int
    content: bytes


@dataclass(frozen=True, slots=True)
class DeleteMessage:
    """Deletes the message at `seq` for all."""

    conversation_id: str
    id: ChangeId
    seq: int


@dataclass(frozen=True, slots=True)
class SetReaction:
    """Sets the caller's reaction to the message at `seq`; empty: takes it back."""

    conversation_id: str
    id: ChangeId
    seq: int
    reaction: str


@dataclass(frozen=True, slots=True)
class SetPin:
    """Pins the message at `seq`, or ends that."""

    conversation_id: str
    id: ChangeId
    seq: int
    pinned: bool


@dataclass(frozen=True, slots=True)
class ListPins:
    """Lists the pinned messages."""

    conversation_id: str


@dataclass(frozen=True, slots=True)
class ListReactions:
    """Lists who has reacted to the message at `seq`."""

    conversation_id: str
    seq: int
    page_size: int
    page_token: str


@dataclass(frozen=True, slots=True)
class CreateConversation:
    """Creates a group, or gets a direct conversation. `user_ids` are the others, without
    doubles.
    """

    kind: ConversationKind
    user_ids: tuple[str, ...]
    title: str = ""
    id: ChangeId | None = None


@dataclass(frozen=True, slots=True)
class AddMembers:
    """Adds members, without doubles."""

    conversation_id: str
    id: ChangeId
    members: tuple[NewMember, ...]


@dataclass(frozen=True, slots=True)
class RemoveMember:
    """Removes a member."""

    conversation_id: str
    id: ChangeId
    user_id: str


@dataclass(frozen=True, slots=True)
class LeaveConversation:
    """Ends the caller's membership."""

    conversation_id: str
    id: ChangeId


@dataclass(frozen=True, slots=True)
class UpdateConversation:
    """Changes settings, in the order of `SETTINGS`, each once."""

    conversation_id: str
    id: ChangeId
    changes: tuple[Setting, ...]


@dataclass(frozen=True, slots=True)
class SetRole:
    """Gives a member a role."""

    conversation_id: str
    id: ChangeId
    user_id: str
    role: Role


@dataclass(frozen=True, slots=True)
class TransferOwnership:
    """Makes another member an owner, and the caller an admin."""

    conversation_id: str
    id: ChangeId
    user_id: str


@dataclass(frozen=True, slots=True)
class SetMute:
    """Mutes a member until a time; 0: no longer."""

    conversation_id: str
    id: ChangeId
    user_id: str
    until_ms: int


@dataclass(frozen=True, slots=True)
class SetBan:
    """Bans a member or ex-member until a time; 0: no longer."""

    conversation_id: str
    id: ChangeId
    user_id: str
    until_ms: int


@dataclass(frozen=True, slots=True)
class SetInvitation:
    """Lets so many join by an invitation until a time; 0: nobody any more."""

    conversation_id: str
    id: ChangeId
    invitation: str
    uses: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class JoinConversation:
    """Makes the caller a member by an invitation."""

    conversation_id: str
    id: ChangeId
    invitation: str


@dataclass(frozen=True, slots=True)
class MarkDelivered:
    """Moves the caller's delivered mark."""

    conversation_id: str
    seq: int


@dataclass(frozen=True, slots=True)
class MarkRead:
    """Moves the caller's read mark."""

    conversation_id: str
    seq: int


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """Replaces a session's token. Only for sessions."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Sets the caller's status."""

    availability: int
    status_text: str


@dataclass(frozen=True, slots=True)
class GetConversation:
    """Gets a conversation."""

    conversation_id: str


@dataclass(frozen=True, slots=True)
class ListConversations:
    """Lists the caller's conversations."""

    page_size: int
    page_token: str


@dataclass(frozen=True, slots=True)
class ListMembers:
    """Lists members."""

    conversation_id: str
    page_size: int
    page_token: str


@dataclass(frozen=True, slots=True)
class ListHistory:
    """Lists entries. `from_seq` 0 stands for the end that the direction begins at."""

    conversation_id: str
    from_seq: int
    ascending: bool
    page_size: int
    page_token: str


@dataclass(frozen=True, slots=True)
class GetMessage:
    """Gets one entry by its position or, when `seq` is 0, by the id its sender gave it."""

    conversation_id: str
    seq: int
    id: ChangeId | None


@dataclass(frozen=True, slots=True)
class ListReceipts:
    """Lists receipts."""

    conversation_id: str
    page_size: int
    page_token: str


@dataclass(frozen=True, slots=True)
class GetUnread:
    """Counts unread messages, in all conversations when none are named."""

    conversation_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GetPresence:
    """Gets presence."""

    user_ids: tuple[str, ...]


Command = (
    Hello
    | SendMessage
    | EditMessage
    | DeleteMessage
    | SetReaction
    | ListReactions
    | SetPin
    | ListPins
    | CreateConversation
    | AddMembers
    | RemoveMember
    | LeaveConversation
    | UpdateConversation
    | SetRole
    | TransferOwnership
    | SetMute
    | SetBan
    | SetInvitation
    | JoinConversation
    | MarkDelivered
    | MarkRead
    | RefreshToken
    | SetStatus
    | GetConversation
    | ListConversations
    | ListMembers
    | ListHistory
    | GetMessage
    | ListReceipts
    | GetUnread
    | GetPresence
    | AdminCommand
)


# Results


@record(frozen=True, slots=True)
class Sent:
    """A message is durable at `seq`."""

    seq: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class MessageChanged:
    """A change of a message is durable at `seq`; 0 when there was nothing to change. `command` says which it was."""

    command: type[EditMessage] | type[DeleteMessage] | type[SetReaction] | type[SetPin]
    seq: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class ReactionsListed:
    """A page of (user, reaction)."""

    reactions: tuple[tuple[str, str], ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class ConversationChanged:
    """A change of a conversation or of who is in it is durable at `seq`; 0 when there was nothing to change. `command`
    says which it was.
    """

    command: type[Command]
    seq: int


@dataclass(frozen=True, slots=True)
class ConversationView:
    """A conversation as one member sees it."""

    conversation_id: str
    kind: ConversationKind
    title: str
    peer_user_id: str
    create_ms: int
    update_ms: int
    member_count: int
    head_seq: int
    role: Role | None
    join_seq: int
    read_seq: int
    unread_count: int
    description: str = ""
    picture: str = ""
    custom_data: str = ""
    frozen: bool = False
    rights: tuple[RightOverride, ...] = ()
    history_for_newcomers: bool = False
    unread_mention_count: int = 0


@dataclass(frozen=True, slots=True)
class ConversationGot:
    """One conversation; `created` says that it was asked for by create."""

    view: ConversationView
    created: bool


@dataclass(frozen=True, slots=True)
class ConversationsListed:
    """A page of conversations."""

    views: tuple[ConversationView, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class MembersListed:
    """A page of members."""

    members: tuple[Membership, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class HistoryListed:
    """A page of entries: `events` are joined `events` elements in the asked order."""

    events: bytes
    next_page_token: str


@dataclass(frozen=True, slots=True)
class PinsListed:
    """Pinned messages: joined `events` elements, each entry followed by what became of it."""

    events: bytes


@dataclass(frozen=True, slots=True)
class MessageGot:
    """One entry, as one `events` element; and another with what became of it, or nothing."""

    event: bytes
    state: bytes = b""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The delivered mark in force."""

    delivered_seq: int


@dataclass(frozen=True, slots=True)
class Read:
    """The read mark in force, and what is unread after it."""

    read_seq: int
    unread_count: int


@dataclass(frozen=True, slots=True)
class ReceiptMarks:
    """One member's marks."""

    user_id: str
    delivered_seq: int
    read_seq: int


@dataclass(frozen=True, slots=True)
class ReceiptsListed:
    """A page of marks."""

    marks: tuple[ReceiptMarks, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class UnreadCount:
    """The unread messages of one conversation."""

    conversation_id: str
    unread_count: int
    read_seq: int
    unread_mention_count: int = 0


@dataclass(frozen=True, slots=True)
class UnreadGot:
    """Unread counts, without conversations that have none."""

    counts: tuple[UnreadCount, ...]


@dataclass(frozen=True, slots=True)
class PresenceView:
    """What is known of one user. `last_seen_ms` is 0 while online and when never seen."""

    user_id: str
    online: bool
    last_seen_ms: int
    availability: int
    status_text: str


@dataclass(frozen=True, slots=True)
class PresenceGot:
    """Presences, in the order asked."""

    presences: tuple[PresenceView, ...]


@dataclass(frozen=True, slots=True)
class StatusSet:
    """The status in force."""

    presence: PresenceView


@dataclass(frozen=True, slots=True)
class TokenRefreshed:
    """The session goes on with a token that expires at `expires_at_ms`."""

    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class RefusedCursor:
    """A cursor of a hello that was not taken, and the position that the session starts with
    instead.
    """

    log: str
    seq: int
    problem: DomainError


@dataclass(frozen=True, slots=True)
class Welcomed:
    """The session is open."""

    refused: tuple[RefusedCursor, ...] = ()


Result = (
    Sent
    | MessageChanged
    | ReactionsListed
    | ConversationChanged
    | ConversationGot
    | ConversationsListed
    | MembersListed
    | HistoryListed
    | PinsListed
    | MessageGot
    | Delivered
    | Read
    | ReceiptsListed
    | UnreadGot
    | PresenceGot
    | StatusSet
    | TokenRefreshed
    | Welcomed
    | AdminResult
)
