"""Results and events: the bytes made by hand are those of the generated code, and say what the contract says."""

from __future__ import annotations

from hashlib import sha256

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.made import LOG, NOW_MS, page_of, positions, texts, times, uuids
from tests.unit.made import messages as made_messages
from tidings.v1 import (
    admin_service_pb2,
    chat_service_pb2,
    conversation_pb2,
    conversation_service_pb2,
    error_pb2,
    event_pb2,
    message_pb2,
    message_service_pb2,
    presence_service_pb2,
    receipt_service_pb2,
)
from tidings_server.codec import events
from tidings_server.codec.requests import RequestReader
from tidings_server.core import commands as c
from tidings_server.core.entries import ConversationKind, Role
from tidings_server.core.limits import Limits
from tidings_server.core.memberships import Interval, Membership
from tidings_server.core.principal import Principal
from tidings_server.errors import CODES, DomainError, Reason, invalid, store_unavailable

COMMAND_IDS = st.integers(-(2**63), 2**63 - 1)
PRESENCE = c.PresenceView("bob", online=False, last_seen_ms=NOW_MS, availability=2, status_text="x")
VIEW = c.ConversationView(
    LOG, ConversationKind.GROUP, "Plan", "", NOW_MS, NOW_MS + 5, 3, 17, Role.OWNER, 1, 4, 13
)


def the_event(body: bytes) -> event_pb2.Event:
    """The one event that these bytes are, which are those of the generated code."""
    response = chat_service_pb2.ChatResponse.FromString(body)
    assert response.SerializeToString(deterministic=True) == body
    (event,) = response.events
    return event


@given(COMMAND_IDS, positions, times)
def test_the_result_of_a_message(command_id: int, seq: int, time_ms: int) -> None:
    result = the_event(events.result_event(command_id, "send_message", c.Sent(seq, time_ms))).result
    assert result.command_id == command_id
    assert result.WhichOneof("outcome") == "send_message"
    assert result.send_message.seq == seq
    assert result.send_message.create_time.ToMilliseconds() == time_ms


RESULTS: list[tuple[c.Result, str]] = [
    (c.MessageChanged(c.EditMessage, 7, NOW_MS), "edit_message"),
    (c.MessageChanged(c.DeleteMessage, 7, NOW_MS), "delete_message"),
    (c.MessageChanged(c.SetReaction, 7, NOW_MS), "set_reaction"),
    (c.MessageChanged(c.SetPin, 7, NOW_MS), "set_pin"),
    (c.ConversationChanged(c.AddMembers, 7), "add_members"),
    (c.ConversationChanged(c.RemoveMember, 7), "remove_member"),
    (c.ConversationChanged(c.LeaveConversation, 7), "leave_conversation"),
    (c.ConversationChanged(c.UpdateConversation, 7), "update_conversation"),
    (c.ConversationChanged(c.SetRole, 7), "set_role"),
    (c.ConversationChanged(c.SetMute, 7), "set_mute"),
    (c.ConversationChanged(c.SetBan, 7), "set_ban"),
    (c.ConversationChanged(c.SetInvitation, 7), "set_invitation"),
    (c.ConversationChanged(c.JoinConversation, 7), "join_conversation"),
    (c.ConversationChanged(c.TransferOwnership, 7), "transfer_ownership"),
    (c.ConversationGot(VIEW, created=True), "create_conversation"),
    (c.Delivered(3), "mark_delivered"),
    (c.Read(3, 4), "mark_read"),
    (c.StatusSet(PRESENCE), "set_status"),
    (c.TokenRefreshed(NOW_MS), "refresh_token"),
    (c.Welcomed(), "hello"),
]


@pytest.mark.parametrize(("result", "outcome"), RESULTS)
@pytest.mark.parametrize("command_id", [0, 1, -1, 2**40])
def test_the_results_of_other_commands(result: c.Result, outcome: str, command_id: int) -> None:
    event = the_event(events.result_event(command_id, "a name", result))
    assert event.result.command_id == command_id
    assert event.result.WhichOneof("outcome") == outcome


