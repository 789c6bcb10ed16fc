"""What operators are told, as messages: every field is where the contract has it, and numbers are the contract's."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import pytest

from tests.unit.made import LOG
from tidings.v1 import admin_service_pb2 as pb
from tidings.v1 import conversation_pb2
from tidings_server.codec import events
from tidings_server.codec.fields import to_timestamp
from tidings_server.core import admin as a
from tidings_server.core.entries import ConversationKind

NOW_MS = 1_750_000_000_123
STANDING = a.LogStanding(LOG, 7, NOW_MS, 5, (6, 7), "n1", 3, None)


def at(time_ms: int) -> Any:
    return to_timestamp(time_ms)


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (a.DeliveryOutcome, pb.DeliveryOutcome, "DELIVERY_OUTCOME_"),
        (a.DeliveryStep, pb.DeliveryStep, "DELIVERY_STEP_"),
        (a.FactState, pb.FactState, "FACT_STATE_"),
        (a.FactSource, pb.FactSource, "FACT_SOURCE_"),
        (a.FactCause, pb.FactCause, "FACT_CAUSE_"),
    ],
)
def test_numbers_are_those_of_the_contract(ours: type[IntEnum], theirs: Any, prefix: str) -> None:
    contract = {n.removeprefix(prefix): v for n, v in theirs.items() if v}
    assert {e.name: e.value for e in ours if e.value} == contract


def test_nodes() -> None:
    load = a.NodeLoad(1, 2, 3, 4, 5)
    nodes = a.NodesListed(
        (
            a.NodeView("n1", "10.0.0.1:1", "1.0", True, load),
            a.NodeView("n2", "10.0.0.2:1", "1.1"),
            a.NodeView("n3", "", "", False, load),
        )
    )
    told = events.to_response(nodes)
    assert isinstance(told, pb.ListNodesResponse)
    assert told.nodes[0] == pb.Node(
        node_id="n1",
        address="10.0.0.1:1",
        version="1.0",
        answering=True,
        state=pb.NODE_STATE_DRAINING,
        load=pb.NodeLoad(sessions=1, users=2, followed_logs=3, loaded_logs=4, outbox_bytes=5),
    )
    assert told.nodes[1] == pb.Node(node_id="n2", address="10.0.0.2:1", version="1.1")
    assert told.nodes[2].state == pb.NODE_STATE_SERVING


def test_sessions() -> None:
    view = a.SessionView("s", "bob", "phone", "n1", NOW_MS, NOW_MS + 1, True, 2, 1, 9, 3, 80)
    assert events.to_response(
        a.SessionsListed((view,), "more", ("n2",))
    ) == pb.ListSessionsResponse(
        sessions=[
            pb.SessionState(
                session_id="s",
                user_id="bob",
                device_id="phone",
                node_id="n1",
                open_time=at(NOW_MS),
                token_expire_time=at(NOW_MS + 1),
                syncing=True,
                logs=2,
                lagging_logs=1,
                window=9,
                unacknowledged=3,
                outbox_bytes=80,
            )
        ],
        next_page_token="more",
        other_node_ids=["n2"],
    )


def test_conversations() -> None:
    plain = pb.ConversationState(
        conversation_id=LOG,
        head_seq=7,
        head_time=at(NOW_MS),
        message_count=5,
        pending_seqs=[6, 7],
        home_node_id="n1",
        following=3,
    )
    listed = events.to_response(a.ConversationStatesListed((STANDING,), "more"))
    assert listed == pb.ListConversationStatesResponse(states=[plain], next_page_token="more")
    loaded = a.LoadedState(ConversationKind.GROUP, 4, NOW_MS, True)
    state = a.LogStanding(LOG, 7, NOW_MS, 5, (6, 7), "n1", 3, loaded)
    follower = a.Following("s", "bob", "phone", 6, 5, True)
    got = events.to_response(a.ConversationStateGot(state, (follower,), ("n2",)))
    plain.loaded = plain.read_only = True
    plain.kind = conversation_pb2.CONVERSATION_KIND_GROUP
    plain.member_count = 4
    plain.create_time.CopyFrom(at(NOW_MS))
    assert got == pb.GetConversationStateResponse(
        state=plain,
        sessions=[
            pb.FollowingSession(
                session_id="s",
                user_id="bob",
                device_id="phone",
                sent_seq=6,
                acknowledged_seq=5,
                lagging=True,
            )
        ],
        other_node_ids=["n2"],
    )


def test_a_drain() -> None:
    told = events.to_response(a.NodeDrained("n1", 3))
    assert told == pb.DrainNodeResponse(node_id="n1", sessions=3)


def test_an_explanation() -> None:
    fact = a.DeliveryFact(
        a.DeliveryStep.WRITTEN,
        a.FactState.NO,
        "It was not.",
        a.FactSource.SESSION,
        a.FactCause.WINDOW_FULL,
        NOW_MS,
        3,
        "n1",
        "phone",
        "s",
    )
    note = a.SessionNote(NOW_MS, "phone", "s", "was level again")
    entry = a.ExplainedEntry(4, "an id", "alice", "message", NOW_MS)
    told = events.to_response(
        a.DeliveryExplained(a.DeliveryOutcome.WAITING, (fact,), entry, "", 9, "n1", (note,))
    )
    assert told == pb.ExplainDeliveryResponse(
        outcome=pb.DELIVERY_OUTCOME_WAITING,
        facts=[
            pb.DeliveryFact(
                step=pb.DELIVERY_STEP_WRITTEN,
                state=pb.FACT_STATE_NO,
                source=pb.FACT_SOURCE_SESSION,
                cause=pb.FACT_CAUSE_WINDOW_FULL,
                time=at(NOW_MS),
                seq=3,
                node_id="n1",
                device_id="phone",
                session_id="s",
                text="It was not.",
            )
        ],
        seq=4,
        message_id="an id",
        sender_user_id="alice",
        entry_kind="message",
        commit_time=at(NOW_MS),
        head_seq=9,
        node_id="n1",
        notes=[
            pb.SessionNote(
                time=at(NOW_MS), device_id="phone", session_id="s", text="was level again"
            )
        ],
    )
    absent = a.DeliveryExplained(a.DeliveryOutcome.NOT_COMMITTED, (), None, "an id", 9, "n1")
    assert events.to_response(absent) == pb.ExplainDeliveryResponse(
        outcome=pb.DELIVERY_OUTCOME_NOT_COMMITTED, message_id="an id", head_seq=9, node_id="n1"
    )
