"""Holds idle connections: a process of its own, of which the benchmark starts several.

usage: python -m tools.bench.holder ADDRESS, with one "USER TOKEN" a line on standard input, then an empty line. Prints
"level" once every device is level, and holds the connections until standard input ends.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

from .device import Device
from .frames import FrameReader
from .ledger import Ledger

AT_ONCE = 20


async def hold(address: str) -> None:
    """Connects, tells, waits."""
    ledger, reader = Ledger(), FrameReader()
    devices = []
    for line in iter(sys.stdin.readline, "\n"):
        user, token = line.split()
        devices.append(Device(user, token, ledger, reader))
    slots = asyncio.Semaphore(AT_ONCE)

    async def connect(device: Device) -> None:
        async with slots:
            await device.open(address)
            await device.hello()

    await asyncio.gather(*(connect(device) for device in devices))
    print("level" if not ledger.wrong else ledger.problems[0], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    # Those that the server has ended meanwhile would make the memory of each look small.
    lost = sum(device.ended.is_set() for device in devices)
    print("held" if not lost else f"{lost} connections have ended", flush=True)


def main() -> None:
    """The entry point of the process."""
    uvloop.run(hold(sys.argv[1]))


if __name__ == "__main__":
    main()
