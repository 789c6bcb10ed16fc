"""What a seed decides before a world begins: who is there, how everybody behaves, and how bad it gets."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

from tidings_server.core.limits import Limits

from .loop import Order
from .rude import Manners
from .sdk_device import Habits
from .sizes import Sizes

LATE_S = 12.0
"""The latest that a store does what it was asked, in seconds."""


class BusKind(Enum):
    """What carries events between nodes."""

    WIRE = "wire"
    """A bus that does whatever the port allows."""
    REDIS = "redis"
    """The bus over Redis."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Which faults a world has: chances a simulated second, and strengths."""

    cut: float = 0.0
    stall: float = 0.0
    crash: float = 0.0
    drain: float = 0.0
    pause: float = 0.0
    device_crash: float = 0.0
    clock: float = 0.0
    store: float = 0.0
    sleep: float = 0.0
    restore: float = 0.0
    refuse: float = 0.0
    lose_calls: float = 0.0
    duplicate_calls: float = 0.0
    bus_loss: float = 0.0
    redis: float = 0.0
    peers: float = 0.0


@dataclass(frozen=True, slots=True)
class Config:
    """One world."""

    seed: int
    nodes: int
    bus: BusKind
    bus_delay: float
    lease_s: float
    presence: bool
    homes: bool
    order: Order
    users: int
    sdk_devices: tuple[tuple[int, Habits], ...]
    rude_devices: tuple[tuple[int, Manners], ...]
    sizes: Sizes
    limits: Limits
    faults: Faults
    seconds: float
    actions: int
    delay: float
    store_delay: float
    capacity: int
    token_ms: int


def draw(seed: int) -> Config:
    """The world of a seed."""
    rng = random.Random(f"config {seed}")
    users = rng.choice((2, 3, 3, 4))
    sdk: list[tuple[int, Habits]] = []
    for user in range(users):
        sdk.extend((user, _habits(rng)) for _ in range(rng.choice((1, 1, 2))))
    rude = [(rng.randrange(users), _manners(rng)) for _ in range(rng.choice((0, 1, 1, 2)))]
    return Config(
        seed=seed,
        nodes=rng.choice((1, 2, 2, 3)),
        bus=rng.choice(tuple(BusKind)),
        lease_s=rng.choice((6.0, 10.0)),
        presence=rng.random() < 0.5,
        homes=rng.random() < 0.7,
        bus_delay=rng.choice((0.0, 0.0, 0.05, 0.4)),
        order=rng.choice((Order.FIFO, Order.RANDOM)),
        users=users,
        sdk_devices=tuple(sdk),
        rude_devices=tuple(rude),
        sizes=_sizes(rng),
        limits=_limits(rng),
        faults=_faults(rng),
        seconds=rng.choice((8.0, 16.0, 24.0)),
        actions=rng.choice((30, 50, 80)),
        delay=rng.choice((0.0, 0.01, 0.05, 0.3)),
        store_delay=rng.choice((0.0, 0.001, 0.01, 0.05)),
        capacity=rng.choice((300, 2_000, 64 * 1024)),
        token_ms=rng.choice((20_000, 3_600_000, 3_600_000, 3_600_000)),
    )


def _habits(rng: random.Random) -> Habits:
    return Habits(
        auto_apply=rng.random() < 0.6,
        apply_every=rng.choice((1, 1, 4)),
        apply_delay=rng.choice((0.0, 0.0, 0.05, 0.5)),
        window=rng.choice((1, 5, 30, 1024)),
        catch_up_limit=rng.choice((3, 20, 10_000, 10_000)),
        store_delay=rng.choice((0.0, 0.0, 0.02)),
    )


def _manners(rng: random.Random) -> Manners:
    return Manners(
        read_delay=rng.choice((0.0, 0.0, 0.5, 5.0)),
        acks=rng.choice((0.0, 0.3, 1.0)),
        cursors=rng.choice(("own", "none", "old", "odd")),
        window=rng.choice((0, 1, 4, 100)),
        ahead_ms=rng.choice((0, 200_000, 290_000)),
    )


def _sizes(rng: random.Random) -> Sizes:
    if rng.random() < 0.3:
        return Sizes()
    return Sizes(
        bucket=rng.choice((7, 20, 10_000)),
        page_entries=rng.choice((2, 5, 100)),
        ids=rng.choice((4, 20, 8192)),
        older_ids=rng.choice((1, 20, 32 * 8192)),
        logs=rng.choice((2, 20_000)),
        tail_bytes=rng.choice((0, 2_000, 64 << 20)),
        chunk_bytes=rng.choice((100, 1_000, 128 * 1024)),
        flagged=rng.choice((1, 2, 500)),
        pages_at_once=rng.choice((2, 5, 500)),
        carried_bytes=rng.choice((0, 200, 8 * 1024)),
        round_s=rng.choice((4.0, 60.0)),
        # More than what is late is late in these worlds.
        late_s=LATE_S + 1,
    )


def _limits(rng: random.Random) -> Limits:
    return Limits(
        outbox_bytes=rng.choice((500, 4_000, 1 << 20)),
        max_commands_in_flight=rng.choice((4, 40, 1024)),
        new_device_messages=rng.choice((2, 50)),
        new_device_conversations=rng.choice((1, 20)),
        beacon_interval_ms=rng.choice((3_000, 6_000)),
    )


def _faults(rng: random.Random) -> Faults:
    """Most worlds have a few kinds of faults: one that hides another isn't there every time."""

    def maybe(chance: float, *strengths: float) -> float:
        return rng.choice(strengths) if rng.random() < chance else 0.0

    return Faults(
        cut=maybe(0.6, 0.15, 0.8),
        stall=maybe(0.3, 0.15, 0.5),
        crash=maybe(0.5, 0.08, 0.25),
        drain=maybe(0.15, 0.08),
        pause=maybe(0.2, 0.08),
        device_crash=maybe(0.4, 0.15, 0.4),
        clock=maybe(0.4, 0.15, 0.4),
        store=maybe(0.5, 0.03, 0.15, 0.3),
        sleep=maybe(0.4, 0.15, 0.4),
        restore=maybe(0.12, 0.15),
        refuse=maybe(0.3, 0.2),
        lose_calls=maybe(0.3, 0.1),
        duplicate_calls=maybe(0.3, 0.2),
        bus_loss=maybe(0.15, 0.1, 0.5),
        redis=maybe(0.5, 0.1, 0.3),
        peers=maybe(0.5, 0.15, 0.5),
    )
