"""The workloads with messages: 1-to-1 (w1) and in a group (w2)."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from . import procfs
from .api import Api
from .device import Device
from .figures import Figures, percentile
from .frames import FrameReader, MessageIds
from .ledger import Ledger
from .load import Sender
from .processes import Target
from .profiler import Profiler

SETTLE_S = 0.4
"""After the last delivery: what the server writes a moment later, such as cursors, is billed too."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a workload is, and how long it is measured."""

    pairs: int = 16
    group: int = 200
    connections: int = 5000
    devices: int = 50
    missed: int = 1000
    kills: int = 3
    warm_s: float = 1.0
    measured_s: float = 5.0

    def lasting(self, seconds: float) -> Scale:
        """The same, measured for another time."""
        return replace(self, measured_s=seconds)


QUICK = Scale(
    pairs=3, group=12, connections=40, devices=3, missed=40, kills=1, warm_s=0.1, measured_s=0.4
)


@dataclass(slots=True)
class Load:
    """Devices and senders on one target, with the ledger that checks them."""

    target: Target
    ledger: Ledger = field(default_factory=Ledger)
    reader: FrameReader = field(default_factory=FrameReader)
    ids: MessageIds = field(default_factory=MessageIds)
    devices: list[Device] = field(default_factory=list)
    senders: list[Sender] = field(default_factory=list)
    expected: dict[str, set[str]] = field(default_factory=dict)

    def device(self, user: str, name: str = "") -> Device:
        """A new device of a user, or the same one anew under another name in the ledger."""
        token = self.target.token(user, "bench")
        device = Device(user, token, self.ledger, self.reader, name)
        self.devices.append(device)
        return device

    async def conversation(
        self, users: Sequence[str], *, window: int, until_delivered: bool
    ) -> None:
        """Makes a conversation whose first user sends, with a connected device of each user."""
        if self.target.kind == "server":
            async with Api(self.target) as api:
                if len(users) == 2:
                    conversation = await api.direct(users[0], users[1])
                else:
                    conversation = await api.group(users[0], users[1:])
        else:
            conversation = str(uuid.uuid4())
        devices = [self.device(user) for user in users]
        self.senders.append(
            Sender(
                conversation,
                devices[0],
                devices,
                self.ledger,
                self.ids,
                window=window,
                until_delivered=until_delivered,
            )
        )
        self.expected[conversation] = {d.name for d in devices}
        for device in devices:
            await device.open(self.target.address, (("room", conversation),))
            await device.hello()

    def frames(self) -> tuple[int, int]:
        """How many frames the target has read, and written."""
        return sum(d.frames_sent for d in self.devices), sum(d.frames_got for d in self.devices)

    async def run(self, seconds: float) -> float:
        """Sends for a time, then waits until all is acknowledged and delivered. Returns how long all that took."""
        began = time.perf_counter()
        for sender in self.senders:
            sender.start()
        await asyncio.sleep(seconds)
        await asyncio.gather(*(sender.stop() for sender in self.senders))
        return time.perf_counter() - began

    async def close(self) -> None:
        """Checks everything that was received, and the history; closes the devices."""
        self.ledger.close(self.expected)
        if self.target.kind == "server":
            async with Api(self.target) as api:
                for sender in self.senders:
                    await api.check_history(sender.device.user, sender.conversation, self.ledger)
        for device in self.devices:
            await device.close()


async def messages(
    target: Target,
    groups: Sequence[Sequence[str]],
    *,
    window: int,
    until_delivered: bool,
    scale: Scale,
    profiler: Profiler | None,
) -> Figures:
    """Runs conversations side by side and bills the target for each message and delivery."""
    load = Load(target)
    for users in groups:
        await load.conversation(users, window=window, until_delivered=until_delivered)
    await load.run(scale.warm_s)
    await asyncio.sleep(SETTLE_S)
    for sender in load.senders:
        sender.forget()
    in_before, out_before = load.frames()
    commits = target.commits()
    if profiler is not None:
        profiler.start(target.pid)
    own = procfs.usage(procfs.SELF)
    before = target.usage()
    took = await load.run(scale.measured_s)
    client = procfs.usage(procfs.SELF) - own
    await asyncio.sleep(SETTLE_S)
    used = target.usage() - before
    if profiler is not None:
        profiler.stop()
    sent = sum(s.sent for s in load.senders)
    acks = sorted(t for s in load.senders for t in s.ack_s)
    deliveries = sorted(t for s in load.senders for t in s.delivery_s)
    frames_in, frames_out = load.frames()
    commits = target.commits() - commits if commits >= 0 else -1
    await load.close()
    return Figures(
        used=used,
        units={"message": sent, "delivery": len(deliveries)},
        ack_ms=(percentile(acks, 50) * 1e3, percentile(acks, 99) * 1e3),
        delivery_ms=(percentile(deliveries, 50) * 1e3, percentile(deliveries, 99) * 1e3),
        seconds=took,
        frames_in=frames_in - in_before,
        frames_out=frames_out - out_before,
        commits=commits,
        client_cpu_s=client.cpu_s,
        problems=load.ledger.problems,
        wrong=load.ledger.wrong,
    )


async def direct(
    target: Target, window: int, scale: Scale, profiler: Profiler | None = None
) -> Figures:
    """w1: pairs of users, one of whom sends."""
    groups = [(f"a{n}", f"b{n}") for n in range(scale.pairs)]
    return await messages(
        target, groups, window=window, until_delivered=False, scale=scale, profiler=profiler
    )


async def group(
    target: Target, window: int, scale: Scale, profiler: Profiler | None = None
) -> Figures:
    """w2: a group, one member of which sends; the next message goes when the last member has one of those in flight."""
    users = [f"m{n}" for n in range(scale.group)]
    return await messages(
        target, [users], window=window, until_delivered=True, scale=scale, profiler=profiler
    )
