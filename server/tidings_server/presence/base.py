"""The port of leases: which nodes live, and which users are connected to them.

A node holds one lease for itself and renews it; users are announced at transitions only, and are online while a
node that has announced them has its lease. Everything here is forgotten when all nodes end, and may be wrong for the
length of a lease: nothing that must be right may rest on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node as others see it. `node_id` is made anew at each start. `address` is where other nodes reach it, or
    empty when it is the home of no log; `version` is that of its program.
    """

    node_id: str
    address: str = ""
    version: str = ""


LeftBehind = Callable[[Sequence[str], float], Awaitable[None]]
"""Takes users of a node whose lease has ended, and for how many seconds it had by now. May raise: then it is asked
again later.
"""


def _nothing() -> None:
    pass


async def _nobody(users: Sequence[str], ago_s: float) -> None:
    pass


class Leases(ABC):
    """The leases as one node sees and holds them.

    `nodes_changed` is called on the event loop when nodes came or went, or say something else of themselves; it must
    not raise. `left_behind` is called by one node, as far as that can be told, for the users of a node that did not
    give its lease back: it may live and be cut off. It may be called again for the same users, and not at all when
    what is shared was lost.
    """

    left_behind: LeftBehind = staticmethod(_nobody)
    nodes_changed: Callable[[], None] = staticmethod(_nothing)

    @property
    @abstractmethod
    def node(self) -> NodeInfo:
        """What this node says of itself."""

    @property
    @abstractmethod
    def informed(self) -> bool:
        """Whether this node has its lease and knows of those of the others by now. It is false before the leases of
        others end for this node because it can't read them.
        """

    @abstractmethod
    def announce(self, node: NodeInfo) -> None:
        """Says something else of this node from now on; others hear of it at the next renewal, which comes at once.
        Never blocks, never raises.
        """

    @abstractmethod
    async def start(self) -> None:
        """Takes this node's lease. Returns after a moment even if that was not possible: it is tried again."""

    @abstractmethod
    async def stop(self) -> None:
        """Gives the lease back: this node and its users are gone for others at once, if they can be told."""

    @abstractmethod
    def came(self, user_id: str) -> None:
        """A user is online at this node. Never blocks, never raises. Coming twice is coming once."""

    @abstractmethod
    def left(self, user_id: str) -> None:
        """A user is no longer online at this node. Never blocks, never raises."""

    @abstractmethod
    async def online(self, user_ids: Iterable[str]) -> set[str]:
        """Those of the users who are online at any node that lives. Never raises: when other nodes' users can't be
        asked for, the answer is of this node's.
        """

    @abstractmethod
    def nodes(self) -> Mapping[str, NodeInfo]:
        """The nodes that live, as far as is known, by their ids; always with this one.

        A node that was killed is among them for up to a lease and its renewal; one that has stopped for less. When
        the leases can't be read, or were all lost, the last nodes are kept for one lease.
        """
