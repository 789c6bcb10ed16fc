"""Chooses what carries events between nodes, and what it counts. Importing redis waits until it is wanted."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tidings_server.bus.base import Bus
from tidings_server.bus.local import LocalBus
from tidings_server.config import RedisSettings, Settings
from tidings_server.presence.base import Leases, NodeInfo
from tidings_server.presence.local import LocalLeases
from tidings_server.telemetry.reading import Reading

if TYPE_CHECKING:
    from tidings_server.bus.redis import RedisBus
    from tidings_server.presence.redis import RedisLeases
    from tidings_server.redis_options import RedisOptions


class BusUnusable(Exception):
    """What the settings ask for can't be had; the text says why."""


@dataclass(frozen=True, slots=True)
class Between:
    """What stands between nodes: the bus, the leases, and what can be read of both."""

    bus: Bus
    leases: Leases
    readings: tuple[Reading, ...] = ()


def make_between(settings: Settings, node: NodeInfo, rng: random.Random) -> Between:
    """The bus and the leases, not yet started. Raises BusUnusable."""
    if settings.bus.kind == "local":
        return Between(LocalBus(), LocalLeases(node))
    options = redis_options(settings.redis)
    from tidings_server.bus.redis import RedisBus  # noqa: PLC0415
    from tidings_server.presence.redis import RedisLeases  # noqa: PLC0415

    try:
        options.tls_context()
    except OSError as problem:
        raise BusUnusable(f"the files for TLS to Redis can't be used: {problem}") from problem
    bus = RedisBus(options, random.Random(rng.getrandbits(128)))
    leases = RedisLeases(
        options, node, random.Random(rng.getrandbits(128)), lease_s=settings.redis.lease_s
    )
    return Between(bus, leases, (*_of_bus(bus), *_of_leases(leases)))


def redis_options(settings: RedisSettings) -> RedisOptions:
    """How to speak to Redis. Raises BusUnusable when the library is not installed."""
    try:
        from tidings_server.redis_options import RedisOptions  # noqa: PLC0415
    except ImportError as problem:
        raise BusUnusable(
            f"bus.kind = redis needs tidings-server[cluster] to be installed: {problem}"
        ) from problem
    password = settings.password
    return RedisOptions(
        hosts=tuple((address.host, address.port) for address in settings.host_list()),
        cluster=settings.cluster,
        namespace=settings.namespace,
        username=settings.username,
        password=None if password is None else password.get_secret_value(),
        tls=settings.tls,
        tls_ca_file=settings.tls_ca_file,
        tls_cert_file=settings.tls_cert_file,
        tls_key_file=settings.tls_key_file,
        tls_check_hostname=settings.tls_check_hostname,
        silence_s=settings.silence_s,
    )


def _of_bus(bus: RedisBus) -> list[Reading]:
    c = bus.counts
    return [
        Reading("tidings.bus.published", "Frames that Redis took.", lambda: c.sent.published),
        Reading("tidings.bus.received", "Publications of other nodes.", lambda: c.received),
        Reading("tidings.bus.pointers", "Pages too large to be carried.", lambda: c.pointers),
        Reading(
            "tidings.bus.owed",
            "Pages that could not be sent and became pointers.",
            lambda: c.sent.owed,
        ),
        Reading("tidings.bus.dropped", "Notices that could not be sent.", lambda: c.sent.dropped),
        Reading(
            "tidings.bus.unknown_frames",
            "Frames that this version does not understand.",
            lambda: c.unknown_frames,
        ),
        Reading(
            "tidings.bus.resyncs", "Times that all sessions looked at heads.", lambda: c.resyncs
        ),
        Reading(
            "tidings.bus.unconfirmed",
            "Subscriptions that were gone on with before they were confirmed.",
            lambda: c.unconfirmed,
        ),
        Reading(
            "tidings.bus.waiting",
            "Bytes published that Redis has not taken yet.",
            lambda: bus.waiting_bytes,
            unit="By",
            total=False,
        ),
        Reading(
            "tidings.bus.connected",
            "Whether all connections of the bus are there.",
            lambda: int(bus.connected),
            total=False,
        ),
    ]


def _of_leases(leases: RedisLeases) -> list[Reading]:
    c = leases.counts
    return [
        Reading("tidings.leases.renewals", "Renewals of this node's lease.", lambda: c.renewals),
        Reading(
            "tidings.leases.failures",
            "Renewals, writes and questions that failed.",
            lambda: c.failures,
        ),
        Reading(
            "tidings.leases.announced_anew",
            "Times that all users were announced anew.",
            lambda: c.epochs,
        ),
        Reading(
            "tidings.leases.nodes", "Nodes that live.", lambda: leases.known_nodes, total=False
        ),
        Reading(
            "tidings.leases.connected",
            "Whether Redis answered last.",
            lambda: int(leases.connected),
            total=False,
        ),
    ]
