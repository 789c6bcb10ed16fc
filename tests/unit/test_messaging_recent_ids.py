"""Recent ids: an id that was committed is never taken for a new one, whatever was forgotten."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.made import NOW_MS
from tidings_server.core.ids import SKEW_MS, id_bytes, uuid7
from tidings_server.messaging import recent_ids
from tidings_server.messaging.recent_ids import (
    RecentIds,
    earliest_stamp,
    latest_unseen,
    offsets,
)


def may_be_old(recent: RecentIds, raw: bytes) -> bool:
    """Whether an id is known, or must be looked up in the store."""
    time_ms = int.from_bytes(raw[:6], "big")
    return recent.find(raw) is not None or time_ms <= recent.unseen_time


# How far each commit lies after the one before, and by how much its id is older or newer than its stamp.
COMMITS = st.lists(
    st.tuples(st.integers(0, 200_000), st.integers(-1_000_000, SKEW_MS)), max_size=60
)


@given(COMMITS, st.integers(1, 12), st.integers(1, 20), st.integers(0, 60), st.integers(0))
def test_no_committed_id_counts_as_new(
    commits: list[tuple[int, int]], capacity: int, older: int, loaded_at: int, seed: int
) -> None:
    rng = random.Random(seed)
    stamp = NOW_MS
    pages: list[tuple[int, bytes]] = []
    for step, offset in commits:
        stamp += step
        pages.append((stamp, id_bytes(uuid7(stamp + offset, rng))))
    # The log is loaded when some commits are done: those before are not in memory, the others come one by one.
    loaded_at = min(loaded_at, len(pages))
    before = pages[loaded_at - 1][0] if loaded_at else None
    recent = RecentIds(latest_unseen(before) if before is not None else -1, capacity, older)
    for seq, (stamp, raw) in enumerate(pages, 1):
        if seq > loaded_at:
            recent.add(raw, seq, stamp)
        assert all(may_be_old(recent, earlier) for _, earlier in pages[:seq])


@given(COMMITS, st.integers(0))
def test_what_must_be_looked_up_lies_where_the_look_up_reads(
    commits: list[tuple[int, int]], seed: int
) -> None:
    rng = random.Random(seed)
    stamp = NOW_MS
    for step, offset in commits:
        stamp += step
        raw = id_bytes(uuid7(stamp + offset, rng))
        assert stamp >= earliest_stamp(int.from_bytes(raw[:6], "big"))


def test_new_ids_need_no_look_up_while_senders_clocks_are_right() -> None:
    rng = random.Random(1)
    recent = RecentIds(-1, capacity=10, older=20)
    for i in range(1000):
        raw = id_bytes(uuid7(NOW_MS + i * 100, rng))
        assert not may_be_old(recent, raw)
        recent.add(raw, i + 1, NOW_MS + i * 100)


def test_one_sender_ahead_of_time_does_not_send_all_others_to_the_store() -> None:
    rng = random.Random(1)
    recent = RecentIds(-1, capacity=10, older=20)
    ahead = id_bytes(uuid7(NOW_MS + SKEW_MS, rng))
    recent.add(ahead, 1, NOW_MS)
    for i in range(1000):
        raw = id_bytes(uuid7(NOW_MS + i * 100, rng))
        assert not may_be_old(recent, raw)
        recent.add(raw, i + 2, NOW_MS + i * 100)
    assert recent.find(ahead) == 1


def test_ids_ahead_of_time_do_not_make_all_others_search(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[bytes] = []

    def searching(ids: bytes | bytearray, raw: bytes) -> list[int]:
        searched.append(raw)
        return offsets(ids, raw)

    monkeypatch.setattr(recent_ids, "offsets", searching)
    rng = random.Random(1)
    recent = RecentIds(-1, capacity=80, older=10_000)
    ahead: dict[bytes, int] = {}
    now_ms = NOW_MS
    # 10 a second for 16 minutes; of one sender every 200th lies ahead.
    for seq in range(1, 10_000):
        now_ms += 100
        raw = id_bytes(uuid7(now_ms, rng))
        if seq % 200 == 0:
            raw = id_bytes(uuid7(now_ms + SKEW_MS - 10_000, rng))
            ahead[raw] = seq
        assert recent.find(raw) is None
        recent.add(raw, seq, now_ms)
    assert not searched
    # They are known all the time, also when another sender uses one once more.
    again = next(reversed(ahead))
    recent.add(again, 10_000, now_ms)
    for seq in range(10_001, 10_100):
        recent.add(id_bytes(uuid7(now_ms, rng)), seq, now_ms)
    assert recent.find(again) == (ahead.pop(again), 10_000)
    assert all(recent.find(raw) == seq for raw, seq in ahead.items())


def test_memory_is_bounded_whatever_the_ids_are() -> None:
    rng = random.Random(1)
    recent = RecentIds(-1, capacity=10, older=20)
    ids = [id_bytes(uuid7(NOW_MS + SKEW_MS, rng)) for _ in range(250)]
    for seq, raw in enumerate(ids, 1):
        recent.add(raw, seq, NOW_MS)
        assert sum(recent.find(other) is not None for other in ids[:seq]) <= 35
        assert all(may_be_old(recent, other) for other in ids[:seq])


def test_an_id_that_several_senders_used() -> None:
    rng = random.Random(1)
    recent = RecentIds(-1, capacity=4, older=1000)
    raw = id_bytes(uuid7(NOW_MS, rng))
    for seq in (3, 3, 7, 7, 9, 3):
        recent.add(raw, seq, NOW_MS)
    assert recent.find(raw) == (3, 7, 9)
    for seq in range(10, 200):
        recent.add(id_bytes(uuid7(NOW_MS + seq, rng)), seq, NOW_MS + seq)
    recent.add(raw, 200, NOW_MS + 200)
    assert recent.find(raw) == (3, 7, 9, 200)


@given(
    st.lists(st.binary(min_size=16, max_size=16), max_size=6), st.binary(min_size=16, max_size=16)
)
def test_offsets_of_an_id_in_a_page(ids: list[bytes], other: bytes) -> None:
    for raw in {*ids, other}:
        assert offsets(b"".join(ids), raw) == [i for i, known in enumerate(ids) if known == raw]


def test_an_id_across_two_others_is_none() -> None:
    ids = b"\x00" * 8 + b"\x07" * 16 + b"\x00" * 8
    assert offsets(ids, b"\x07" * 16) == []
