"""The world of a replay: what devices, senders and checks share."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from tidings_server.auth import TokenPolicy, mint
from tidings_server.core.clock import SystemClock
from tidings_server.core.ids import uuid7

from .board import Board
from .findings import Findings
from .ledger import Ledger

CHANNEL_OPTIONS: Sequence[tuple[str, int]] = (
    # As in the SDK: fixed windows of 1 MiB instead of measured ones.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 20),
    # A connection for each device, as in life.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_retries", 0),
)
_TTL_S = 24 * 3600.0
_SERVING = b"\x08\x01"
_HEALTH_S, _HEALTH_EVERY_S = 1.0, 0.2

Metadata = tuple[tuple[str, str], ...]


class _AnHourAgo:
    """The clock of whoever issues tokens: these are older than any server's clock is wrong."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock

    def now_ms(self) -> int:
        return self._clock.now_ms() - 3_600_000


@dataclass(slots=True)
class Tally:
    """What happened, for the report."""

    connects: int = 0
    resent: int = 0
    lost_sessions: int = 0
    gaps_announced: int = 0
    gaps_fetched: int = 0
    beacons_compared: int = 0
    visits: int = 0
    unary_retries: int = 0
    read_marks: int = 0
    longest_away_s: float = 0.0
    """The longest that a connected device was without a session before it was level in the next one."""
    sdk_longest_away_s: float = 0.0
    """The same for the SDK."""


@dataclass(slots=True)
class World:
    """What everybody needs. `addresses` are those of the servers, `secret` signs tokens.

    Each has a server of its own among them, and goes to another while that one is not to be had.
    """

    addresses: list[str]
    secret: str = field(repr=False)
    board: Board
    ledger: Ledger
    findings: Findings
    rng: random.Random
    tally: Tally = field(default_factory=Tally)
    away: set[str] = field(default_factory=set)
    """Addresses where clients should not go now."""
    clock: SystemClock = field(default_factory=SystemClock)
    reads: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """By user and conversation id: the largest read mark asked for, and the largest acknowledged."""
    _tokens: dict[tuple[str, str], Metadata] = field(default_factory=dict)

    def token(self, user: str, device: str) -> str:
        """A token for a device."""
        policy = TokenPolicy(
            issuer="tidings",
            audience="tidings",
            leeway_s=5,
            hs256_secret=self.secret.encode(),
            jwks_file=None,
            jwks_url=None,
        )
        return mint(policy, _AnHourAgo(self.clock), user, device, ttl_s=_TTL_S)

    def metadata(self, user: str, device: str) -> Metadata:
        """What a call of a device carries."""
        known = self._tokens.get((user, device))
        if known is None:
            known = (("authorization", f"Bearer {self.token(user, device)}"),)
            self._tokens[user, device] = known
        return known

    def new_id(self) -> str:
        """A new UUIDv7."""
        return uuid7(self.clock.now_ms(), self.rng)

    def target(self, who: str) -> str:
        """Where somebody finds a server, as gRPC names it: the addresses in the order in which they are tried."""
        if len(self.addresses) == 1:
            return self.addresses[0]
        first = zlib.crc32(who.encode()) % len(self.addresses)
        ordered = self.addresses[first:] + self.addresses[:first]
        return "ipv4:" + ",".join(sorted(ordered, key=lambda address: address in self.away))

    def channel(self, who: str) -> Any:
        """A connection of its own to a server."""
        return grpc.aio.insecure_channel(self.target(who), options=CHANNEL_OPTIONS)

    async def watch_health(self) -> None:
        """Keeps `away` true, as a load balancer does."""
        await asyncio.gather(*(self._watch_health(address) for address in self.addresses))

    async def _watch_health(self, address: str) -> None:
        async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
            while True:
                try:
                    serves = await check(b"", timeout=_HEALTH_S) == _SERVING
                except grpc.aio.AioRpcError:
                    serves = False
                if serves:
                    self.away.discard(address)
                else:
                    self.away.add(address)
                await asyncio.sleep(_HEALTH_EVERY_S)
