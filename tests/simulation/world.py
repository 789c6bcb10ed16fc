"""A world: the server, the network and the devices of one seed, from beginning to end."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

from tidings_server.bus.base import Bus
from tidings_server.node import Node

from .bus import UnreliableBus, Wire
from .clock import SimClock, TrueTime
from .config import Config
from .loop import Process, SimLoop
from .network import Network
from .rude import RudeDevice
from .sdk_device import SdkDevice
from .server import Server
from .sizes import make_small
from .truth import Truth, WatchedDisk
from .violation import Violation
from .watch import Judge, Marks

_TOLD = 4000


@dataclass(frozen=True, slots=True)
class Happened:
    """One line of the story."""

    at: float
    kind: str
    what: str


class World:
    """Everything of one simulation. `rng` gives randomness by purpose, so that one use doesn't shift another."""

    def __init__(self, config: Config, loop: SimLoop) -> None:
        self.config = config
        self.loop = loop
        self.story: deque[Happened] = deque(maxlen=_TOLD)
        self.violation: Violation | None = None
        self.true = TrueTime(loop)
        self.judge = Judge(loop, lambda: self.truth, self.report, self.tell)
        self.disk = WatchedDisk(self.report, self.judge.appeared)
        clock_rng = self.rng("clocks")
        self.wire = Wire()
        self.servers = [
            Server(
                f"server{n}",
                loop,
                self.rng(f"server {n}"),
                self.disk,
                SimClock(self.true, clock_rng.choice((0, -120_000, 60_000))),
                config.limits,
                self._bus,
                self._prepare,
                shared=config.nodes > 1,
            )
            for n in range(config.nodes)
        ]
        self.network = Network(loop, self.rng("network"), self.servers, capacity=config.capacity)
        self.network.weather.delay = config.delay
        for server in self.servers:
            server.faults.max_delay = config.store_delay
            server.network = self.network
        self._bus_rng = self.rng("bus")
        self.bus_loss = config.faults.bus_loss
        self.users = [f"user{n}" for n in range(config.users)]
        self.sdk: list[SdkDevice] = []
        self.rude: list[RudeDevice] = []
        for n, (user, habits) in enumerate(config.sdk_devices):
            self.sdk.append(
                SdkDevice(
                    loop,
                    self.network,
                    self.judge,
                    self.rng(f"sdk {n}"),
                    SimClock(self.true, clock_rng.choice((0, 0, 150_000, -90_000, 3_600_000))),
                    self.users[user],
                    f"phone{n}",
                    habits,
                    self.token,
                )
            )
        for n, (user, manners) in enumerate(config.rude_devices):
            self.rude.append(
                RudeDevice(
                    loop,
                    self.network,
                    self.judge,
                    self.rng(f"rude {n}"),
                    SimClock(self.true, clock_rng.choice((0, 100_000))),
                    self.users[user],
                    f"rude{n}",
                    manners,
                    self.long_token,
                )
            )

    @property
    def truth(self) -> Truth:
        """What the disk holds now."""
        return self.disk.truth

    @property
    def devices(self) -> list[SdkDevice | RudeDevice]:
        """All devices."""
        return [*self.sdk, *self.rude]

    def processes(self) -> list[Process]:
        """The processes that run."""
        running = [device.process for device in self.devices] + [
            server.running for server in self.servers
        ]
        return [process for process in running if process is not None]

    def rng(self, purpose: str) -> random.Random:
        """Randomness for one purpose."""
        return random.Random(f"{self.config.seed} {purpose}")

    def token(self, user: str, device: str) -> str:
        """A token for a device, valid from now on for a while."""
        return f"{user}/{device}/{self._now_ms() + self.config.token_ms}"

    def long_token(self, user: str, device: str) -> str:
        """A token for a device that will not refresh it."""
        return f"{user}/{device}/{self._now_ms() + 1_000 * 86_400_000}"

    def _now_ms(self) -> int:
        """The time of the server whose clock is the furthest: a token is good at all of them."""
        return max(server.clock.now_ms() for server in self.servers)

    def tell(self, kind: str, what: str) -> None:
        """Adds a line to the story."""
        self.story.append(Happened(self.loop.time(), kind, what))

    def report(self, violation: Violation) -> None:
        """An invariant doesn't hold: the run ends at the next step."""
        if self.violation is None:
            self.violation = violation
            self.tell("VIOLATION", str(violation))
            self.loop.failure = self.loop.failure or violation

    def replace_disk(self, disk: WatchedDisk) -> None:
        """The servers go on with another disk: a backup was restored."""
        before = self.truth
        self.disk.detach()
        self.judge.ended[self.disk.incarnation] = before
        self.disk = disk
        for server in self.servers:
            server.disk = disk
        self.judge.ledger.forget_lost(self.truth)
        self.judge.marks = Marks()
        self.judge.known.clear()
        lost = before.texts() - self.truth.texts()
        for device in self.sdk:
            for said in device.data.said.values():
                said.lost = said.lost or said.text in lost

    def calm_bus(self) -> None:
        """The bus loses nothing more, and tells the nodes that it may have.

        Between several nodes a crash between commit and publication loses one as well.
        """
        for bus in self.wire.buses:
            if bus._process.alive and (bus.loss or len(self.servers) > 1):
                bus.loss = bus.double = 0.0
                self.loop.soon(bus._process, bus.resync)

    def _bus(self, process: Process) -> Bus:
        return UnreliableBus(
            self.loop,
            self._bus_rng,
            self.wire,
            process,
            loss=self.bus_loss,
            double=0.1 if self.bus_loss or self.config.bus_delay else 0.0,
            delay=self.config.bus_delay or (0.2 if self.bus_loss else 0.0),
        )

    def _prepare(self, node: Node) -> None:
        make_small(node, self.config.sizes)
