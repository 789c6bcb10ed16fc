"""Handles the commands of operators. Every one of them is refused to whoever's token does not say that they are one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from heapq import nsmallest
from typing import Any

import structlog

from ..core import admin as a
from ..core.ids import id_bytes, is_inbox, uuid7_time
from ..core.principal import ADMIN_SCOPE, Principal
from ..delivery.acks import AckBook
from ..delivery.hub import Hub
from ..delivery.session import Session
from ..errors import DomainError, Reason, conversation_not_found, invalid
from ..messaging.log_state import LogState
from ..messaging.router import Router
from ..messaging.sequencer import Sequencer
from ..presence.base import Leases, NodeInfo
from ..storage.base import Head, Store
from ..telemetry.counters import Counters
from ..telemetry.trail import Trail
from .evidence import Witness, other_nodes
from .explanation import explain
from .merging import merged

log = structlog.get_logger(__name__)

FOLLOWING_SHOWN = 100

ASKED_AT_MOST = 64
"""Other nodes that are asked to explain what became of an entry."""
ANSWERED_WITHIN_S = 2.0

Ask = Callable[[NodeInfo, a.ExplainDelivery], Awaitable[a.DeliveryExplained]]
Handler = Callable[[Principal, Any], Awaitable[a.AdminResult]]


class Admin:
    """What operators may ask of one node. Raises DomainError, and StoreUnavailable.

    `drain` begins to drain this node, spreading its devices over so many milliseconds. `ask` asks another node what it
    knows of an entry, and raises OSError or ValueError when it does not answer.
    """

    def __init__(
        self,
        store: Store,
        sequencer: Sequencer,
        router: Router,
        leases: Leases,
        hub: Hub,
        acks: AckBook,
        counters: Counters,
        trail: Trail,
        drain: Callable[[int], None],
        ask: Ask | None,
    ) -> None:
        self._store = store
        self._sequencer = sequencer
        self._router = router
        self._leases = leases
        self._hub = hub
        self._counters = counters
        self._drain = drain
        self._ask = ask
        self._witness = Witness(store, sequencer, leases, hub, acks, trail)

    @property
    def handlers(self) -> dict[type, Handler]:
        """The handler of each command, for admins alone."""
        return {
            a.ListNodes: _only_admins(self._list_nodes),
            a.ListSessions: _only_admins(self._list_sessions),
            a.GetConversationState: _only_admins(self._get_state),
            a.ListConversationStates: _only_admins(self._list_states),
            a.DrainNode: _only_admins(self._drain_node),
            a.ExplainDelivery: _only_admins(self._explain),
        }

    async def _list_nodes(self, _: a.ListNodes) -> a.NodesListed:
        me = self._leases.node.node_id
        views = []
        for node_id, node in sorted(self._leases.nodes().items()):
            view = a.NodeView(node_id, node.address, node.version)
            if node_id == me:
                load = a.NodeLoad(
                    self._counters.sessions,
                    self._hub.users,
                    len(self._hub.logs),
                    self._sequencer.loaded,
                    self._counters.outbox_bytes,
                )
                view = a.NodeView(node_id, node.address, node.version, self._hub.draining, load)
            views.append(view)
        return a.NodesListed(tuple(views))

    async def _list_sessions(self, command: a.ListSessions) -> a.SessionsListed:
        user = command.user_id
        size = command.page_size
        if user:
            theirs = (s for s in self._hub.sessions_of(user) if s.id > command.page_token)
            page = nsmallest(size + 1, theirs, key=lambda s: s.id)
        else:
            page = self._hub.sessions_after(command.page_token, size + 1)
        return a.SessionsListed(
            tuple(self._show(s) for s in page[:size]),
            page[size - 1].id if len(page) > size else "",
            other_nodes(self._leases),
        )

    async def _get_state(self, command: a.GetConversationState) -> a.ConversationStateGot:
        log = command.conversation_id
        # Before the state is loaded, which writes the effects that are pending.
        head = (await self._store.heads([log])).get(log)
        if head is None:
            raise conversation_not_found()
        standing = self._standing(log, head, await self._sequencer.state(log))
        joined = self._hub.joined(log)
        return a.ConversationStateGot(
            standing,
            tuple(_following(s, log) for s in joined[:FOLLOWING_SHOWN]),
            other_nodes(self._leases),
        )

    async def _list_states(self, command: a.ListConversationStates) -> a.ConversationStatesListed:
        user, size = command.user_id, command.page_size
        names = await self._store.user_logs(user) if user else self._hub.logs
        page = nsmallest(size + 1, (name for name in names if name > command.page_token))
        heads = await self._store.heads(page[:size])
        states = tuple(
            self._standing(log, heads[log], self._sequencer.loaded_state(log))
            for log in page[:size]
            if log in heads
        )
        return a.ConversationStatesListed(states, page[size - 1] if len(page) > size else "")

    async def _drain_node(self, command: a.DrainNode) -> a.NodeDrained:
        me = self._leases.node.node_id
        if command.node_id not in ("", me):
            if command.node_id not in self._leases.nodes():
                raise invalid("node_id", "no node with this id lives, as far as is known here")
            raise DomainError(
                Reason.OTHER_NODE,
                "This node does not drain others: call the node at its own address.",
                field="node_id",
            )
        sessions = len(self._hub.sessions)
        self._drain(command.spread_ms)
        return a.NodeDrained(me, sessions)

    async def witness(self, command: a.ExplainDelivery) -> a.DeliveryExplained:
        """What this node alone knows and remembers, for another one whose operator has asked."""
        return explain(await self._witness.gather(command))

    async def _explain(self, command: a.ExplainDelivery) -> a.DeliveryExplained:
        nodes = self._leases.nodes()
        others = other_nodes(self._leases)
        answers: dict[str, a.DeliveryExplained | None] = dict.fromkeys(others)
        asked = others[:ASKED_AT_MOST]
        own, *told = await asyncio.gather(
            self.witness(command), *(self._asked(nodes[node_id], command) for node_id in asked)
        )
        assert own is not None
        answers.update(zip(asked, told, strict=True))
        return merged(own, answers) if answers else own

    async def _asked(
        self, node: NodeInfo, command: a.ExplainDelivery
    ) -> a.DeliveryExplained | None:
        if self._ask is None or not node.address:
            return None
        try:
            async with asyncio.timeout(ANSWERED_WITHIN_S):
                return await self._ask(node, command)
        except (OSError, ValueError) as problem:
            log.warning("node_tells_nothing", node=node.node_id, cause=str(problem))
            return None

    def _show(self, session: Session) -> a.SessionView:
        return a.SessionView(
            session_id=session.id,
            user_id=session.principal.user_id,
            device_id=session.principal.device_id,
            node_id=self._leases.node.node_id,
            open_ms=uuid7_time(id_bytes(session.id)),
            token_expire_ms=session.principal.expires_at_ms,
            syncing=session.syncing,
            logs=len(session.positions),
            lagging_logs=sum(p.lagging for p in session.positions.values()),
            window=session.window.size,
            unacknowledged=session.window.unacked,
            outbox_bytes=session.outbox.bytes,
        )

    def _standing(self, log: str, head: Head, state: LogState | None) -> a.LogStanding:
        loaded = None
        if state is not None:
            folded = state.conversation
            loaded = a.LoadedState(
                None if is_inbox(log) else folded.kind,
                folded.member_count,
                folded.create_ms,
                folded.readable_only,
            )
        return a.LogStanding(
            log,
            head.last_seq,
            head.stamp,
            head.ordinal,
            head.pending,
            self._router.home(log).node_id,
            len(self._hub.joined(log)),
            loaded,
        )


def _only_admins(handler: Callable[[Any], Awaitable[a.AdminResult]]) -> Handler:
    async def handle(caller: Principal, command: Any) -> a.AdminResult:
        if ADMIN_SCOPE not in caller.scopes:
            raise DomainError(Reason.DENIED, 'This needs a token with the scope "admin".')
        return await handler(command)

    return handle


def _following(session: Session, log: str) -> a.Following:
    position = session.positions.get(log)
    return a.Following(
        session.id,
        session.principal.user_id,
        session.principal.device_id,
        position.sent if position is not None else 0,
        position.acked if position is not None else 0,
        position is None or position.lagging,
    )