def test_every_command_of_the_stream_has_a_result() -> None:
    commands = chat_service_pb2.Command.DESCRIPTOR.oneofs_by_name["command"].fields
    outcomes = event_pb2.CommandResult.DESCRIPTOR.oneofs_by_name["outcome"].fields
    assert {f.name for f in commands} == {f.name for f in outcomes} - {"error"}
    assert {outcome for _, outcome in RESULTS} | {"send_message"} == {f.name for f in commands}


@given(
    COMMAND_IDS,
    st.sampled_from(Reason),
    texts,
    st.sampled_from(["", "text", "content.text"]),
    st.one_of(st.none(), st.integers(0, 100_000)),
    st.dictionaries(texts, texts, max_size=2),
)
def test_the_result_of_what_was_refused(
    command_id: int,
    reason: Reason,
    message: str,
    field: str,
    retry_ms: int | None,
    metadata: dict[str, str],
) -> None:
    problem = DomainError(reason, message, field=field, retry_after_ms=retry_ms, metadata=metadata)
    body = events.result_event(command_id, "send_message", problem)
    (event,) = chat_service_pb2.ChatResponse.FromString(body).events
    error = event.result.error
    assert event.result.command_id == command_id
    assert (error.code, error.message) == (CODES[reason].value, message)
    assert error_pb2.ErrorReason.Name(error.reason) == f"ERROR_REASON_{reason.name}"
    assert error.field == (f"send_message.{field}" if field else "")
    assert error.HasField("retry_delay") == (retry_ms is not None)
    assert error.retry_delay.ToMilliseconds() == (retry_ms or 0)
    assert dict(error.metadata) == metadata


def test_what_is_wrong_with_no_known_command_names_its_field_alone() -> None:
    body = events.result_event(1, "", invalid("13", "is not known"))
    assert the_event(body).result.error.field == "13"


def test_cursors_that_were_not_taken() -> None:
    refused = c.RefusedCursor(LOG, 5, DomainError(Reason.POSITION_AHEAD, "ahead", field="seq"))
    (refusal,) = the_event(
        events.result_event(1, "hello", c.Welcomed((refused,)))
    ).result.hello.refused_cursors
    assert (refusal.conversation_id, refusal.seq) == (LOG, 5)
    assert refusal.error.reason == error_pb2.ERROR_REASON_POSITION_AHEAD
    assert refusal.error.field == "hello.cursors.seq"


@given(uuids, positions, positions)
def test_positions_passed_over(log: str, first: int, last: int) -> None:
    skipped = the_event(events.skipped_event(log, first, last)).skipped
    assert (skipped.conversation_id, skipped.from_seq, skipped.to_seq) == (log, first, last)
    gap = the_event(events.gap_event(log, first, last)).gap
    assert (gap.conversation_id, gap.from_seq, gap.to_seq) == (log, first, last)


def test_welcome_tells_identity_times_and_limits() -> None:
    limits = Limits()
    principal = Principal("alice", "phone", NOW_MS + 60_000)
    welcome = the_event(
        events.welcome_event(
            "a session",
            principal,
            now_ms=NOW_MS,
            incarnation="one",
            incarnation_changed=True,
            limits=limits,
            window=9,
        )
    ).welcome
    assert (welcome.session_id, welcome.user_id, welcome.device_id) == (
        "a session",
        "alice",
        "phone",
    )
    assert welcome.server_time.ToMilliseconds() == NOW_MS
    assert welcome.token_expire_time.ToMilliseconds() == NOW_MS + 60_000
    assert (welcome.incarnation, welcome.incarnation_changed) == ("one", True)
    assert welcome.limits == event_pb2.Limits(
        window=9,
        max_text_bytes=limits.max_text_bytes,
        max_frame_bytes=limits.max_frame_bytes,
        max_commands_in_flight=limits.max_commands_in_flight,
        beacon_interval_ms=limits.beacon_interval_ms,
        max_members=limits.max_members,
    )


