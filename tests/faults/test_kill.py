"""Killed and stopped under load: nothing acknowledged is lost, nothing is there twice, and nobody misses anything."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable

import grpc
import grpc.aio

from tests.faults.check import invariants
from tests.faults.person import Person
from tests.integration.processes import ServerProcess
from tests.integration.wire import message, refused, until

KILLS = 3


async def test_killed_again_and_again_under_load(process: ServerProcess) -> None:
    await process.start()
    address = process.address
    caller = process.caller("user-0")
    users = [f"user-{i}" for i in range(5)]
    logs = [
        await caller.group(*users[1:]),
        await caller.group(*users[1:3]),
        await caller.direct("user-1"),
    ]
    in_logs = {
        user: [
            logs[0],
            *([logs[1]] if user in users[:3] else []),
            *([logs[2]] if user in users[:2] else []),
        ]
        for user in users
    }
    people = [Person(user, lambda: address, in_logs[user]) for user in users]
    rng = random.Random(8)
    talking = True

    async def talk(person: Person) -> None:
        while talking:
            if len(person.waiting) < 60:
                person.post(rng.choice(person.logs))
            await asyncio.sleep(0)

    talks = [asyncio.get_running_loop().create_task(talk(p)) for p in people]
    for kill in range(KILLS):
        await until(_more_acknowledged(people, 150))
        # In the middle of it, whatever is on its way.
        address = ""
        await process.kill()
        await process.start()
        address = process.address
        await until(_sessions(people, kill + 2))
    talking = False
    await asyncio.gather(*talks)
    caller = process.caller("user-0")
    await until(lambda: not any(p.waiting for p in people))
    heads = {log: len(await caller.history(log)) for log in logs}
    await until(lambda: all(p.level(heads) for p in people))
    await invariants(people, caller, logs)
    for person in people:
        await person.stop()


def _more_acknowledged(people: list[Person], count: int) -> Callable[[], bool]:
    def acknowledged() -> int:
        return sum(post.seq > 0 for p in people for post in p.posts)

    before = acknowledged()
    return lambda: acknowledged() > before + count


def _sessions(people: list[Person], count: int) -> Callable[[], bool]:
    return lambda: all(p.sessions >= count for p in people)


async def test_stopped_for_a_while(process: ServerProcess) -> None:
    """A process that stands still answers late, and what was given up meanwhile is found by its id."""
    await process.start()
    alice = process.caller("alice")
    log = await alice.group("bob")
    bob = await process.connect("bob").open()
    phone = await process.connect("alice").open()
    process.signal(signal.SIGSTOP)
    posts = [phone.message(log, str(i)) for i in range(100)]
    await phone.send(*posts)
    lost = message(log, "given up")
    problem = await refused(alice.messages.SendMessage(lost, metadata=alice.metadata, timeout=0.3))
    assert problem.code is grpc.StatusCode.DEADLINE_EXCEEDED
    process.signal(signal.SIGCONT)
    for post in posts:
        assert (await phone.result(post.command_id)).HasField("send_message")
    seq = await alice.post(log, "given up", change_id=lost.message_id)
    assert await alice.post(log, "given up", change_id=lost.message_id) == seq
    await bob.level(log, 102)
    assert sorted(bob.texts(log)) == sorted([*map(str, range(100)), "given up"])
    assert [t for t in bob.texts(log) if t != "given up"] == [str(i) for i in range(100)]
