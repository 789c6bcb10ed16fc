"""Faults of a cluster by name: each is dealt and healed, and leaves everything running."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

import psutil

from .cluster import Cluster
from .proxy import Link
from .stage import Stage

_StageT = TypeVar("_StageT", bound=Stage)
_StageT_contra = TypeVar("_StageT_contra", bound=Stage, contravariant=True)
Deed = Callable[[_StageT], Awaitable[None]]

_SHORT_S: Final = 2.0
_LEASES: Final = 2.5
"""How many lease times are long: the others have noticed by then."""
_SLOW_S: Final = 0.15
_SPARE_FILES: Final = 2


@dataclass(frozen=True, slots=True)
class Fault(Generic[_StageT_contra]):
    """One fault of a stage. `deal` returns when it is healed; `complains` allows errors in the logs of servers."""

    name: str
    what: str
    deal: Deed[_StageT_contra]
    complains: bool = False

    @property
    def of_clients(self) -> bool:
        """Whether it needs proxies between clients and servers."""
        return "clients-" in self.name


def _long_s(stage: Stage) -> float:
    return stage.lease_s * _LEASES


async def _do_nothing(stage: Stage) -> None:
    await asyncio.sleep(_long_s(stage))


# Servers


async def _kill_server(stage: Stage) -> None:
    await stage.servers[0].kill()
    await asyncio.sleep(_SHORT_S)
    await stage.servers[0].start()


async def _stop_server(stage: Stage) -> None:
    stage.servers[0].freeze()
    await asyncio.sleep(_long_s(stage))
    stage.servers[0].thaw()


async def _kill_unpublished(cluster: Cluster) -> None:
    # It commits and acknowledges, and nothing of it is published.
    cluster.redis_links[0].half_open()
    await asyncio.sleep(cluster.options.lease_s / 2)
    await cluster.servers[0].kill()
    cluster.redis_links[0].heal()
    await asyncio.sleep(_long_s(cluster))
    await cluster.servers[0].start()


async def _roll(stage: Stage) -> None:
    for server in stage.servers:
        await server.stop()
        await server.start()
        await asyncio.sleep(_SHORT_S)


async def _starve_of_files(stage: Stage) -> None:
    pid = stage.servers[0].pid
    assert pid is not None
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = psutil.Process(pid).num_fds()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + _SPARE_FILES, before[1]))
    # Whoever comes anew finds no file; and the links to the engines are cut, so that these need some too.
    for link in stage.links(0):
        link.cut()
    await asyncio.sleep(_long_s(stage))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def _starve_of_memory(stage: Stage) -> None:
    server = stage.servers[0]
    pid = server.pid
    assert pid is not None
    used = psutil.Process(pid).memory_info().vms
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    server.may_end = True
    resource.prlimit(pid, resource.RLIMIT_AS, (used // 2, before[1]))
    await asyncio.sleep(_long_s(stage))
    if server.ended:
        # Whoever looks after processes starts it again.
        await server.kill()
        await server.start()
    else:
        resource.prlimit(pid, resource.RLIMIT_AS, before)
    server.may_end = False


def _wrong_clock(offset_s: int) -> Deed[Stage]:
    async def deal(stage: Stage) -> None:
        server = stage.servers[0]
        right = server.program
        await server.stop()
        server.program = (sys.executable, "-m", "tools.stack.shifted", str(offset_s * 1000))
        try:
            await server.start()
            await asyncio.sleep(_long_s(stage))
        finally:
            # Also when the play is broken off: what comes after it is to find the right time.
            await server.stop()
            server.program = right
            await server.start()

    return deal


# Engines


async def _kill_redis(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.redis.kill)
    await asyncio.sleep(_SHORT_S)
    await asyncio.to_thread(cluster.redis.start)


async def _stop_redis(cluster: Cluster) -> None:
    cluster.redis.signal(signal.SIGSTOP)
    await asyncio.sleep(_long_s(cluster))
    cluster.redis.signal(signal.SIGCONT)


async def _flush_redis(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.redis.client.flushall)
    await asyncio.sleep(_SHORT_S)


async def _kill_cassandra(cluster: Cluster) -> None:
    # Not the node that is named first, but one that may be the first replica of a log.
    node = len(cluster.ring.hosts) - 1
    await asyncio.to_thread(cluster.ring.kill, node)
    await asyncio.sleep(_SHORT_S)
    await asyncio.to_thread(cluster.ring.launch, node)
    await asyncio.to_thread(cluster.ring.wait_ready, node)


async def _stop_cassandra(cluster: Cluster) -> None:
    node = len(cluster.ring.hosts) - 1
    cluster.ring.send(node, signal.SIGSTOP)
    await asyncio.sleep(_long_s(cluster))
    cluster.ring.send(node, signal.SIGCONT)


# Links of the first server


def _redis(cluster: Cluster) -> list[Link]:
    return [cluster.redis_links[0]]


def _ring(cluster: Cluster) -> list[Link]:
    return cluster.cassandra_links[0]


def _one_node(cluster: Cluster) -> list[Link]:
    return cluster.cassandra_links[0][-1:]


def _nodes(cluster: Cluster) -> list[Link]:
    return [cluster.node_links[0]]


def _clients(stage: Stage) -> list[Link]:
    return [*stage.client_links[:1]]


def _slow(link: Link) -> None:
    link.slow_s = _SLOW_S


def _on(
    links: Callable[[_StageT], list[Link]], do: Callable[[Link], None], *, long: bool = False
) -> Deed[_StageT]:
    async def deal(stage: _StageT) -> None:
        for link in links(stage):
            do(link)
        await asyncio.sleep(_long_s(stage) if long else _SHORT_S)
        for link in links(stage):
            link.heal()

    return deal


_OF_ANY: Final[tuple[Fault[Stage], ...]] = (
    Fault(
        "clients-cut",
        "all connections of clients to one server cut and refused for 2 s",
        _on(_clients, Link.refuse),
    ),
    Fault(
        "clients-half-open",
        "all connections of clients to one server half-open",
        _on(_clients, Link.half_open, long=True),
    ),
    Fault(
        "clients-slow",
        "0.15 s for each piece in either direction between clients and a server",
        _on(_clients, _slow, long=True),
    ),
    Fault("clock-10s-behind", "a server with its clock 10 s behind", _wrong_clock(-10)),
    Fault("clock-10s-ahead", "a server with its clock 10 s ahead", _wrong_clock(10)),
    Fault("clock-10min-behind", "a server with its clock 10 minutes behind", _wrong_clock(-600)),
    Fault("clock-10min-ahead", "a server with its clock 10 minutes ahead", _wrong_clock(600)),
    Fault(
        "no-files",
        "a server has no file descriptor left, and its links are cut",
        _starve_of_files,
        complains=True,
    ),
    Fault(
        "no-memory",
        "a server gets no more memory than it has; should it end, it is started again",
        _starve_of_memory,
        complains=True,
    ),
)

_NONE: Final[Fault[Stage]] = Fault(
    "none", "nothing at all: what the load alone does on this machine", _do_nothing
)

_OF_A_CLUSTER: Final[tuple[Fault[Cluster], ...]] = (
    _NONE,
    Fault("server-kill", "kill -9 of a server, started again after 2 s", _kill_server),
    Fault("server-stop", "SIGSTOP of a server for longer than its lease", _stop_server),
    Fault(
        "server-kill-unpublished",
        "a server commits and acknowledges, publishes nothing, and is killed with -9",
        _kill_unpublished,
    ),
    Fault("rolling-restart", "both servers drain and start again, one after the other", _roll),
    Fault("redis-kill", "kill -9 of Redis, started again after 2 s", _kill_redis),
    Fault("redis-stop", "SIGSTOP of Redis for longer than a lease", _stop_redis),
    Fault("redis-flush", "FLUSHALL", _flush_redis),
    Fault(
        "redis-cut",
        "the link of one server to Redis cut and refused for 2 s",
        _on(_redis, Link.refuse),
    ),
    Fault(
        "two-homes",
        "the same for longer than a lease: neither server knows the other, both claim every home",
        _on(_redis, Link.refuse, long=True),
    ),
    Fault(
        "redis-half-open",
        "the link of one server to Redis half-open for longer than a lease",
        _on(_redis, Link.half_open, long=True),
    ),
    Fault(
        "redis-slow",
        "0.15 s for each piece in either direction between a server and Redis",
        _on(_redis, _slow, long=True),
    ),
    Fault("cassandra-kill", "kill -9 of a node, started again after 2 s", _kill_cassandra),
    Fault("cassandra-stop", "SIGSTOP of a node for longer than any time-out", _stop_cassandra),
    Fault(
        "cassandra-cut",
        "all links of one server to the ring cut and refused for 2 s",
        _on(_ring, Link.refuse),
    ),
    Fault(
        "cassandra-half-open",
        "all links of one server to the ring half-open",
        _on(_ring, Link.half_open, long=True),
    ),
    Fault(
        "cassandra-node-half-open",
        "the link of one server to one node half-open",
        _on(_one_node, Link.half_open, long=True),
    ),
    Fault(
        "cassandra-slow",
        "0.15 s for each piece in either direction between a server and the ring",
        _on(_ring, _slow, long=True),
    ),
    Fault(
        "commit-answers-lost",
        "requests of one server reach the ring, all answers are thrown away, then the links are cut",
        _on(_ring, Link.drop_answers, long=True),
    ),
    Fault(
        "nodes-cut",
        "the link between the servers cut and refused for 2 s: a home that can't be reached",
        _on(_nodes, Link.refuse),
    ),
    Fault(
        "nodes-half-open",
        "the same link half-open: a home that is silent",
        _on(_nodes, Link.half_open, long=True),
    ),
    Fault(
        "nodes-answers-lost",
        "what is forwarded to a home is done, and nobody hears what came of it",
        _on(_nodes, Link.drop_answers, long=True),
    ),
    Fault(
        "nodes-slow",
        "0.15 s for each piece in either direction between the servers",
        _on(_nodes, _slow, long=True),
    ),
    *_OF_ANY,
)

FAULTS: Final = {fault.name: fault for fault in _OF_A_CLUSTER}
"""Those of a cluster by name, in the order in which they are dealt."""

_ALONE: Final[tuple[Fault[Stage], ...]] = (
    _NONE,
    Fault("server-kill", "kill -9 of the server, started again after 2 s", _kill_server),
    Fault("server-stop", "SIGSTOP of the server", _stop_server),
    Fault("restart", "the server drains, and starts again", _roll),
    *_OF_ANY,
)

ALONE: Final[dict[str, Fault[Stage]]] = {
    f"embedded-{fault.name}": replace(fault, name=f"embedded-{fault.name}") for fault in _ALONE
}
"""Those of one server on SQLite, in the same way."""
