"""The workload with crashes: the server is killed in mid-load, and nothing may be lost, doubled or missing (w5)."""

from __future__ import annotations

import asyncio
import random
import time

from .device import Device
from .figures import Figures
from .processes import Target
from .workloads import Load, Scale

_AT_ONCE = 8


async def crash(target: Target, window: int, kills: int, scale: Scale) -> Figures:
    """w5: pairs of users as in w1; the server is killed with SIGKILL and started again, devices resume, senders send
    again what was not acknowledged.
    """
    load = Load(target)
    for n in range(scale.pairs):
        await load.conversation((f"a{n}", f"b{n}"), window=window, until_delivered=False)
    before, began = target.usage(), time.perf_counter()
    resent = 0
    for sender in load.senders:
        sender.start()
    for _ in range(kills):
        await asyncio.sleep(scale.measured_s / (kills + 1) * random.uniform(0.5, 1.5))
        target.kill()
        await asyncio.gather(*(device.ended.wait() for device in load.devices))
        await asyncio.to_thread(target.start)
        slots = asyncio.Semaphore(_AT_ONCE)
        await asyncio.gather(*(_resume(d, target, slots) for d in load.devices))
        for sender in load.senders:
            resent += sender.resend()
        before = target.usage()
    await asyncio.sleep(scale.measured_s / (kills + 1))
    await asyncio.gather(*(sender.stop() for sender in load.senders))
    used = target.usage() - before
    sent = sum(s.sent for s in load.senders)
    await load.close()
    return Figures(
        used=used,
        units={"message": sent, "resent": resent, "kill": kills},
        seconds=time.perf_counter() - began,
        problems=load.ledger.problems,
        wrong=load.ledger.wrong,
    )


async def _resume(device: Device, target: Target, slots: asyncio.Semaphore) -> None:
    async with slots:
        await device.close()
        await device.open(target.address)
        await device.hello(resume=True)
