"""Requests: every field's bad values are refused with their reason and name, and good ones become commands."""

from __future__ import annotations

import functools
from collections.abc import Callable
from hashlib import sha256

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tests.unit import admin_requests
from tests.unit.made import LOG
from tidings.v1 import (
    chat_service_pb2,
    conversation_pb2,
    conversation_service_pb2,
    message_pb2,
    message_service_pb2,
    presence_service_pb2,
    receipt_service_pb2,
)
from tidings_server.codec.requests import RequestReader
from tidings_server.core import commands as c
from tidings_server.core.entries import ConversationKind, NewMember, Role
from tidings_server.core.ids import id_bytes
from tidings_server.core.limits import Limits
from tidings_server.errors import DomainError, Reason

ID = "0198c1f4-2a3b-7c4d-8e5f-60718293a4b5"
OTHER_ID = "0198c1f4-2a3b-7c4d-8e5f-60718293a4b6"
UUID4 = "9b2f8c1e-3d4a-4b5c-8d6e-7f8091a2b3c4"
CHANGE = c.ChangeId(ID, id_bytes(ID), 0x0198C1F42A3B)
OTHER_CHANGE = c.ChangeId(OTHER_ID, id_bytes(OTHER_ID), 0x0198C1F42A3B)
LIMITS = Limits()
READER = RequestReader(LIMITS)
LONG_USER = "u" * 129
FOREVER = 2**62 + 1

Member = conversation_pb2.Member
ChatRequest = chat_service_pb2.ChatRequest

