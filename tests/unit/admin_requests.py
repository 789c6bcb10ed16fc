"""Requests of operators, good ones with the commands that they are, and bad ones with the field at fault."""

from __future__ import annotations

import functools

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from tests.unit.made import LOG
from tidings.v1 import admin_service_pb2 as pb
from tidings_server.core import admin as a
from tidings_server.core import commands as c
from tidings_server.core.ids import id_bytes

ID = "0198c1f4-2a3b-7c4d-8e5f-60718293a4b5"
CHANGE = c.ChangeId(ID, id_bytes(ID), 0x0198C1F42A3B)
HOUR = Duration(seconds=3600)

explain = functools.partial(pb.ExplainDeliveryRequest, conversation_id=LOG, user_id="bob")

GOOD: list[tuple[Message, c.Command]] = [
    (pb.ListNodesRequest(), a.ListNodes()),
    (pb.ListSessionsRequest(), a.ListSessions("", 100, "")),
    (
        pb.ListSessionsRequest(user_id="bob", page_size=5000, page_token="t"),
        a.ListSessions("bob", 1000, "t"),
    ),
    (pb.GetConversationStateRequest(conversation_id=LOG), a.GetConversationState(LOG)),
    (
        pb.GetConversationStateRequest(conversation_id="inbox:bob"),
        a.GetConversationState("inbox:bob"),
    ),
    (pb.ListConversationStatesRequest(), a.ListConversationStates("", 100, "")),
    (
        pb.ListConversationStatesRequest(user_id="bob", page_size=7, page_token="t"),
        a.ListConversationStates("bob", 7, "t"),
    ),
    (pb.DrainNodeRequest(), a.DrainNode("", 0)),
    (pb.DrainNodeRequest(node_id="n", spread=HOUR), a.DrainNode("n", 3_600_000)),
    (
        pb.DrainNodeRequest(spread=Duration(seconds=1, nanos=500_000_000)),
        a.DrainNode("", 1500),
    ),
    (explain(seq=3), a.ExplainDelivery(LOG, 3, None, "bob", ())),
    (
        explain(message_id=ID, device_ids=["phone", "desk", "phone"]),
        a.ExplainDelivery(LOG, 0, CHANGE, "bob", ("phone", "desk")),
    ),
    (
        explain(conversation_id="inbox:bob", seq=1),
        a.ExplainDelivery("inbox:bob", 1, None, "bob", ()),
    ),
]

BAD: list[tuple[Message, str]] = [
    (pb.ListSessionsRequest(user_id="a b"), "user_id"),
    (pb.ListSessionsRequest(page_size=-1), "page_size"),
    (pb.ListSessionsRequest(page_token="t" * 513), "page_token"),
    (pb.GetConversationStateRequest(), "conversation_id"),
    (pb.GetConversationStateRequest(conversation_id=LOG.upper()), "conversation_id"),
    (pb.ListConversationStatesRequest(user_id="a b"), "user_id"),
    (pb.ListConversationStatesRequest(page_size=-1), "page_size"),
    (pb.ListConversationStatesRequest(page_token="t" * 513), "page_token"),
    (pb.DrainNodeRequest(node_id="n" * 129), "node_id"),
    (pb.DrainNodeRequest(spread=Duration(seconds=-1)), "spread"),
    (pb.DrainNodeRequest(spread=Duration(nanos=-1)), "spread"),
    (pb.DrainNodeRequest(spread=Duration(seconds=3601)), "spread"),
    (pb.DrainNodeRequest(spread=Duration(seconds=2**62)), "spread"),
    (explain(), "key"),
    (explain(seq=0), "seq"),
    (explain(seq=-1), "seq"),
    (explain(message_id="x"), "message_id"),
    (explain(seq=1, user_id=""), "user_id"),
    (explain(seq=1, conversation_id="x"), "conversation_id"),
    (explain(seq=1, conversation_id="inbox:alice"), "conversation_id"),
    (explain(seq=1, device_ids=["d"] * 21), "device_ids"),
    (explain(seq=1, device_ids=["d", ""]), "device_ids[1]"),
]