@given(st.dictionaries(uuids, positions, max_size=5))
def test_the_digest_is_that_of_the_contract(heads: dict[str, int]) -> None:
    beacon = the_event(events.beacon_event(NOW_MS, heads.items())).beacon
    total = sum(
        int.from_bytes(sha256(f"{log}:{seq}".encode()).digest()[:8], "big")
        for log, seq in heads.items()
    )
    assert (beacon.level, beacon.digest, beacon.conversations) == (True, total % 2**64, len(heads))


def test_a_beacon_without_a_digest() -> None:
    beacon = the_event(events.beacon_event(NOW_MS, None)).beacon
    assert (beacon.level, beacon.digest, beacon.conversations) == (False, 0, 0)
    assert beacon.server_time.ToMilliseconds() == NOW_MS


def test_other_events() -> None:
    assert the_event(events.sync_complete_event(3)).sync_complete.conversations == 3
    assert the_event(events.going_away_event(250)).going_away.reconnect_delay_ms == 250
    expiring = the_event(events.token_expiring_event(NOW_MS)).token_expiring
    assert expiring.token_expire_time.ToMilliseconds() == NOW_MS
    receipt = the_event(events.receipt_event(LOG, "bob", 4, 3)).receipt
    assert (receipt.conversation_id, receipt.user_id) == (LOG, "bob")
    assert (receipt.delivered_seq, receipt.read_seq) == (4, 3)
    ended = the_event(events.session_ended_event(store_unavailable(), reconnect=True))
    assert ended.session_ended.reconnect
    assert ended.session_ended.error.reason == error_pb2.ERROR_REASON_STORE_UNAVAILABLE


# Responses of unary calls


@pytest.mark.parametrize(
    ("count", "scale"),
    [
        (1, conversation_pb2.SCALE_CLASS_SMALL),
        (32, conversation_pb2.SCALE_CLASS_SMALL),
        (33, conversation_pb2.SCALE_CLASS_GROUP),
        (500, conversation_pb2.SCALE_CLASS_GROUP),
        (501, conversation_pb2.SCALE_CLASS_CHANNEL),
    ],
)
def test_classes_of_scale(count: int, scale: int) -> None:
    view = c.ConversationView(
        LOG, ConversationKind.GROUP, "", "", NOW_MS, NOW_MS, count, 1, None, 1, 0, 0
    )
    response = events.to_response(c.ConversationGot(view, created=False))
    assert isinstance(response, conversation_service_pb2.GetConversationResponse)
    assert response.conversation.scale_class == scale
    assert response.conversation.role == conversation_pb2.MEMBER_ROLE_UNSPECIFIED


def test_a_conversation() -> None:
    response = events.to_response(c.ConversationsListed((VIEW,), "more"))
    assert isinstance(response, conversation_service_pb2.ListConversationsResponse)
    (shown,) = response.conversations
    assert response.next_page_token == "more"
    assert (shown.conversation_id, shown.kind, shown.title) == (LOG, 2, "Plan")
    assert (shown.member_count, shown.head_seq, shown.role) == (3, 17, 2)
    assert (shown.join_seq, shown.read_seq, shown.unread_count) == (1, 4, 13)
    assert shown.create_time.ToMilliseconds() == NOW_MS
    assert shown.update_time.ToMilliseconds() == NOW_MS + 5


def test_history_is_the_stored_bytes() -> None:
    page = page_of(made_messages(1, 3))
    response = events.to_response(c.HistoryListed(page.body, "4"))
    assert isinstance(response, message_service_pb2.ListHistoryResponse)
    assert [e.entry.seq for e in response.events] == [1, 2, 3]
    assert response.next_page_token == "4"