# A valid request of each kind, and the command that it is.
GOOD: list[tuple[Message, c.Command]] = [
    (
        chat_service_pb2.Hello(),
        c.Hello("", {}, LIMITS.window, LIMITS.catch_up_limit, ""),
    ),
    (
        chat_service_pb2.Hello(
            incarnation="one",
            cursors=[chat_service_pb2.Cursor(conversation_id=LOG, seq=7)],
            window=8192,
            catch_up_limit=1,
            client="a client",
        ),
        c.Hello("one", {LOG: 7}, 8192, 1, "a client"),
    ),
    (chat_service_pb2.RefreshToken(token="t"), c.RefreshToken("t")),
    (
        message_pb2.SendMessageRequest(
            conversation_id=LOG,
            message_id=ID,
            content=message_pb2.MessageContent(text=" x ", reply_to_message_id=OTHER_ID),
            after_message_id=OTHER_ID,
        ),
        c.SendMessage(
            LOG,
            CHANGE,
            message_pb2.MessageContent(
                text=" x ", reply_to_message_id=OTHER_ID
            ).SerializeToString(),
            OTHER_CHANGE,
        ),
    ),
    (
        message_pb2.EditMessageRequest(
            conversation_id=LOG,
            request_id=ID,
            seq=3,
            content=message_pb2.MessageContent(text=" y "),
        ),
        c.EditMessage(LOG, CHANGE, 3, message_pb2.MessageContent(text=" y ").SerializeToString()),
    ),
    (
        message_pb2.DeleteMessageRequest(conversation_id=LOG, request_id=ID, seq=3),
        c.DeleteMessage(LOG, CHANGE, 3),
    ),
    (
        message_pb2.SetReactionRequest(conversation_id=LOG, request_id=ID, seq=3, reaction="👩‍🚀"),
        c.SetReaction(LOG, CHANGE, 3, "👩‍🚀"),
    ),
    (
        message_pb2.SetReactionRequest(conversation_id=LOG, request_id=ID, seq=3),
        c.SetReaction(LOG, CHANGE, 3, ""),
    ),
    (
        message_service_pb2.ListReactionsRequest(conversation_id=LOG, seq=3, page_size=2000),
        c.ListReactions(LOG, 3, 1000, ""),
    ),
    (
        message_pb2.SetPinRequest(conversation_id=LOG, request_id=ID, seq=3, pinned=True),
        c.SetPin(LOG, CHANGE, 3, pinned=True),
    ),
    (message_service_pb2.ListPinsRequest(conversation_id=LOG), c.ListPins(LOG)),
    (
        receipt_service_pb2.MarkDeliveredRequest(conversation_id=LOG, seq=1),
        c.MarkDelivered(LOG, 1),
    ),
    (receipt_service_pb2.MarkReadRequest(conversation_id=LOG, seq=2**62), c.MarkRead(LOG, 2**62)),
    (
        conversation_service_pb2.CreateConversationRequest(
            kind=conversation_pb2.CONVERSATION_KIND_DIRECT, user_ids=["bob", "bob"]
        ),
        c.CreateConversation(ConversationKind.DIRECT, ("bob",)),
    ),
    (
        conversation_service_pb2.CreateConversationRequest(
            kind=conversation_pb2.CONVERSATION_KIND_GROUP,
            request_id=ID,
            title="Plan",
            user_ids=["bob", "carol", "bob"],
        ),
        c.CreateConversation(ConversationKind.GROUP, ("bob", "carol"), "Plan", CHANGE),
    ),
    (
        conversation_service_pb2.AddMembersRequest(
            conversation_id=LOG,
            request_id=ID,
            members=[
                Member(user_id="bob", join_seq=9),
                Member(user_id="carol", role=conversation_pb2.MEMBER_ROLE_OWNER),
                Member(user_id="bob", role=conversation_pb2.MEMBER_ROLE_OWNER),
            ],
        ),
        c.AddMembers(LOG, CHANGE, (NewMember("bob"), NewMember("carol", Role.OWNER))),
    ),
    (
        conversation_service_pb2.RemoveMemberRequest(
            conversation_id=LOG, request_id=ID, user_id="bob"
        ),
        c.RemoveMember(LOG, CHANGE, "bob"),
    ),
    (
        conversation_service_pb2.LeaveConversationRequest(conversation_id=LOG, request_id=ID),
        c.LeaveConversation(LOG, CHANGE),
    ),
    (
        conversation_service_pb2.UpdateConversationRequest(
            conversation_id=LOG,
            request_id=ID,
            settings=conversation_pb2.ConversationSettings(title="Trip", picture="left out"),
            update_mask=FieldMask(paths=["description", "title", "title"]),
        ),
        c.UpdateConversation(LOG, CHANGE, (("title", "Trip"), ("description", ""))),
    ),
    (
        conversation_service_pb2.SetRoleRequest(
            conversation_id=LOG,
            request_id=ID,
            user_id="bob",
            role=conversation_pb2.MEMBER_ROLE_GUEST,
        ),
        c.SetRole(LOG, CHANGE, "bob", Role.GUEST),
    ),
    (
        conversation_service_pb2.SetMuteRequest(
            conversation_id=LOG,
            request_id=ID,
            user_id="bob",
            expire_time=Timestamp(seconds=7, nanos=1_999_999),
        ),
        c.SetMute(LOG, CHANGE, "bob", 7001),
    ),
    (
        conversation_service_pb2.SetInvitationRequest(
            conversation_id=LOG,
            request_id=ID,
            code="c" * 16,
            uses=3,
            expire_time=Timestamp(seconds=7),
        ),
        c.SetInvitation(LOG, CHANGE, sha256(b"c" * 16).hexdigest(), 3, 7000),
    ),
    (
        conversation_service_pb2.JoinConversationRequest(
            conversation_id=LOG, request_id=ID, code="c-_Z9" * 4
        ),
        c.JoinConversation(LOG, CHANGE, sha256(b"c-_Z9" * 4).hexdigest()),
    ),
    (
        conversation_service_pb2.SetBanRequest(conversation_id=LOG, request_id=ID, user_id="bob"),
        c.SetBan(LOG, CHANGE, "bob", 0),
    ),
    (
        conversation_service_pb2.TransferOwnershipRequest(
            conversation_id=LOG, request_id=ID, user_id="bob"
        ),
        c.TransferOwnership(LOG, CHANGE, "bob"),
    ),
    (
        conversation_service_pb2.GetConversationRequest(conversation_id=LOG),
        c.GetConversation(LOG),
    ),
    (conversation_service_pb2.ListConversationsRequest(), c.ListConversations(50, "")),
    (
        conversation_service_pb2.ListConversationsRequest(page_size=201, page_token="t"),
        c.ListConversations(200, "t"),
    ),
    (
        conversation_service_pb2.ListMembersRequest(conversation_id=LOG),
        c.ListMembers(LOG, 100, ""),
    ),
    (
        conversation_service_pb2.ListMembersRequest(conversation_id=LOG, page_size=1001),
        c.ListMembers(LOG, 1000, ""),
    ),
    (
        message_service_pb2.ListHistoryRequest(conversation_id=LOG),
        c.ListHistory(LOG, 0, False, 50, ""),
    ),
    (
        message_service_pb2.ListHistoryRequest(
            conversation_id="inbox:alice",
            from_seq=3,
            order=message_service_pb2.HISTORY_ORDER_ASCENDING,
            page_size=2000,
            page_token="t",
        ),
        c.ListHistory("inbox:alice", 3, True, 1000, "t"),
    ),
    (
        message_service_pb2.GetMessageRequest(conversation_id=LOG, seq=3),
        c.GetMessage(LOG, 3, None),
    ),
    (
        message_service_pb2.GetMessageRequest(conversation_id=LOG, message_id=ID),
        c.GetMessage(LOG, 0, CHANGE),
    ),
    (
        receipt_service_pb2.ListReceiptsRequest(conversation_id=LOG),
        c.ListReceipts(LOG, 100, ""),
    ),
    (receipt_service_pb2.GetUnreadRequest(), c.GetUnread(())),
    (
        receipt_service_pb2.GetUnreadRequest(conversation_ids=[LOG, ID, LOG]),
        c.GetUnread((LOG, ID)),
    ),
    (
        presence_service_pb2.SetStatusRequest(),
        c.SetStatus(presence_service_pb2.AVAILABILITY_AVAILABLE, ""),
    ),
    (
        presence_service_pb2.SetStatusRequest(
            availability=presence_service_pb2.AVAILABILITY_AWAY, status_text="s" * 256
        ),
        c.SetStatus(2, "s" * 256),
    ),
    (
        presence_service_pb2.GetPresenceRequest(user_ids=["bob", "carol", "bob"]),
        c.GetPresence(("bob", "carol")),
    ),
    *admin_requests.GOOD,
]


