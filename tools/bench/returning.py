"""The workload of devices that come back: what a missed message costs (w4)."""

from __future__ import annotations

import asyncio
import time
import uuid

from . import procfs
from .api import Api
from .device import Device
from .figures import Figures
from .load import Sender
from .processes import Target
from .profiler import Profiler
from .workloads import SETTLE_S, Load

ROUNDS = 4
"""Each device comes back so often, the first time just after the server was started."""
_SENDERS_WINDOW = 8


async def come_back(
    target: Target,
    *,
    devices: int,
    missed: int,
    own_conversations: bool,
    profiler: Profiler | None = None,
) -> Figures:
    """w4: devices that were there, missed so many messages of one group, or each of its own conversation, come back."""
    load = Load(target)
    users = [f"r{n}" for n in range(devices)]
    cursors: dict[str, dict[str, int]] = {}
    rooms: dict[str, str] = {}
    if target.is_server:
        # Connected before the conversations are made: a new device would get only the newest of many.
        poster = load.device("poster")
        await poster.open(target.address)
        await poster.hello()
        async with Api(target) as api:
            if own_conversations:
                rooms = {user: await api.direct("poster", user) for user in users}
            else:
                conversation = await api.group("poster", users)
                rooms = dict.fromkeys(users, conversation)
        await _leave(load, users, cursors)
        await _post(load, poster, sorted(set(rooms.values())), missed)
        await poster.close()
        for name in rooms.values():
            load.expected[name] = set()
        target.stop()
        target.start()
    else:
        rooms = {user: str(uuid.uuid4()) if own_conversations else "x" * 36 for user in users}
    used = procfs.NOTHING
    seconds = 0.0
    received = load.ledger.received
    for number in range(ROUNDS):
        back = []
        for user in users:
            device = load.device(user, f"{user} round {number}")
            device.cursors.update(cursors.get(user, {}))
            if rooms[user] in load.expected:
                load.expected[rooms[user]].add(device.name)
            metadata = (("room", rooms[user]), ("backlog", str(missed)))
            await device.open(target.address, metadata)
            back.append(device)
        await asyncio.sleep(SETTLE_S)
        if profiler is not None:
            profiler.start(target.pid)
        before, began = target.usage(), time.perf_counter()
        await asyncio.gather(*(device.hello(resume=True) for device in back))
        seconds += time.perf_counter() - began
        await asyncio.sleep(SETTLE_S)
        used += target.usage() - before
        if profiler is not None:
            profiler.stop()
        for device in back:
            await device.close()
    caught_up = load.ledger.received - received
    if caught_up < ROUNDS * devices * missed:
        load.ledger.problem(f"{caught_up} messages instead of {ROUNDS * devices * missed}")
    await load.close()
    return Figures(
        used=used,
        units={"message": caught_up},
        seconds=seconds,
        problems=load.ledger.problems,
        wrong=load.ledger.wrong,
    )


async def _leave(load: Load, users: list[str], cursors: dict[str, dict[str, int]]) -> None:
    """Devices that get what there is, and go."""
    for user in users:
        device = load.device(user)
        await device.open(load.target.address)
        await device.hello()
        cursors[user] = dict(device.cursors)
        await device.close()


async def _post(load: Load, device: Device, conversations: list[str], count: int) -> None:
    """Somebody posts to each conversation, while nobody else is there."""
    for conversation in conversations:
        sender = Sender(
            conversation,
            device,
            [device],
            load.ledger,
            load.ids,
            window=_SENDERS_WINDOW,
            until_delivered=False,
            at_most=count,
        )
        sender.start()
        await sender.finished()
        load.senders.append(sender)
