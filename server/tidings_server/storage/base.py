"""The storage port: what the server asks of a store, as a contract that every implementation keeps.

Logs
----
A log is named by a string: a conversation id, or "inbox:" and a user id. Its entries lie in pages
without gaps from position 1. The *head* of a log describes its newest position. A log without pages
has no head.

`append` is the only way to write pages, and is conditional: it is applied exactly when the log's
newest position is `expected_head`. It is atomic and, once `APPLIED` is answered, durable: it
survives a crash of the process and of the machine. Its answers:

- `APPLIED`: the page is there, and durable. Given for the first answer only; nothing is said of who
  else appended before.
- `Conflict(head)`: the newest position was another one, `head`; nothing was written. An identical
  append (same `commit_id`) that was answered `UNKNOWN` before may be the cause: compare the
  `commit_id` of the page at `expected_head + 1`.
- `UNKNOWN`: it may have been applied, may not have been, or may be applied later. Only sending the
  identical append again until the answer is definite tells.
- `StoreUnavailable` (raised): not applied, and never will be. It speaks of this call alone: an
  identical append that was answered `UNKNOWN` before is as unknown as it was.

Everything else (`put_*`) is an upsert that may be repeated: each row has a rule that makes the
result independent of order and repetition ("the larger wins"; of equals the stored one stays). When
a `put_*` returns, its rows are durable; when it raises `StoreUnavailable`, they may or may not be
written, and the caller repeats it or lets it be.

Reads see everything that was answered before they were called. They may raise `StoreUnavailable`.

Intents
-------
What a node is about to append to, so that others look after it when it ends before it has told of it: names of logs
under the node's id, by rounds that the node counts up. A round that was cleared is over: what is put in it later may be
lost. Stores may forget intents a day after they were put.

Cancellation of an awaiting caller never undoes a write.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from tidings_server.core.memberships import Membership
from tidings_server.core.pages import BUCKET_SIZE, ID_BYTES, Page, bucket_of
from tidings_server.core.records import record


class Trouble(Enum):
    """What is wrong with a store, as far as an operator is told without reading the log."""

    UNREACHABLE = "it can't be reached"
    SLOW = "it does not answer in time"
    TOO_FEW_REPLICAS = "too few of its replicas are up"
    FULL = "its disk is full"
    READ_ONLY = "it can only be read"
    DISK = "its disk fails"
    OTHER = "it fails; the cause is in the log"


class StoreUnavailable(Exception):
    """The store can't be used now. The text is for the log, never for a client; `trouble` is for the operator."""

    def __init__(self, text: str = "", trouble: Trouble = Trouble.OTHER) -> None:
        super().__init__(text)
        self.trouble = trouble


class StoreCorrupt(Exception):
    """What is stored contradicts itself, or is of a newer version. Nobody should write to it."""


@record(frozen=True, slots=True)
class Head:
    """The newest position of a log.

    `last_seq`, `ordinal`, `stamp`, `commit_id` are those of its newest page. `pending` are the
    positions of changes whose effects outside the log are not yet known to be written, ascending.
    """

    last_seq: int
    ordinal: int
    stamp: int
    commit_id: bytes
    pending: tuple[int, ...] = ()


@record(frozen=True, slots=True)
class Append:
    """A conditional append.

    The page begins at `expected_head + 1` and lies in one bucket. `pending` becomes the head's.
    `snapshot` is the state of the log at `expected_head` (opaque bytes) and is given exactly when
    the page is the first of its bucket.
    """

    log: str
    expected_head: int
    page: Page
    pending: tuple[int, ...] = ()
    snapshot: bytes | None = None


@dataclass(frozen=True, slots=True)
class Conflict:
    """The append was refused: the newest position is `head`."""

    head: int


class Answer(Enum):
    """The other answers to an append."""

    APPLIED = "applied"
    UNKNOWN = "unknown"


APPLIED = Answer.APPLIED
UNKNOWN = Answer.UNKNOWN
Outcome = Answer | Conflict


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a log after `seq` entries, as opaque bytes."""

    seq: int
    state: bytes


@record(frozen=True, slots=True)
class PageIds:
    """The ids of one page: `ids` are `count` times 16 bytes."""

    first_seq: int
    stamp: int
    ids: bytes


@record(frozen=True, slots=True)
class CursorRow:
    """How far a device has applied a log."""

    user_id: str
    device_id: str
    log: str
    seq: int


@record(frozen=True, slots=True)
class Receipt:
    """How far a member has got and read a conversation; `read_ordinal` is that at `read_seq`."""

    log: str
    user_id: str
    delivered_seq: int = 0
    read_seq: int = 0
    read_ordinal: int = 0


@dataclass(frozen=True, slots=True)
class PresenceRow:
    """What is kept of a user's presence.

    `last_seen_ms` (0: never) is when a device was last connected; the larger wins. `status_ms` is
    when the status was set; the status with the larger one wins, and 0 leaves the stored status
    alone.
    """

    user_id: str
    last_seen_ms: int = 0
    status_ms: int = 0
    availability: int = 0
    status_text: str = ""


@record(frozen=True, slots=True)
class OverlayRow:
    """What later entries made of the message at `seq`, folded up to position `as_of`, as opaque bytes."""

    seq: int
    as_of: int
    body: bytes


@record(frozen=True, slots=True)
class ReactionRow:
    """A user's reaction to the message at `seq`, empty when it was taken back, set at position `as_of`."""

    seq: int
    user_id: str
    as_of: int
    reaction: str