@pytest.mark.parametrize(("request_", "command"), GOOD)
def test_good_requests(request_: Message, command: c.Command) -> None:
    assert READER.read(request_) == command


def test_every_kind_of_request_is_among_them() -> None:
    assert {type(request) for request, _ in GOOD} == READER.request_types


def refusal(request: Message) -> tuple[Reason, str]:
    with pytest.raises(DomainError) as caught:
        READER.read(request)
    return caught.value.reason, caught.value.field


send = functools.partial(
    message_pb2.SendMessageRequest,
    conversation_id=LOG,
    message_id=ID,
    content=message_pb2.MessageContent(text="x"),
)
group = functools.partial(
    conversation_service_pb2.CreateConversationRequest,
    kind=conversation_pb2.CONVERSATION_KIND_GROUP,
    request_id=ID,
)
direct = functools.partial(
    conversation_service_pb2.CreateConversationRequest,
    kind=conversation_pb2.CONVERSATION_KIND_DIRECT,
    user_ids=["bob"],
)
add = functools.partial(
    conversation_service_pb2.AddMembersRequest, conversation_id=LOG, request_id=ID
)
remove = functools.partial(
    conversation_service_pb2.RemoveMemberRequest,
    conversation_id=LOG,
    request_id=ID,
    user_id="bob",
)
leave = functools.partial(
    conversation_service_pb2.LeaveConversationRequest, conversation_id=LOG, request_id=ID
)
edit = functools.partial(
    message_pb2.EditMessageRequest,
    conversation_id=LOG,
    request_id=ID,
    seq=3,
    content=message_pb2.MessageContent(text="x"),
)
delete = functools.partial(
    message_pb2.DeleteMessageRequest, conversation_id=LOG, request_id=ID, seq=3
)
react = functools.partial(
    message_pb2.SetReactionRequest, conversation_id=LOG, request_id=ID, seq=3, reaction="x"
)
history = functools.partial(message_service_pb2.ListHistoryRequest, conversation_id=LOG)
text = message_pb2.MessageContent
hello = chat_service_pb2.Hello

