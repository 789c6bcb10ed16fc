"""What operators ask for, and what they are told. Numbers of enums as in `tidings.v1`.

Part of `commands`, which names these among its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from .entries import ConversationKind

if TYPE_CHECKING:
    from .commands import ChangeId


@dataclass(frozen=True, slots=True)
class ListNodes:
    """Lists the nodes that live."""


@dataclass(frozen=True, slots=True)
class ListSessions:
    """Lists sessions of this node: all when `user_id` is empty."""

    user_id: str
    page_size: int
    page_token: str


@dataclass(frozen=True, slots=True)
class GetConversationState:
    """Shows where a log stands."""

    conversation_id: str


@dataclass(frozen=True, slots=True)
class ListConversationStates:
    """Lists the logs of a user or, when `user_id` is empty, those followed here."""

    user_id: str
    page_size: int
    page_token: str


@dataclass(frozen=True, slots=True)
class DrainNode:
    """Drains a node, this one when `node_id` is empty, spreading its devices over a time."""

    node_id: str
    spread_ms: int


@dataclass(frozen=True, slots=True)
class ExplainDelivery:
    """Explains what became of an entry, named by its position or, when `seq` is 0, by its id."""

    conversation_id: str
    seq: int
    id: ChangeId | None
    user_id: str
    device_ids: tuple[str, ...]


AdminCommand = (
    ListNodes
    | ListSessions
    | GetConversationState
    | ListConversationStates
    | DrainNode
    | ExplainDelivery
)


# Results


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """What a node carries."""

    sessions: int
    users: int
    followed_logs: int
    loaded_logs: int
    outbox_bytes: int


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node. `draining` and `load` are None for other nodes than this one."""

    node_id: str
    address: str
    version: str
    draining: bool | None = None
    load: NodeLoad | None = None


@dataclass(frozen=True, slots=True)
class NodesListed:
    """The nodes that live."""

    nodes: tuple[NodeView, ...]


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session, as an operator sees it."""

    session_id: str
    user_id: str
    device_id: str
    node_id: str
    open_ms: int
    token_expire_ms: int
    syncing: bool
    logs: int
    lagging_logs: int
    window: int
    unacknowledged: int
    outbox_bytes: int


@dataclass(frozen=True, slots=True)
class SessionsListed:
    """A page of this node's sessions, and the nodes that were not asked."""

    sessions: tuple[SessionView, ...]
    next_page_token: str
    other_node_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadedState:
    """What the loaded state of a log tells. `kind` is None for inboxes."""

    kind: ConversationKind | None
    member_count: int
    create_ms: int
    read_only: bool


@dataclass(frozen=True, slots=True)
class LogStanding:
    """Where a log stands. `loaded` is None where its state is not in memory; `home_node_id` is empty when not known."""

    log: str
    head_seq: int
    head_ms: int
    message_count: int
    pending: tuple[int, ...]
    home_node_id: str
    following: int
    loaded: LoadedState | None


@dataclass(frozen=True, slots=True)
class Following:
    """A session that follows a log."""

    session_id: str
    user_id: str
    device_id: str
    sent_seq: int
    acknowledged_seq: int
    lagging: bool


@dataclass(frozen=True, slots=True)
class ConversationStateGot:
    """Where a log stands, and who follows it here."""

    state: LogStanding
    sessions: tuple[Following, ...]
    other_node_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConversationStatesListed:
    """A page of logs."""

    states: tuple[LogStanding, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class NodeDrained:
    """A node drains; so many sessions were asked to leave."""

    node_id: str
    sessions: int


class DeliveryOutcome(IntEnum):
    """What became of an entry for a user."""

    UNKNOWN = 1
    NOT_COMMITTED = 2
    NOT_FOR_USER = 3
    OFFLINE = 4
    WAITING = 5
    IN_A_GAP = 6
    SENT = 7
    DELIVERED = 8
    READ = 9


class DeliveryStep(IntEnum):
    """A step on an entry's way."""

    ACCEPTED = 1
    COMMITTED = 2
    VISIBLE = 3
    PUBLISHED = 4
    OFFERED = 5
    CONNECTED = 6
    WRITTEN = 7
    ACKNOWLEDGED = 8
    DELIVERED = 9
    READ = 10


class FactState(IntEnum):
    """Whether a step was taken."""

    YES = 1
    NO = 2
    UNKNOWN = 3


class FactSource(IntEnum):
    """Where a fact comes from; NONE when it is not known."""

    NONE = 0
    LOG = 1
    MEMBERSHIP = 2
    CURSOR = 3
    RECEIPT = 4
    PRESENCE = 5
    SESSION = 6
    TRACE = 7


class FactCause(IntEnum):
    """Why a step was not taken or is not known."""

    NONE = 0
    NO_SUCH_CONVERSATION = 1
    ID_NOT_IN_LOG = 2
    AHEAD_OF_HEAD = 3
    LOOK_UP_TOO_LONG = 4
    REFUSED = 5
    NEVER_A_MEMBER = 6
    JOINED_LATER = 7
    REMOVED_BEFORE = 8
    IN_A_GAP = 9
    OFFLINE = 10
    SYNCING = 11
    CATCHING_UP = 12
    WINDOW_FULL = 13
    OUTBOX_FULL = 14
    IN_OUTBOX = 15
    NOT_FOLLOWED = 16
    NOT_YET = 17
    FORGOTTEN = 18
    OTHER_NODE = 19
    NOT_KEPT = 20
    DEVICES_NOT_LISTED = 21


@dataclass(frozen=True, slots=True)
class DeliveryFact:
    """Something that is known, or not known, about an entry's way. `text` says the same in a sentence."""

    step: DeliveryStep
    state: FactState
    text: str
    source: FactSource = FactSource.NONE
    cause: FactCause = FactCause.NONE
    time_ms: int = 0
    seq: int = 0
    node_id: str = ""
    device_id: str = ""
    session_id: str = ""


@dataclass(frozen=True, slots=True)
class ExplainedEntry:
    """An entry without what it says. `kind` is the name of the field of `tidings.v1.Entry.body`."""

    seq: int
    message_id: str
    sender_user_id: str
    kind: str
    commit_ms: int


@dataclass(frozen=True, slots=True)
class SessionNote:
    """Something that happened to a session."""

    time_ms: int
    device_id: str
    session_id: str
    text: str


@dataclass(frozen=True, slots=True)
class DeliveryExplained:
    """What became of an entry; `entry` is None when it is not in the log. `message_id` is what was asked for, or
    empty. `notes` are what happened to the user's sessions here, the oldest first.
    """

    outcome: DeliveryOutcome
    facts: tuple[DeliveryFact, ...]
    entry: ExplainedEntry | None
    message_id: str
    head_seq: int
    node_id: str
    notes: tuple[SessionNote, ...] = ()


AdminResult = (
    NodesListed
    | SessionsListed
    | ConversationStateGot
    | ConversationStatesListed
    | NodeDrained
    | DeliveryExplained
)
