"""The router: hands every change to the home of its log, here or at another node."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from ..core.homes import home_of
from ..presence.base import Leases, NodeInfo
from ..telemetry.counters import Counters
from ..telemetry.tracing import Tracer
from .forwarding import Dial, Peer
from .proposals import Proposal
from .sequencer import Sequencer

_HOMES_KEPT = 100_000


class Router:
    """Where changes go. One instance serves one event loop.

    Who the home is follows from which nodes live, which nodes may see differently for a moment; the condition of each
    append decides then. A home that can't be reached is passed over.
    """

    def __init__(
        self,
        sequencer: Sequencer,
        leases: Leases,
        dial: Dial | None,
        counters: Counters,
        tracer: Tracer,
    ) -> None:
        self._sequencer = sequencer
        self._leases = leases
        self._dial = dial
        self._counters = counters
        self._tracer = tracer
        self._closed = False
        self._peers: dict[str, Peer] = {}
        self._retired: list[Peer] = []
        self._homes: OrderedDict[str, Peer | None] = OrderedDict()

    def submit(self, proposal: Proposal) -> None:
        """Takes a change. Its `done` is called once, later, with the outcome."""
        if self._peers:
            peer = self._home(proposal.log)
            if peer is not None and peer.forward(proposal):
                return
        self._sequencer.submit(proposal)

    def nodes_changed(self) -> None:
        """Nodes came or went, or can be the home of logs no longer, or again."""
        if self._dial is None or self._closed:
            return
        nodes = {
            node_id: node
            for node_id, node in self._leases.nodes().items()
            if node.address and node_id != self._leases.node.node_id
        }
        self._homes.clear()
        self._retired = [peer for peer in self._retired if peer.pending]
        for peer in list(self._peers.values()):
            if nodes.get(peer.node.node_id) != peer.node:
                # It may be about to answer, and if it is dead, its link tells.
                del self._peers[peer.node.node_id]
                self._retired.append(peer)
                peer.retire()
        for node_id, node in nodes.items():
            if node_id not in self._peers:
                decide_here = self._sequencer.submit
                peer = Peer(node, self._dial, decide_here, self._counters, self._tracer)
                self._peers[node_id] = peer
                peer.connect()

    def home(self, log: str) -> NodeInfo:
        """The node that appends to a log, as far as is known here."""
        peer = self._home(log)
        return self._leases.node if peer is None else peer.node

    @property
    def pending(self) -> int:
        """Changes that other nodes have not decided yet."""
        return sum(peer.pending for peer in (*self._peers.values(), *self._retired))

    async def drain(self) -> None:
        """Returns when the other nodes have decided on all that they were asked."""
        # Only at the end of a process: not worth an event that the hot path would have to set.
        while self.pending:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    def close(self) -> None:
        """Lets go of the other nodes, for good. What they have not decided is decided here."""
        self._closed = True
        peers = [*self._peers.values(), *self._retired]
        self._peers.clear()
        self._retired.clear()
        self._homes.clear()
        for peer in peers:
            peer.close()

    def _home(self, log: str) -> Peer | None:
        """The peer that is the home of a log; None when it is this node."""
        try:
            return self._homes[log]
        except KeyError:
            pass
        me = self._leases.node
        candidates = [*self._peers, *([me.node_id] if me.address else [])]
        home = home_of(log, candidates)
        peer = self._peers.get(home) if home is not None else None
        self._homes[log] = peer
        if len(self._homes) > _HOMES_KEPT:
            self._homes.popitem(last=False)
        return peer