BAD_IDS = ["", "x", ID.upper(), UUID4, ID + "0", "00000000-0000-0000-0000-000000000000"]
BAD_LOGS = ["", "x", LOG.upper(), LOG[:-1], f"inbox:{LOG}"]

mute = functools.partial(
    conversation_service_pb2.SetMuteRequest, conversation_id=LOG, request_id=ID, user_id="bob"
)

invite = functools.partial(
    conversation_service_pb2.SetInvitationRequest,
    conversation_id=LOG,
    request_id=ID,
    code="c" * 16,
)

BAD: list[tuple[Message, str]] = [
    (invite(uses=-1), "uses"),
    (invite(uses=100_001), "uses"),
    (invite(uses=1), "expire_time"),
    (invite(expire_time=Timestamp(seconds=7)), "expire_time"),
    *(
        (
            conversation_service_pb2.JoinConversationRequest(
                conversation_id=LOG, request_id=ID, code=code
            ),
            "code",
        )
        for code in ("", "c" * 15, "c" * 129, "c" * 15 + "ä", "c" * 16 + "\n", "c d" * 9)
    ),
    *(
        (mute(expire_time=Timestamp(seconds=seconds, nanos=nanos)), "expire_time")
        for seconds, nanos in ((0, 0), (-1, 0), (253_402_300_800, 0), (1, -1), (1, 10**9))
    ),
    (hello(incarnation="i" * 129), "incarnation"),
    (hello(client="c" * 129), "client"),
    (hello(client="ä" * 65), "client"),
    (hello(window=-1), "window"),
    (hello(window=8193), "window"),
    (hello(catch_up_limit=-1), "catch_up_limit"),
    (hello(catch_up_limit=10_001), "catch_up_limit"),
    (chat_service_pb2.RefreshToken(), "token"),
    (chat_service_pb2.RefreshToken(token="t" * 16_385), "token"),
    (send(content=None), "content.text"),
    (send(content=text()), "content.text"),
    *((send(message_id=bad), "message_id") for bad in BAD_IDS),
    *((send(after_message_id=bad), "after_message_id") for bad in BAD_IDS if bad),
    *(
        (send(content=text(text="x", reply_to_message_id=bad)), "content.reply_to_message_id")
        for bad in BAD_IDS
        if bad
    ),
    (react(seq=0), "seq"),
    (react(reaction="ä" * 33), "reaction"),
    (react(reaction="a b"), "reaction"),
    (react(reaction="\x07"), "reaction"),
    (react(reaction="\u2003"), "reaction"),
    *((react(request_id=bad), "request_id") for bad in BAD_IDS),
    (message_service_pb2.ListReactionsRequest(conversation_id=LOG), "seq"),
    (
        message_service_pb2.ListReactionsRequest(conversation_id=LOG, seq=1, page_size=-1),
        "page_size",
    ),
    (delete(seq=0), "seq"),
    (delete(seq=FOREVER), "seq"),
    *((delete(request_id=bad), "request_id") for bad in BAD_IDS),
    (edit(content=None), "content.text"),
    (edit(seq=0), "seq"),
    (edit(seq=-1), "seq"),
    (edit(seq=FOREVER), "seq"),
    *((edit(request_id=bad), "request_id") for bad in BAD_IDS),
    *((group(request_id=bad), "request_id") for bad in BAD_IDS),
    (group(title="t" * 257), "title"),
    (group(title="ä" * 129), "title"),
    (group(user_ids=["bob", ""]), "user_ids[1]"),
    (group(user_ids=["a b"]), "user_ids[0]"),
    (group(user_ids=[LONG_USER]), "user_ids[0]"),
    (group(user_ids=[f"user-{i}" for i in range(500)]), "user_ids"),
    (group(kind=conversation_pb2.CONVERSATION_KIND_UNSPECIFIED), "kind"),
    (direct(user_ids=[]), "user_ids"),
    (direct(user_ids=["bob", "carol"]), "user_ids"),
    (direct(title="Plan"), "title"),
    (direct(user_ids=[""]), "user_ids[0]"),
    (add(members=[]), "members"),
    (add(members=[Member(user_id=f"user-{i}") for i in range(501)]), "members"),
    (add(members=[Member(user_id="bob"), Member()]), "members[1].user_id"),
    *((add(request_id=bad, members=[Member(user_id="bob")]), "request_id") for bad in BAD_IDS),
    (remove(user_id=""), "user_id"),
    *((remove(request_id=bad), "request_id") for bad in BAD_IDS),
    *((leave(request_id=bad), "request_id") for bad in BAD_IDS),
    (receipt_service_pb2.MarkDeliveredRequest(conversation_id=LOG), "seq"),
    (receipt_service_pb2.MarkDeliveredRequest(conversation_id=LOG, seq=-1), "seq"),
    (receipt_service_pb2.MarkReadRequest(conversation_id=LOG), "seq"),
    (receipt_service_pb2.MarkReadRequest(conversation_id=LOG, seq=FOREVER), "seq"),
    (conversation_service_pb2.ListConversationsRequest(page_size=-1), "page_size"),
    (conversation_service_pb2.ListConversationsRequest(page_token="t" * 513), "page_token"),
    (history(from_seq=-1), "from_seq"),
    (history(from_seq=FOREVER), "from_seq"),
    (history(page_size=-1), "page_size"),
    (history(page_token="t" * 513), "page_token"),
    (message_service_pb2.GetMessageRequest(conversation_id=LOG), "key"),
    (message_service_pb2.GetMessageRequest(conversation_id=LOG, seq=0), "seq"),
    (message_service_pb2.GetMessageRequest(conversation_id=LOG, seq=-1), "seq"),
    *(
        (message_service_pb2.GetMessageRequest(conversation_id=LOG, message_id=bad), "message_id")
        for bad in BAD_IDS
    ),
    (receipt_service_pb2.ListReceiptsRequest(conversation_id=LOG, page_size=-1), "page_size"),
    (receipt_service_pb2.GetUnreadRequest(conversation_ids=[LOG, "x"]), "conversation_ids[1]"),
    (receipt_service_pb2.GetUnreadRequest(conversation_ids=[LOG] * 1001), "conversation_ids"),
    (presence_service_pb2.SetStatusRequest(status_text="s" * 257), "status_text"),
    (presence_service_pb2.GetPresenceRequest(), "user_ids"),
    (presence_service_pb2.GetPresenceRequest(user_ids=["bob"] * 501), "user_ids"),
    (presence_service_pb2.GetPresenceRequest(user_ids=["bob", "\x00"]), "user_ids[1]"),
    *admin_requests.BAD,
]


