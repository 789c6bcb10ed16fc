"""The contract of state stores, run whole on each; and what only the file promises."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tidings import (
    FileStateStore,
    MemoryStateStore,
    StateError,
    StateStore,
    StoredCursor,
    StoredFailure,
    StoredMessage,
    StoredSession,
    StoredState,
)


def message(position: int, *, sealed: bool = True, name: str = "") -> StoredMessage:
    return StoredMessage(
        position, "c", name or f"m{position}", b"\x00\xff" * position, 7, sealed=sealed
    )


@pytest.fixture(params=["memory", "file"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], StateStore]:
    """Makes the store; every time the same one, as a new process would find it."""
    if request.param == "memory":
        memory = MemoryStateStore()
        return lambda: memory
    return lambda: FileStateStore(tmp_path / "state.sqlite3")


async def contents(make: Callable[[], StateStore]) -> StoredState:
    store = make()
    state = await store.open()
    await store.close()
    return state


async def test_a_new_store_is_empty(make: Callable[[], StateStore]) -> None:
    assert await contents(make) == StoredState()


async def test_everything_is_there_again(make: Callable[[], StateStore]) -> None:
    store = make()
    await store.open()
    session = StoredSession("alice", "phone", "one", announced=False)
    await store.save_session(session)
    await store.save_cursors([StoredCursor("a", 5), StoredCursor("b", 2**40)])
    await store.add([message(3), message(1, sealed=False)])
    await store.add([message(2)])
    await store.close()
    assert await contents(make) == StoredState(
        session,
        (StoredCursor("a", 5), StoredCursor("b", 2**40)),
        (message(1, sealed=False), message(2), message(3)),
    )


async def test_cursors_go_both_ways_and_away(make: Callable[[], StateStore]) -> None:
    store = make()
    await store.open()
    await store.save_cursors([StoredCursor("a", 5), StoredCursor("b", 5), StoredCursor("c", 5)])
    await store.save_cursors([StoredCursor("a", 3), StoredCursor("b", 0), StoredCursor("d", 0)])
    await store.close()
    assert (await contents(make)).cursors == (StoredCursor("a", 3), StoredCursor("c", 5))


async def test_a_session_can_replace_all_cursors(make: Callable[[], StateStore]) -> None:
    store = make()
    await store.open()
    await store.save_cursors([StoredCursor("a", 5), StoredCursor("b", 5)])
    await store.save_session(StoredSession("alice", "phone", "two"), [StoredCursor("b", 3)])
    await store.save_session(StoredSession("alice", "phone", "three"))
    await store.close()
    state = await contents(make)
    assert state.session == StoredSession("alice", "phone", "three")
    assert state.cursors == (StoredCursor("b", 3),)


async def test_messages_are_updated_and_removed(make: Callable[[], StateStore]) -> None:
    store = make()
    await store.open()
    await store.add([message(n, sealed=False) for n in range(1, 5)])
    failed = StoredMessage(
        3, "c", "m3", message(3).content, 7, True, StoredFailure(7, "DENIED", "field", "no")
    )
    await store.update(
        {"m1": message(1, name="anew"), "m3": failed, "not there": message(9, name="nor this")}
    )
    await store.remove(["m2", "not there"])
    await store.close()
    assert (await contents(make)).messages == (
        message(1, name="anew"),
        failed,
        message(4, sealed=False),
    )


async def test_calls_take_effect_in_their_order(make: Callable[[], StateStore]) -> None:
    store = make()
    await store.open()
    await asyncio.gather(
        *(store.save_cursors([StoredCursor("a", n)]) for n in range(1, 50)),
        store.add([message(1)]),
        store.remove(["m1"]),
        store.add([message(2)]),
    )
    closing = asyncio.create_task(store.save_cursors([StoredCursor("a", 99)]))
    await asyncio.sleep(0)
    await store.close()
    await closing
    state = await contents(make)
    assert state.cursors == (StoredCursor("a", 99),)
    assert state.messages == (message(2),)


async def test_a_second_one_is_refused(make: Callable[[], StateStore]) -> None:
    store = make()
    await store.open()
    with pytest.raises(StateError, match="in use"):
        await make().open()
    await store.close()
    assert await contents(make) == StoredState()


# The file


async def test_one_call_that_fails_does_not_fail_the_others(tmp_path: Path) -> None:
    store = FileStateStore(tmp_path / "state.sqlite3")
    await store.open()
    results = await asyncio.gather(
        store.add([message(1)]),
        store.add([message(1, name="at a place that is taken")]),
        store.add([message(2)]),
        return_exceptions=True,
    )
    assert isinstance(results[1], StateError)
    assert (results[0], results[2]) == (None, None)
    await store.close()
    assert (await contents(lambda: FileStateStore(store.path))).messages == (message(1), message(2))


def modes(folder: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in folder.iterdir()}


async def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    store = FileStateStore(tmp_path / "state.sqlite3")
    await store.open()
    await store.add([message(1)])
    assert modes(tmp_path) == {0o600}
    await store.close()


async def test_a_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("not a database, and longer than the header of one" * 100)
    other = tmp_path / "other.sqlite3"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE other (x)")
    db.close()
    newer = tmp_path / "newer.sqlite3"
    store = FileStateStore(newer)
    await store.open()
    await store.close()
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    for path, why in (
        (text, "not a database"),
        (other, "isn't a state file"),
        (newer, "version"),
        (tmp_path / "missing" / "state", "No such file"),
    ):
        with pytest.raises(StateError, match=why):
            await FileStateStore(path).open()
    with pytest.raises(StateError, match="isn't open"):
        await FileStateStore(newer).add([message(1)])


HOLDER = """
import asyncio, sys
from tidings import FileStateStore, StoredCursor, StoredMessage

async def main():
    store = FileStateStore(sys.argv[1])
    await store.open()
    position = 0
    while True:
        position += 1
        name = f"m{position}"
        await store.add([StoredMessage(position, "c", name, b"x" * 100, 0, True)])
        # Told only once it is durable: what was told must be there, whenever the process is killed.
        print(name, flush=True)
        if position % 3 == 0:
            await store.remove([name])
            print("-" + name, flush=True)
        await store.save_cursors([StoredCursor("a", position)])
        print(f"={position}", flush=True)

asyncio.run(main())
"""


async def test_what_was_promised_survives_a_kill_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    held: set[str] = set()
    for lines in (3, 8, 20):
        cursor = 0
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            HOLDER.replace("position = 0", f"position = {1000 * lines}"),
            str(path),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        seen: list[bytes] = []
        async with asyncio.timeout(60):
            while len(seen) < lines:
                seen.append(await process.stdout.readline())
            # Another process has the file: it is not for us.
            with pytest.raises(StateError, match="in use"):
                await FileStateStore(path).open()
            process.send_signal(signal.SIGKILL)
            seen += (await process.stdout.read()).splitlines(keepends=True)
            await process.wait()
        for line in seen:
            text = line.decode()
            if not text.endswith("\n"):
                continue
            if text.startswith("="):
                cursor = int(text[1:])
            elif text.startswith("-"):
                held.discard(text[1:].strip())
            else:
                held.add(text.strip())
        state = await contents(lambda: FileStateStore(path))
        names = {one.message_id for one in state.messages}
        # Nobody was told of the call that was under way: it happened or it didn't.
        assert len(names ^ held) <= 1
        assert all(int(name[1:]) % 3 == 0 for name in held - names), "it was never removed"
        assert state.cursors[0].seq in (cursor, cursor + 1)
        held = names
