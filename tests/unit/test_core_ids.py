"""Ids: RFC 9562 forms, ids derived from causes, and what a user id may look like."""

from __future__ import annotations

import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings_server.core.ids import (
    MAX_USER_ID_BYTES,
    derived_uuid7,
    derived_uuid8,
    direct_conversation_id,
    group_conversation_id,
    id_bytes,
    inbox_log,
    is_conversation_id,
    is_inbox,
    user_id_problem,
    uuid7,
    uuid7_time,
)

TIMES = st.integers(0, 2**48 - 1)
CAUSES = st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4)


@given(TIMES, st.integers(0))
def test_uuid7_is_that_of_the_rfc(now_ms: int, seed: int) -> None:
    text = uuid7(now_ms, random.Random(seed))
    parsed = uuid.UUID(text)
    assert str(parsed) == text
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert id_bytes(text) == parsed.bytes
    assert uuid7_time(id_bytes(text)) == now_ms


def test_uuid7_differ_within_a_millisecond() -> None:
    rng = random.Random(1)
    assert len({uuid7(1_750_000_000_000, rng) for _ in range(1000)}) == 1000


@given(TIMES, CAUSES)
def test_derived_uuid7_is_fixed_by_time_and_cause(time_ms: int, cause: list[str]) -> None:
    text = derived_uuid7(time_ms, *cause)
    assert text == derived_uuid7(time_ms, *cause)
    assert text != derived_uuid7(time_ms, *cause, "more")
    assert uuid.UUID(text).version == 7
    assert uuid7_time(id_bytes(text)) == time_ms


@given(CAUSES, CAUSES)
def test_derived_uuid8_tells_causes_apart(one: list[str], other: list[str]) -> None:
    text = derived_uuid8(*one)
    parsed = uuid.UUID(text)
    assert (parsed.version, parsed.variant) == (8, uuid.RFC_4122)
    assert (text == derived_uuid8(*other)) == (one == other)


def test_causes_do_not_run_together() -> None:
    assert derived_uuid8("ab", "c") != derived_uuid8("a", "bc")
    assert derived_uuid7(1, "ab", "c") != derived_uuid7(1, "a", "bc")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0198c1f4-2a3b-7c4d-8e5f-60718293a4b",  # short
        "0198c1f4-2a3b-7c4d-8e5f-60718293a4b5c",  # long
        "0198C1F4-2A3B-7C4D-8E5F-60718293A4B5",  # upper case
        "0198c1f42a3b7c4d8e5f60718293a4b5",  # no hyphens
        "{0198c1f4-2a3b-7c4d-8e5f-60718293a4}",
        "0198c1f4-2a3b-7c4d-8e5f-60718293a4g5",  # no digit
        "0198c1f42-a3b-7c4d-8e5f-60718293a4b5",  # hyphen out of place
        "0198c1f4-2a3b-7c4d-8e5f-60718293a4-5",
        "\u0660198c1f4-2a3b-7c4d-8e5f-60718293a4b5",  # a digit, but no ASCII one
        " 198c1f4-2a3b-7c4d-8e5f-60718293a4b5",
    ],
)
def test_forms_that_are_no_uuid(text: str) -> None:
    with pytest.raises(ValueError, match="not a UUID"):
        id_bytes(text)
    assert not is_conversation_id(text)


@given(st.uuids())
def test_every_lower_case_uuid_is_read(value: uuid.UUID) -> None:
    assert id_bytes(str(value)) == value.bytes
    assert is_conversation_id(str(value))


@given(st.binary(min_size=16, max_size=16))
def test_only_version_7_has_a_time(raw: bytes) -> None:
    parsed = uuid.UUID(bytes=raw)
    if parsed.variant == uuid.RFC_4122 and parsed.version == 7:
        assert uuid7_time(raw) == int.from_bytes(raw[:6], "big")
    else:
        with pytest.raises(ValueError, match="not a UUIDv7"):
            uuid7_time(raw)


def test_a_direct_conversation_is_that_of_two_users_in_any_order() -> None:
    assert direct_conversation_id("alice", "bob") == direct_conversation_id("bob", "alice")
    assert direct_conversation_id("alice", "bob") != direct_conversation_id("alice", "bo")
    assert is_conversation_id(direct_conversation_id("alice", "bob"))


def test_nobody_can_take_the_id_of_another_users_group() -> None:
    request = uuid7(1_750_000_000_000, random.Random(1))
    assert group_conversation_id("alice", request) != group_conversation_id("bob", request)
    assert group_conversation_id("alice", request) == group_conversation_id("alice", request)


def test_an_inbox_is_no_conversation() -> None:
    log = inbox_log("alice")
    assert log == "inbox:alice"
    assert is_inbox(log)
    assert not is_conversation_id(log)
    assert not is_inbox(direct_conversation_id("alice", "bob"))


@pytest.mark.parametrize(
    "user_id",
    [
        "a",
        "alice@example.org",
        "x" * MAX_USER_ID_BYTES,
        "ä" * (MAX_USER_ID_BYTES // 2),
        "アリス",
        "👩",
        "inbox:alice",
        "a/b?c=d%20",
        "-1",
    ],
)
def test_user_ids_that_are_taken(user_id: str) -> None:
    assert user_id_problem(user_id) is None


@pytest.mark.parametrize(
    "user_id",
    [
        "",
        "x" * (MAX_USER_ID_BYTES + 1),
        "ä" * (MAX_USER_ID_BYTES // 2 + 1),
        "a b",
        " a",
        "a\n",
        "a\tb",
        "a\x00",
        "a\x7f",
        "a\x85",
        "a\u00a0b",
        "a\u200b",
        "a\u2028",
        "a\ufeff",
        "\ue000",
        "\ud800",
    ],
)
def test_user_ids_that_are_refused(user_id: str) -> None:
    assert user_id_problem(user_id)