@pytest.mark.parametrize(("request_", "field"), BAD)
def test_bad_values(request_: Message, field: str) -> None:
    assert refusal(request_) == (Reason.INVALID_FIELD, field)


NAMES_A_CONVERSATION: list[Callable[[str], Message]] = [
    lambda log: send(conversation_id=log),
    lambda log: add(conversation_id=log, members=[Member(user_id="bob")]),
    lambda log: remove(conversation_id=log),
    lambda log: leave(conversation_id=log),
    lambda log: receipt_service_pb2.MarkDeliveredRequest(conversation_id=log, seq=1),
    lambda log: receipt_service_pb2.MarkReadRequest(conversation_id=log, seq=1),
    lambda log: receipt_service_pb2.ListReceiptsRequest(conversation_id=log),
    lambda log: conversation_service_pb2.GetConversationRequest(conversation_id=log),
    lambda log: conversation_service_pb2.ListMembersRequest(conversation_id=log),
    lambda log: message_service_pb2.GetMessageRequest(conversation_id=log, seq=1),
]


@pytest.mark.parametrize("log", BAD_LOGS)
@pytest.mark.parametrize("make", NAMES_A_CONVERSATION)
def test_bad_conversations(make: Callable[[str], Message], log: str) -> None:
    assert refusal(make(log)) == (Reason.INVALID_FIELD, "conversation_id")


