"""A world: the server, the network and the devices of one seed, from beginning to end."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

from tidings_server.bus.base import Bus
from tidings_server.bus.redis import RedisBus
from tidings_server.node import Node
from tidings_server.presence.base import Leases, NodeInfo
from tidings_server.presence.local import LocalLeases
from tidings_server.presence.redis import RedisLeases
from tidings_server.redis_options import RedisOptions

from .became import decided
from .bus import UnreliableBus, Wire
from .clock import SimClock, TrueTime
from .config import BusKind, Config
from .loop import Process, SimLoop
from .network import Network
from .peers import PeerNet
from .redis_server import SimRedis
from .rude import RudeDevice
from .sdk_device import SdkDevice
from .server import Server
from .sizes import make_small
from .truth import Truth, WatchedDisk
from .violation import Violation
from .watch import Judge, Marks

_TOLD = 4000
_REDIS = RedisOptions(hosts=(("redis", 6379),))


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
        self.disk = WatchedDisk(self.report, self.judge.appeared, decided)
        clock_rng = self.rng("clocks")
        self.wire = Wire()
        redis_rng = self.rng("redis wire")
        # It is near: what nodes ask of it has a second at most.
        far = min(config.bus_delay, 0.05)
        self.redis = SimRedis(loop, SimClock(self.true), lambda: 0.0002 + redis_rng.random() * far)
        peers_rng = self.rng("peers")
        self.peers = PeerNet(loop, lambda: 0.0002 + peers_rng.random() * far, self.report)
        loop.dial = lambda process, _host, protocol: self.redis.dial(process, protocol)
        self.servers = [
            Server(
                f"server{n}",
                loop,
                self.rng(f"server {n}"),
                self.disk,
                SimClock(self.true, clock_rng.choice((0, -120_000, 60_000))),
                config.limits,
                self._bus,
                self._leases,
                self.peers,
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
            server.died = self.redis.died
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
    def uses_redis(self) -> bool:
        """Whether Redis has a part in this world."""
        return len(self.servers) > 1 or self.config.bus is BusKind.REDIS

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
        """The bus loses nothing more, and tells the nodes that it may have."""
        for bus in self.wire.buses:
            if bus._process.alive and bus.loss:
                bus.loss = bus.double = 0.0
                self.loop.soon(bus._process, bus.resync)

    def _bus(self, process: Process) -> Bus:
        if self.config.bus is BusKind.REDIS:
            return RedisBus(_REDIS, self._seeded(process, "bus"))
        return UnreliableBus(
            self.loop,
            self._bus_rng,
            self.wire,
            process,
            loss=self.bus_loss,
            double=0.1 if self.bus_loss or self.config.bus_delay else 0.0,
            delay=self.config.bus_delay or (0.2 if self.bus_loss else 0.0),
        )

    def _leases(self, process: Process) -> Leases:
        node = NodeInfo(process.name, process.name if self.config.homes else "")
        if not self.uses_redis:
            return LocalLeases(node)
        rng = self._seeded(process, "leases")
        return RedisLeases(_REDIS, node, rng, lease_s=self.config.lease_s)

    def _seeded(self, process: Process, purpose: str) -> random.Random:
        return self.rng(f"{purpose} of {process.name}")

    def _prepare(self, node: Node) -> None:
        make_small(node, self.config.sizes)