@record(frozen=True, slots=True)
class MentionRow:
    """A user, or everybody for '', is mentioned in the message at `seq` of `author`, by what is folded up to position
    `as_of`; an empty author: the mention was taken back.
    """

    user_id: str
    seq: int
    as_of: int
    author: str


class Store(ABC):
    """A store of logs, memberships, registers and presence. One instance serves one event loop."""

    shared = False
    """Whether other processes append to the same logs, so that what was read before may be old."""

    @property
    @abstractmethod
    def incarnation(self) -> str:
        """A name for the history in this store: another one after a restore from a backup.

        Known once `open` returned.
        """

    @abstractmethod
    def history_since(self, incarnation: str) -> int | None:
        """When the history of an *earlier* incarnation of this store ended, as a stamp: pages
        appended after the restore have a stamp of at least that, pages before a smaller one (a
        restore takes the largest stamp of its backup plus one). None for every other name. Known
        once `open` returned.
        """

    @property
    @abstractmethod
    def stamp_floor(self) -> int:
        """The least stamp that a page appended from now on may have; 0 when there was no restore."""

    @abstractmethod
    async def open(self) -> None:
        """Makes the store usable, bringing its schema up to date.

        Raises StoreUnavailable when it can't be reached or another process holds it, StoreCorrupt
        when it can't be trusted.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finishes what was begun and lets go of everything.

        Further calls raise StoreUnavailable. May be called twice.
        """

    @abstractmethod
    async def check(self) -> None:
        """Returns when the store can be written to now.

        Raises StoreUnavailable with the reason when it can't.
        """

    # Logs

    @abstractmethod
    def append(self, request: Append) -> asyncio.Future[Outcome]:
        """Appends a page, as said above.

        A plain function that returns a future, so that the hot path needs no task. Raises
        ValueError at once when the request breaks its own rules; everything else, StoreUnavailable
        too, comes through the future. Appends to different logs are independent; the caller has at
        most one for a log under way.
        """

    @abstractmethod
    async def heads(self, logs: Sequence[str]) -> dict[str, Head]:
        """The heads of the logs that have one."""

    async def settled_heads(self, logs: Sequence[str]) -> dict[str, Head]:
        """The heads, after appends that were begun and left without an answer were finished or ruled out, where that
        can be told by now. It may cost more than `heads`.
        """
        return await self.heads(logs)

    @abstractmethod
    async def snapshot(self, log: str) -> Snapshot | None:
        """The newest snapshot of a log, or None when it has no pages.

        Its `seq` is a multiple of the bucket size.
        """

    @abstractmethod
    async def read(
        self, log: str, after: int, *, max_bytes: int, upto: int | None = None
    ) -> list[Page]:
        """The pages that hold positions after `after` and up to `upto` (default: the head).

        They ascend without gaps. The first may begin before `after + 1` and the last may end after
        `upto`. Stops before the bodies together would exceed `max_bytes`, but gives at least one
        page if there is any.
        """

    @abstractmethod
    async def read_back(self, log: str, before: int, *, max_bytes: int) -> list[Page]:
        """The pages that hold positions before `before`, descending and without gaps.

        The first may end at or after `before`. Stops before the bodies together would exceed
        `max_bytes`, but gives at least one page if there is any.
        """

    @abstractmethod
    async def read_flagged(self, log: str, after: int, flag: int, *, limit: int) -> list[Page]:
        """The first `limit` pages that begin after `after` and have a bit of `flag` set.

        Ascending.
        """

    @abstractmethod
    async def read_ids(
        self, log: str, *, before: int, min_stamp: int, max_pages: int
    ) -> list[PageIds]:
        """The ids of the newest `max_pages` pages that begin before `before` and are recent enough.

        Those have a stamp of at least `min_stamp`. Descending. Cheap: bodies are not read.
        """

    @abstractmethod
    async def rewrite(self, log: str, page: Page) -> bool:
        """Replaces the body of a page, if its stored revision is the one before `page.rev`.

        Nothing else of the page changes. Returns whether the stored page has this revision and body now; so a
        rewriting that was answered with StoreUnavailable, and may or may not have been done, can be asked for again.
        """

    # What became of messages

    @abstractmethod
    async def put_overlays(self, log: str, rows: Sequence[OverlayRow]) -> None:
        """Writes overlays of messages. For each message the larger `as_of` wins."""

    @abstractmethod
    async def overlays(self, log: str, first: int, last: int) -> list[OverlayRow]:
        """The overlays of the messages at the positions `first .. last`, ascending; most messages have none."""

    @abstractmethod
    async def put_reactions(self, log: str, rows: Sequence[ReactionRow]) -> None:
        """Writes reactions. For each (message, user) the larger `as_of` wins."""

    @abstractmethod
    async def reactions_of(
        self, log: str, user_id: str, seqs: Sequence[int]
    ) -> dict[int, ReactionRow]:
        """The rows of a user for these messages, by position; those without one are left out."""

    @abstractmethod
    async def list_reactions(
        self, log: str, seq: int, *, after_user: str, limit: int
    ) -> list[ReactionRow]:
        """The first `limit` rows for a message whose user id is greater than `after_user`, in code point order,
        without those that were taken back.
        """

    @abstractmethod
    async def put_mentions(self, log: str, rows: Sequence[MentionRow]) -> None:
        """Writes mentions. For each (user, message) the larger `as_of` wins."""

    @abstractmethod
    async def mentions(self, log: str, user_id: str, *, after: int, limit: int) -> list[MentionRow]:
        """The first `limit` rows of exactly this user id for messages after a position, ascending, without those that
        were taken back.
        """

    # Intents

    @abstractmethod
    async def put_intents(self, node_id: str, round_: int, logs: Sequence[str]) -> None:
        """Notes that a node may append to these logs in a round."""

    @abstractmethod
    async def intent_nodes(self) -> list[str]:
        """The nodes that have intents, in no order; perhaps also some whose putting or clearing failed half-way."""

    @abstractmethod
    async def intent_rounds(self, node_id: str) -> list[int]:
        """The rounds in which a node has intents, ascending; perhaps some more, as with the nodes."""

    @abstractmethod
    async def intents(self, node_id: str, round_: int, *, after: str, limit: int) -> list[str]:
        """The first `limit` logs of a node's round whose names are greater than `after`, in code point order."""

    @abstractmethod
    async def clear_intents(self, node_id: str, upto: int) -> None:
        """Removes a node's intents of all rounds up to one, as `put_*` writes."""

    # Memberships

    @abstractmethod
    async def put_memberships(self, log: str, rows: Sequence[Membership]) -> None:
        """Writes memberships of a conversation. For each user the larger `as_of` wins."""

    @abstractmethod
    async def memberships(self, log: str, users: Sequence[str]) -> dict[str, Membership]:
        """The rows of these users in a conversation; those without one are left out."""

    @abstractmethod
    async def memberships_of(self, user_id: str, logs: Sequence[str]) -> dict[str, Membership]:
        """The rows of a user in these conversations; those without one are left out."""

    @abstractmethod
    async def list_memberships(self, log: str, *, after_user: str, limit: int) -> list[Membership]:
        """The first `limit` rows of *current* members whose user id is greater than `after_user`.

        User ids are in code point order.
        """

    @abstractmethod
    async def put_user_logs(self, log: str, users: Iterable[str]) -> None:
        """Notes that these users may be, or become, members of a conversation.

        A superset: the log decides who is.
        """

    @abstractmethod
    async def user_logs(self, user_id: str) -> list[str]:
        """The conversations noted for a user, in no order."""

    # Registers

    @abstractmethod
    async def put_cursors(self, rows: Sequence[CursorRow]) -> None:
        """Moves cursors. For each (user, device, log) the larger `seq` wins."""

    @abstractmethod
    async def cursors(self, user_id: str, device_id: str) -> dict[str, int]:
        """The cursors of a device: log to position."""

    @abstractmethod
    async def put_receipts(self, rows: Sequence[Receipt]) -> None:
        """Moves receipts.

        For each (log, user) the larger `delivered_seq` wins, and the larger `read_seq` with its
        ordinal.
        """

    @abstractmethod
    async def receipts_of(self, user_id: str, logs: Sequence[str]) -> dict[str, Receipt]:
        """The receipts of a user in these conversations; those without one are left out."""

    @abstractmethod
    async def list_receipts(self, log: str, *, after_user: str, limit: int) -> list[Receipt]:
        """The first `limit` receipts in a conversation whose user id is greater than `after_user`.

        User ids are in code point order.
        """

    # Presence

    @abstractmethod
    async def put_presence(self, rows: Sequence[PresenceRow]) -> None:
        """Writes presence by the rules of `PresenceRow`."""

    @abstractmethod
    async def presence(self, users: Sequence[str]) -> dict[str, PresenceRow]:
        """What is kept of these users; those without a row are left out."""


def validate(request: Append) -> None:
    """Raises ValueError when an append breaks the rules that hold whatever the store contains."""
    page = request.page
    if page.count < 1 or page.first_seq != request.expected_head + 1:
        raise ValueError("a page begins right after the expected head and holds an entry at least")
    if bucket_of(page.first_seq) != bucket_of(page.last_seq):
        raise ValueError("a page lies in one bucket")
    if len(page.ids) != page.count * ID_BYTES:
        raise ValueError("a page has one id an entry")
    if (request.snapshot is None) == (request.expected_head % BUCKET_SIZE == 0):
        raise ValueError("a snapshot goes with the first page of a bucket, and only with it")
    if page.rev != 0 or len(page.commit_id) != ID_BYTES:
        raise ValueError("a new page has revision 0 and a commit id of 16 bytes")