@pytest.mark.parametrize("log", [bad for bad in BAD_LOGS if not bad.startswith("inbox:")])
def test_history_is_of_a_conversation_or_an_inbox(log: str) -> None:
    assert refusal(history(conversation_id=log)) == (Reason.INVALID_FIELD, "conversation_id")


@pytest.mark.parametrize(
    ("request_", "field", "value"),
    [
        (history(), "order", 3),
        (group(), "kind", 3),
        (presence_service_pb2.SetStatusRequest(), "availability", 4),
        (presence_service_pb2.SetStatusRequest(), "availability", -1),
    ],
)
def test_values_that_an_enumeration_lacks(request_: Message, field: str, value: int) -> None:
    changed = type(request_)()
    changed.CopyFrom(request_)
    setattr(changed, field, value)
    assert refusal(changed) == (Reason.INVALID_FIELD, field)


def test_a_role_that_there_is_not() -> None:
    request = add(members=[Member(user_id="bob")])
    request.members[0].role = 6  # type: ignore[assignment]
    assert refusal(request) == (Reason.INVALID_FIELD, "members[0].role")


@pytest.mark.parametrize(
    ("good", "bad"),
    [("x" * 16_384, "x" * 16_385), ("ä" * 8192, "ä" * 8193), ("👩" * 4096, "👩" * 4097)],
)
def test_the_largest_text(good: str, bad: str) -> None:
    assert isinstance(READER.read(send(content=text(text=good))), c.SendMessage)
    request = send(content=text(text=bad))
    assert refusal(request) == (Reason.TOO_LARGE, "content.text")


def test_the_largest_lists() -> None:
    READER.read(group(user_ids=[f"user-{i}" for i in range(499)]))
    READER.read(add(members=[Member(user_id=f"user-{i}") for i in range(500)]))
    READER.read(presence_service_pb2.GetPresenceRequest(user_ids=["bob"] * 500))
    READER.read(receipt_service_pb2.GetUnreadRequest(conversation_ids=[LOG] * 1000))
    cursors = [chat_service_pb2.Cursor(conversation_id=LOG, seq=i) for i in range(10_001)]
    READER.read(hello(cursors=cursors[1:]))
    assert refusal(hello(cursors=cursors)) == (Reason.TOO_LARGE, "cursors")


def test_a_text_is_kept_as_it_was_sent() -> None:
    odd = "\ufeff e\u0301 \r\n\x00 \u202e x  "
    command = READER.read(send(content=text(text=odd)))
    assert isinstance(command, c.SendMessage)
    assert message_pb2.MessageContent.FromString(command.content).text == odd


def test_a_token_does_not_show() -> None:
    assert "secret" not in repr(READER.read(chat_service_pb2.RefreshToken(token="secret")))


def test_requests_that_are_none() -> None:
    assert refusal(chat_service_pb2.Cursor()) == (Reason.UNKNOWN_FIELD, "")