def test_one_entry() -> None:
    page = page_of(made_messages(9, 1))
    response = events.to_response(c.MessageGot(page.body))
    assert isinstance(response, message_service_pb2.GetMessageResponse)
    assert response.entry.seq == 9
    assert response.entry.message.text == "message 9"


def test_members_receipts_unread_and_presence() -> None:
    member = Membership("bob", Role.MEMBER, 9, (Interval(2, 1, 4), Interval(9, 6)))
    assert events.to_response(
        c.MembersListed((member,), "bob")
    ) == conversation_service_pb2.ListMembersResponse(
        members=[
            conversation_pb2.Member(
                user_id="bob", role=conversation_pb2.MEMBER_ROLE_MEMBER, join_seq=9
            )
        ],
        next_page_token="bob",
    )
    assert events.to_response(
        c.ReceiptsListed((c.ReceiptMarks("bob", 5, 4),), "")
    ) == receipt_service_pb2.ListReceiptsResponse(
        receipts=[receipt_service_pb2.Receipt(user_id="bob", delivered_seq=5, read_seq=4)]
    )
    unread = events.to_response(c.UnreadGot((c.UnreadCount(LOG, 2, 1), c.UnreadCount("x", 3, 0))))
    assert isinstance(unread, receipt_service_pb2.GetUnreadResponse)
    assert unread.total == 5
    presence = events.to_response(c.PresenceGot((PRESENCE,)))
    assert isinstance(presence, presence_service_pb2.GetPresenceResponse)
    (shown,) = presence.presences
    assert (shown.user_id, shown.online, shown.availability) == ("bob", False, 2)
    assert shown.last_seen_time.ToMilliseconds() == NOW_MS


def test_a_time_that_never_was_is_not_set() -> None:
    view = c.PresenceView("bob", online=True, last_seen_ms=0, availability=0, status_text="")
    presence = events.to_response(c.PresenceGot((view,)))
    assert isinstance(presence, presence_service_pb2.GetPresenceResponse)
    assert not presence.presences[0].HasField("last_seen_time")


def test_every_request_of_a_unary_call_can_be_read() -> None:
    modules = [
        admin_service_pb2,
        conversation_service_pb2,
        message_service_pb2,
        receipt_service_pb2,
        presence_service_pb2,
        message_pb2,
    ]
    known = {t.DESCRIPTOR.full_name for t in RequestReader(Limits()).request_types}
    for module in modules:
        for service in module.DESCRIPTOR.services_by_name.values():
            assert {m.input_type.full_name for m in service.methods} <= known
    oneof = chat_service_pb2.Command.DESCRIPTOR.oneofs_by_name["command"]
    bodies = {f.message_type.full_name for f in oneof.fields if f.message_type is not None}
    assert bodies <= known


# Errors


def test_reasons_are_those_of_the_contract() -> None:
    contract = {
        name.removeprefix("ERROR_REASON_"): number
        for name, number in error_pb2.ErrorReason.items()
        if number
    }
    assert contract == {reason.name: reason.value for reason in Reason}


def test_codes_are_those_of_grpc() -> None:
    assert set(CODES) == set(Reason)
    for code in CODES.values():
        assert grpc.StatusCode[code.name].value[0] == code.value


def test_an_error_has_no_more_than_it_says() -> None:
    error: Message = events.to_error(DomainError(Reason.DENIED, "no"))
    assert {f.name for f, _ in error.ListFields()} == {"code", "reason", "message"}


def test_kinds_and_roles_have_the_numbers_of_the_contract() -> None:
    assert {k.name: k.value for k in ConversationKind} == {
        n.removeprefix("CONVERSATION_KIND_"): v
        for n, v in conversation_pb2.ConversationKind.items()
        if v
    }
    assert {r.name: r.value for r in Role} == {
        n.removeprefix("MEMBER_ROLE_"): v for n, v in conversation_pb2.MemberRole.items() if v
    }
