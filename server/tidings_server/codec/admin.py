"""What operators ask for, as commands, and what they are told, as messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from tidings.v1 import admin_service_pb2 as pb

from ..core import admin as a
from ..core.ids import inbox_log, is_inbox
from ..errors import DomainError, Reason, invalid
from . import fields

MAX_SPREAD_MS = 60 * 60 * 1000
MAX_DEVICES = 20
_PAGE = (100, 1000)


def _list_nodes(_: pb.ListNodesRequest) -> a.ListNodes:
    return a.ListNodes()


def _list_sessions(r: pb.ListSessionsRequest) -> a.ListSessions:
    return a.ListSessions(
        fields.user("user_id", r.user_id) if r.user_id else "",
        fields.page_size(r.page_size, *_PAGE),
        fields.page_token(r.page_token),
    )


def _get_state(r: pb.GetConversationStateRequest) -> a.GetConversationState:
    return a.GetConversationState(fields.log(r.conversation_id))


def _list_states(r: pb.ListConversationStatesRequest) -> a.ListConversationStates:
    return a.ListConversationStates(
        fields.user("user_id", r.user_id) if r.user_id else "",
        fields.page_size(r.page_size, *_PAGE),
        fields.page_token(r.page_token),
    )


def _drain(r: pb.DrainNodeRequest) -> a.DrainNode:
    # Not by a method of Duration's: those raise for what is out of their own range.
    spread_ms = r.spread.seconds * 1000 + r.spread.nanos // 1_000_000
    if not 0 <= spread_ms <= MAX_SPREAD_MS:
        raise invalid("spread", "must be between 0 and 1 hour")
    fields.text("node_id", r.node_id, 128)
    return a.DrainNode(r.node_id, spread_ms)


def _explain(r: pb.ExplainDeliveryRequest) -> a.ExplainDelivery:
    log, user = fields.log(r.conversation_id), fields.user("user_id", r.user_id)
    if is_inbox(log) and log != inbox_log(user):
        raise invalid("conversation_id", "an inbox is seen by its own user only")
    if len(r.device_ids) > MAX_DEVICES:
        raise DomainError(
            Reason.INVALID_FIELD, f"device_ids: at most {MAX_DEVICES}", field="device_ids"
        )
    devices = fields.users("device_ids", r.device_ids)
    match r.WhichOneof("key"):
        case "seq":
            return a.ExplainDelivery(log, fields.position("seq", r.seq), None, user, devices)
        case "message_id":
            change_id = fields.change_id("message_id", r.message_id)
            return a.ExplainDelivery(log, 0, change_id, user, devices)
    raise invalid("key", "name the message by seq or by message_id")


READERS: dict[type[Message], Callable[[Any], a.AdminCommand]] = {
    pb.ListNodesRequest: _list_nodes,
    pb.ListSessionsRequest: _list_sessions,
    pb.GetConversationStateRequest: _get_state,
    pb.ListConversationStatesRequest: _list_states,
    pb.DrainNodeRequest: _drain,
    pb.ExplainDeliveryRequest: _explain,
}
"""What reads each request. Raises DomainError naming the field at fault."""


def _node_state(draining: bool | None) -> pb.NodeState.ValueType:
    if draining is None:
        return pb.NODE_STATE_UNSPECIFIED
    return pb.NODE_STATE_DRAINING if draining else pb.NODE_STATE_SERVING


def _node(v: a.NodeView) -> pb.Node:
    node = pb.Node(
        node_id=v.node_id,
        address=v.address,
        version=v.version,
        answering=v.load is not None,
        state=_node_state(v.draining),
    )
    if v.load is not None:
        load = v.load
        node.load.CopyFrom(
            pb.NodeLoad(
                sessions=load.sessions,
                users=load.users,
                followed_logs=load.followed_logs,
                loaded_logs=load.loaded_logs,
                outbox_bytes=load.outbox_bytes,
            )
        )
    return node


def _nodes(r: a.NodesListed) -> Message:
    return pb.ListNodesResponse(nodes=[_node(v) for v in r.nodes])


def _session(v: a.SessionView) -> pb.SessionState:
    return pb.SessionState(
        session_id=v.session_id,
        user_id=v.user_id,
        device_id=v.device_id,
        node_id=v.node_id,
        open_time=fields.to_timestamp(v.open_ms),
        token_expire_time=fields.to_timestamp(v.token_expire_ms),
        syncing=v.syncing,
        logs=v.logs,
        lagging_logs=v.lagging_logs,
        window=v.window,
        unacknowledged=v.unacknowledged,
        outbox_bytes=v.outbox_bytes,
    )


def _sessions(r: a.SessionsListed) -> Message:
    return pb.ListSessionsResponse(
        sessions=[_session(v) for v in r.sessions],
        next_page_token=r.next_page_token,
        other_node_ids=r.other_node_ids,
    )


def _standing(v: a.LogStanding) -> pb.ConversationState:
    state = pb.ConversationState(
        conversation_id=v.log,
        head_seq=v.head_seq,
        head_time=fields.to_timestamp(v.head_ms),
        message_count=v.message_count,
        pending_seqs=v.pending,
        home_node_id=v.home_node_id,
        following=v.following,
        loaded=v.loaded is not None,
    )
    if v.loaded is not None:
        loaded = v.loaded
        if loaded.kind is not None:
            state.kind = loaded.kind.value  # type: ignore[assignment]
            state.create_time.FromMilliseconds(loaded.create_ms)
        state.member_count = loaded.member_count
        state.read_only = loaded.read_only
    return state


def _state(r: a.ConversationStateGot) -> Message:
    return pb.GetConversationStateResponse(
        state=_standing(r.state),
        sessions=[
            pb.FollowingSession(
                session_id=s.session_id,
                user_id=s.user_id,
                device_id=s.device_id,
                sent_seq=s.sent_seq,
                acknowledged_seq=s.acknowledged_seq,
                lagging=s.lagging,
            )
            for s in r.sessions
        ],
        other_node_ids=r.other_node_ids,
    )


def _states(r: a.ConversationStatesListed) -> Message:
    return pb.ListConversationStatesResponse(
        states=[_standing(v) for v in r.states], next_page_token=r.next_page_token
    )


def _drained(r: a.NodeDrained) -> Message:
    return pb.DrainNodeResponse(node_id=r.node_id, sessions=r.sessions)


def _fact(f: a.DeliveryFact) -> pb.DeliveryFact:
    return pb.DeliveryFact(
        step=f.step.value,  # type: ignore[arg-type]
        state=f.state.value,  # type: ignore[arg-type]
        source=f.source.value,  # type: ignore[arg-type]
        cause=f.cause.value,  # type: ignore[arg-type]
        time=fields.to_timestamp(f.time_ms),
        seq=f.seq,
        node_id=f.node_id,
        device_id=f.device_id,
        session_id=f.session_id,
        text=f.text,
    )


def _explained(r: a.DeliveryExplained) -> Message:
    response = pb.ExplainDeliveryResponse(
        outcome=r.outcome.value,  # type: ignore[arg-type]
        facts=[_fact(f) for f in r.facts],
        message_id=r.message_id,
        head_seq=r.head_seq,
        node_id=r.node_id,
        notes=[
            pb.SessionNote(
                time=fields.to_timestamp(n.time_ms),
                device_id=n.device_id,
                session_id=n.session_id,
                text=n.text,
            )
            for n in r.notes
        ],
    )
    if r.entry is not None:
        response.seq = r.entry.seq
        response.message_id = r.entry.message_id
        response.sender_user_id = r.entry.sender_user_id
        response.entry_kind = r.entry.kind
        response.commit_time.FromMilliseconds(r.entry.commit_ms)
    return response


RESPONSES: dict[type, Callable[[Any], Message]] = {
    a.NodesListed: _nodes,
    a.SessionsListed: _sessions,
    a.ConversationStateGot: _state,
    a.ConversationStatesListed: _states,
    a.NodeDrained: _drained,
    a.DeliveryExplained: _explained,
}
"""What makes the response of each result."""
