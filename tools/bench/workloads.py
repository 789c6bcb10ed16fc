"""The workloads with messages: 1-to-1 (w1) and in a group (w2)."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
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
    slices: int = 5
    warm_s: float = 1.0
    measured_s: float = 5.0

    def lasting(self, seconds: float) -> Scale:
        """The same, measured for another time."""
        return replace(self, measured_s=seconds)


QUICK = Scale(
    pairs=3,
    group=12,
    connections=40,
    devices=3,
    missed=40,
    kills=1,
    slices=2,
    warm_s=0.1,
    measured_s=0.4,
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
        if self.target.is_server:
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
        if self.target.is_server:
            async with Api(self.target) as api:
                for sender in self.senders:
                    await api.check_history(sender.device.user, sender.conversation, self.ledger)
        for device in self.devices:
            await device.close()


class Messages:
    """Conversations side by side on one target, measured slice by slice.

    What is sent, acknowledged and delivered in a slice is billed to it, with what the target writes a moment later.
    """

    def __init__(self, target: Target, *, window: int, until_delivered: bool) -> None:
        self.target = target
        self._window = window
        self._until_delivered = until_delivered
        self._load = Load(target)
        self._used = procfs.NOTHING
        self._client_s = 0.0
        self._seconds = 0.0
        self._before = (0, 0, 0)

    async def open(self, groups: Sequence[Sequence[str]], warm_s: float) -> None:
        """Makes the conversations, connects the devices and lets them run for a while."""
        for users in groups:
            await self._load.conversation(
                users, window=self._window, until_delivered=self._until_delivered
            )
        await self._load.run(warm_s)
        await asyncio.sleep(SETTLE_S)
        for sender in self._load.senders:
            sender.forget()
        self._before = self._counts()

    async def slice(self, seconds: float) -> None:
        """Measures for a time."""
        own, before = procfs.usage(procfs.SELF), self.target.usage()
        self._seconds += await self._load.run(seconds)
        self._client_s += (procfs.usage(procfs.SELF) - own).cpu_s
        await asyncio.sleep(SETTLE_S)
        self._used += self.target.usage() - before

    async def close(self) -> Figures:
        """Checks what every device got, and closes them."""
        frames_in, frames_out, commits = (
            now - before for now, before in zip(self._counts(), self._before, strict=True)
        )
        if self._before[2] < 0:
            commits = -1
        senders, ledger = self._load.senders, self._load.ledger
        acks = sorted(t for s in senders for t in s.ack_s)
        deliveries = sorted(t for s in senders for t in s.delivery_s)
        await self._load.close()
        return Figures(
            used=self._used,
            units={"message": sum(s.sent for s in senders), "delivery": len(deliveries)},
            ack_ms=(percentile(acks, 50) * 1e3, percentile(acks, 99) * 1e3),
            delivery_ms=(percentile(deliveries, 50) * 1e3, percentile(deliveries, 99) * 1e3),
            seconds=self._seconds,
            frames_in=frames_in,
            frames_out=frames_out,
            commits=commits,
            client_cpu_s=self._client_s,
            problems=ledger.problems,
            wrong=ledger.wrong,
        )

    def _counts(self) -> tuple[int, int, int]:
        return (*self._load.frames(), self.target.commits())


async def messages(
    targets: Sequence[Target],
    groups: Sequence[Sequence[str]],
    *,
    window: int,
    until_delivered: bool,
    scale: Scale,
    profilers: Mapping[str, Profiler],
) -> dict[str, Figures]:
    """Runs the same conversations on all targets, a slice on each in turn, since the speed of a machine drifts."""
    found = {}
    with ExitStack() as stack:
        running = [
            Messages(stack.enter_context(t), window=window, until_delivered=until_delivered)
            for t in targets
        ]
        for one in running:
            await one.open(groups, scale.warm_s)
        for one in running:
            if one.target.kind in profilers:
                profilers[one.target.kind].start(one.target.pid)
        for _ in range(scale.slices):
            for one in running:
                await one.slice(scale.measured_s / scale.slices)
        for profiler in profilers.values():
            profiler.stop()
        for one in running:
            found[one.target.kind] = await one.close()
    return found


async def direct(
    targets: Sequence[Target], window: int, scale: Scale, profilers: Mapping[str, Profiler]
) -> dict[str, Figures]:
    """w1: pairs of users, one of whom sends."""
    groups = [(f"a{n}", f"b{n}") for n in range(scale.pairs)]
    return await messages(
        targets, groups, window=window, until_delivered=False, scale=scale, profilers=profilers
    )


async def group(
    targets: Sequence[Target], window: int, scale: Scale, profilers: Mapping[str, Profiler]
) -> dict[str, Figures]:
    """w2: a group, one member of which sends; the next message goes when the last member has one of those in flight."""
    users = [f"m{n}" for n in range(scale.group)]
    return await messages(
        targets, [users], window=window, until_delivered=True, scale=scale, profilers=profilers
    )
