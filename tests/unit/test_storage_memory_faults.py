"""The memory store misbehaves exactly as its decision source says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest

from tests.contract.samples import LOG, append_of, page
from tidings_server.storage.base import (
    APPLIED,
    UNKNOWN,
    Conflict,
    CursorRow,
    Store,
    StoreUnavailable,
)
from tidings_server.storage.memory import (
    Call,
    Fate,
    Happens,
    MemoryDisk,
    MemoryStore,
    RandomFaults,
)

Decide = Callable[[Call], Fate]


class Script:
    """Fates for the next calls, in their order; then all goes well."""

    def __init__(self) -> None:
        self.fates: list[Fate] = []
        self.calls: list[Call] = []

    def __call__(self, call: Call) -> Fate:
        self.calls.append(call)
        return self.fates.pop(0) if self.fates else Fate()


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def store(disk: MemoryDisk, script: Script) -> AsyncIterator[MemoryStore]:
    store = MemoryStore(disk, new_id=lambda: "history", faults=script)
    await store.open()
    yield store
    await store.close()


def head(disk: MemoryDisk) -> int:
    heads = disk.heads([LOG])
    return heads[LOG].last_seq if heads else 0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # a disk tells nobody of its changes
            await asyncio.sleep(0.001)


async def test_it_is_asked_of_every_call(store: MemoryStore, script: Script) -> None:
    await store.append(append_of(LOG, page(1)))
    await store.put_user_logs(LOG, ["ann"])
    await store.cursors("ann", "phone")
    await store.check()
    assert script.calls == [
        Call("append", LOG),
        Call("put_user_logs", LOG),
        Call("cursors", "ann"),
        Call("check", ""),
    ]
    assert [call.is_write for call in script.calls] == [True, True, False, False]


async def test_an_append_may_be_refused(
    store: MemoryStore, disk: MemoryDisk, script: Script
) -> None:
    script.fates = [Fate(Happens.REFUSED)]
    with pytest.raises(StoreUnavailable):
        await store.append(append_of(LOG, page(1)))
    assert head(disk) == 0


async def test_an_answer_may_be_lost(store: MemoryStore, disk: MemoryDisk, script: Script) -> None:
    request = append_of(LOG, page(1))
    script.fates = [Fate(Happens.UNSURE_LOST), Fate(Happens.UNSURE_DONE)]
    assert await store.append(request) is UNKNOWN
    assert head(disk) == 0
    assert await store.append(request) is UNKNOWN
    assert head(disk) == 1
    assert await store.append(request) == Conflict(1)


async def test_a_late_append_is_applied_when_its_condition_still_holds(
    store: MemoryStore, disk: MemoryDisk, script: Script
) -> None:
    script.fates = [Fate(Happens.UNSURE_LATE, late=0.02)]
    request = append_of(LOG, page(1))
    assert await store.append(request) is UNKNOWN
    assert head(disk) == 0
    await until(lambda: head(disk) == 1)
    assert await store.append(request) == Conflict(1)


async def test_a_late_append_comes_too_late(
    store: MemoryStore, disk: MemoryDisk, script: Script
) -> None:
    script.fates = [Fate(Happens.UNSURE_LATE, late=0.01)]
    late, other = append_of(LOG, page(1)), append_of(LOG, page(1, 2))
    assert await store.append(late) is UNKNOWN
    assert await store.append(other) is APPLIED
    # Later than the late one.
    script.fates = [Fate(before=0.03)]
    await store.check()
    assert disk.heads([LOG])[LOG].commit_id == other.page.commit_id


async def test_puts_and_reads_fail_by_raising(
    store: MemoryStore, disk: MemoryDisk, script: Script
) -> None:
    row = CursorRow("ann", "phone", LOG, 3)
    for happens, written in [
        (Happens.REFUSED, {}),
        (Happens.UNSURE_LOST, {}),
        (Happens.UNSURE_DONE, {LOG: 3}),
    ]:
        script.fates = [Fate(happens)]
        with pytest.raises(StoreUnavailable):
            await store.put_cursors([row])
        assert disk.cursors("ann", "phone") == written
    script.fates = [Fate(Happens.REFUSED)]
    with pytest.raises(StoreUnavailable):
        await store.cursors("ann", "phone")


async def test_delays_come_before_and_after_the_effect(
    store: MemoryStore, disk: MemoryDisk, script: Script
) -> None:
    script.fates = [Fate(before=0.01, after=0.01)]
    answer = store.append(append_of(LOG, page(1)))
    assert head(disk) == 0
    await until(lambda: head(disk) == 1)
    assert not answer.done()
    assert await answer is APPLIED


async def test_a_crash_leaves_what_survives(disk: MemoryDisk, script: Script) -> None:
    store = MemoryStore(disk, new_id=lambda: "history", faults=script)
    await store.open()
    script.fates = [
        Fate(before=5.0),
        Fate(before=5.0),
        Fate(after=5.0),
        Fate(Happens.UNSURE_LOST, before=5.0),
        Fate(Happens.UNSURE_LATE, late=0.01, after=5.0),
        Fate(before=5.0),
    ]
    answers = [store.append(append_of(f"log-{n}", page(1))) for n in range(5)]
    reading = asyncio.create_task(store.check())
    await asyncio.sleep(0)
    asked = iter([True, False])
    # Only the two writes that have had no effect, and would have one, are asked for.
    store.crash(lambda: next(asked))
    assert next(asked, None) is None
    await until(lambda: bool(disk.heads(["log-4"])))
    assert set(disk.heads([f"log-{n}" for n in range(5)])) == {"log-0", "log-2", "log-4"}
    assert not any(answer.done() for answer in answers)
    with pytest.raises(StoreUnavailable):
        await store.append(append_of(LOG, page(1)))
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)

    again: Store = MemoryStore(disk, new_id=lambda: "another")
    await again.open()
    assert again.incarnation == "history"
    assert set(await again.heads([f"log-{n}" for n in range(5)])) == {"log-0", "log-2", "log-4"}


async def test_closing_waits_for_what_is_under_way(disk: MemoryDisk, script: Script) -> None:
    store = MemoryStore(disk, new_id=lambda: "history", faults=script)
    await store.open()
    script.fates = [Fate(before=0.01, after=0.01), Fate(before=0.02)]
    answer = store.append(append_of(LOG, page(1)))
    cancelled = store.append(append_of("log-2", page(1)))
    cancelled.cancel()
    await store.close()
    assert answer.result() is APPLIED
    assert set(disk.heads([LOG, "log-2"])) == {LOG, "log-2"}


def test_random_faults_are_drawn_from_their_source() -> None:
    calls = [Call("append", LOG), Call("read", LOG), Call("put_cursors", "")] * 300

    def fates(seed: int) -> list[Fate]:
        faults = RandomFaults(
            random.Random(seed), refused=0.2, unsure=0.3, max_delay=0.5, max_late=4.0
        )
        return [faults(call) for call in calls]

    first = fates(1)
    assert first == fates(1)
    assert first != fates(2)
    unsure = {Happens.UNSURE_DONE, Happens.UNSURE_LOST, Happens.UNSURE_LATE}
    for call, fate in zip(calls, first, strict=True):
        assert 0.0 <= fate.before <= 0.5
        assert 0.0 <= fate.after <= 0.5
        assert 0.0 <= fate.late <= 4.0
        assert call.is_write or fate.happens not in unsure
    assert {fate.happens for fate in first} == set(Happens)


def test_calm_faults_do_nothing() -> None:
    faults = RandomFaults(random.Random(1), refused=0.5, unsure=0.5)
    faults.calm()
    assert {faults(Call("append", LOG)) for _ in range(100)} == {Fate()}
