"""Made-up entries, pages and commands for unit tests, and Hypothesis strategies of them."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence

from hypothesis import strategies as st

from tidings.v1 import message_pb2
from tidings_server.codec.entries import EntryEncoder
from tidings_server.core.commands import ChangeId
from tidings_server.core.entries import (
    SETTINGS,
    Body,
    ConversationCreated,
    ConversationJoined,
    ConversationKind,
    ConversationLeft,
    ConversationUpdated,
    Entry,
    InvitationSet,
    MemberBanned,
    MemberMuted,
    MemberRemoved,
    MemberRoleSet,
    MembersAdded,
    MessageDeleted,
    MessageEdited,
    MessagePinned,
    MessagePosted,
    NewMember,
    ReactionSet,
    Role,
    RoleChange,
)
from tidings_server.core.ids import id_bytes, uuid7
from tidings_server.core.pages import Page

NOW_MS = 1_750_000_000_000
LOG = "0198c1f4-2a3b-8c4d-8e5f-60718293a4b5"
RNG = random.Random(7)

# Small alphabets of one to four bytes a character: drawing from all of Unicode takes most of the time.
texts = st.text("a \x00\n\x7fäの👩\ufeff", max_size=12)
user_ids = st.text("abc.@äの👩", min_size=1, max_size=8)
times = st.integers(1, 2**43)
positions = st.integers(1, 2**62)
uuids = st.integers(0, 2**128 - 1).map(lambda n: str(uuid.UUID(int=n)))
roles = st.sampled_from(Role)
kinds = st.sampled_from(ConversationKind)
members = st.lists(
    st.builds(NewMember, user_ids, roles), min_size=1, max_size=4, unique_by=lambda m: m.user_id
).map(tuple)
role_changes = st.lists(
    st.builds(RoleChange, user_ids, roles, st.none() | roles), min_size=1, max_size=2
).map(tuple)
overrides = st.lists(st.tuples(roles.map(int), st.integers(1, 16), st.booleans()), max_size=3).map(
    lambda some: tuple(sorted(some))
)
values: dict[str, st.SearchStrategy[object]] = {
    "frozen": st.booleans(),
    "rights": overrides,
    "history_for_newcomers": st.booleans(),
}
changes = st.lists(st.sampled_from(SETTINGS), unique=True).flatmap(
    lambda names: st.tuples(
        *(st.tuples(st.just(n), values.get(n, texts)) for n in SETTINGS if n in names)
    )
)
contents = st.builds(
    lambda text, reply: message_pb2.MessageContent(
        text=text, reply_to_message_id=reply
    ).SerializeToString(),
    texts,
    st.sampled_from(["", "0198c1f4-2a3b-7c4d-8e5f-60718293a4b5"]),
)
bodies: st.SearchStrategy[Body] = st.one_of(
    st.builds(MessagePosted, contents),
    st.builds(MessageEdited, positions, contents),
    st.builds(MessageDeleted, positions),
    st.builds(ReactionSet, positions, texts, texts),
    st.builds(MessagePinned, positions, st.booleans()),
    st.builds(ConversationCreated, kinds, texts, members),
    st.builds(MembersAdded, members, st.booleans(), st.sampled_from(["", "ab" * 32])),
    st.builds(InvitationSet, st.just("ab" * 32), st.integers(0, 9), st.just(0) | times),
    st.builds(MemberRemoved, user_ids, st.none() | roles, st.just(0) | times),
    st.builds(MemberMuted, user_ids, st.just(0) | times),
    st.builds(MemberBanned, user_ids, st.just(0) | times),
    st.builds(MemberRoleSet, role_changes),
    st.builds(ConversationUpdated, changes),
    st.builds(ConversationJoined, uuids, kinds, texts, positions, roles, texts),
    st.builds(ConversationLeft, uuids, positions),
)


def content(text: str) -> bytes:
    return message_pb2.MessageContent(text=text).SerializeToString()


def change_id(time_ms: int = NOW_MS) -> ChangeId:
    text = uuid7(time_ms, RNG)
    return ChangeId(text, id_bytes(text), time_ms)


def page_of(entries: Sequence[Entry], flags: int = 0) -> Page:
    """The page that holds these entries, of one log and one time, in a row."""
    first = entries[0]
    encoder = EntryEncoder(first.log, first.time_ms)
    return Page(
        first.seq,
        len(entries),
        first.time_ms,
        entries[-1].ordinal,
        RNG.randbytes(16),
        b"".join(id_bytes(e.id) for e in entries),
        flags,
        b"".join(encoder.encode(e.seq, e.ordinal, e.id, e.user_id, e.body) for e in entries),
    )


def messages(
    first_seq: int, count: int, *, log: str = LOG, time_ms: int = NOW_MS, user_id: str = "alice"
) -> list[Entry]:
    """Messages in a row, with texts that tell their positions."""
    return [
        Entry(
            log,
            seq,
            seq,
            uuid7(time_ms, RNG),
            user_id,
            time_ms,
            MessagePosted(content(f"message {seq}")),
        )
        for seq in range(first_seq, first_seq + count)
    ]
