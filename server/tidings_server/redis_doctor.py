"""The doctor for Redis: whether it answers, is of the kind that was set, and lets this client do what it must."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tidings_server.buses import BusUnusable, redis_options
from tidings_server.config import RedisSettings, Settings
from tidings_server.findings import Finding, fail, ok, warn

_REACH = "check redis.hosts, the login and TLS, and that it runs; nodes serve without it, but alone"


@dataclass(frozen=True, slots=True)
class _Seen:
    engine: str
    version: tuple[int, ...]
    cluster: bool
    took_ms: float
    servers: int
    forbidden: str


def examine_redis(settings: Settings) -> Iterator[Finding]:
    """What can be seen of the bus. Leaves everything as it was."""
    if settings.bus.kind == "local":
        if settings.store.kind != "sqlite":
            yield warn(
                "bus",
                "bus.kind = local: events of other nodes don't come here",
                "set bus.kind = redis before there is a second node",
            )
        return
    redis = settings.redis
    try:
        seen = asyncio.run(_look(redis))
    except BusUnusable as problem:
        yield fail("bus", str(problem), "install tidings-server[cluster]")
        return
    except Exception as problem:  # noqa: BLE001  # the library may not be there to name its own
        yield fail("bus", f"Redis at {redis.hosts}: {_cause(problem)}", _REACH)
        return
    yield from _judge(redis, seen)


def _judge(redis: RedisSettings, seen: _Seen) -> Iterator[Finding]:
    what = f"{seen.engine} answers in {seen.took_ms:.1f} ms"
    if seen.cluster != redis.cluster:
        state = "is a cluster" if seen.cluster else "is no cluster"
        yield fail(
            "bus", f"{seen.engine} {state}", f"set redis.cluster = {str(seen.cluster).lower()}"
        )
    elif seen.version < ((7,) if redis.cluster else (6,)):
        yield fail(
            "bus", f"{seen.engine} is too old", "use Redis 6, with a cluster Redis 7, or newer"
        )
    elif seen.forbidden:
        yield fail(
            "bus", f"{seen.engine}: {seen.forbidden}", "let the user do what docs/redis.md lists"
        )
    else:
        yield ok("bus", f"{what}, with {seen.servers} primaries" if seen.cluster else what)
    if not all(address.loopback for address in redis.host_list()):
        if redis.password is None:
            yield warn(
                "bus", "Redis is on another machine and asks for no password", "set redis.password"
            )
        if not redis.tls:
            yield warn(
                "bus", "what goes to Redis is not encrypted", "set redis.tls, or trust the network"
            )


async def _look(settings: RedisSettings) -> _Seen:
    client: Any = redis_options(settings).client()
    try:
        if settings.cluster:
            await client.initialize()
            server = client.get_primaries()[0]
            info = await client.info("server", target_nodes=server)
            servers = len(client.get_primaries())
        else:
            info = await client.info("server")
            servers = 1
        began = time.perf_counter()
        await client.ping()
        took_ms = (time.perf_counter() - began) * 1000
        return _Seen(
            engine=_engine(info),
            version=_version(str(info["redis_version"])),
            cluster="cluster" in (info.get("redis_mode"), info.get("server_mode")),
            took_ms=took_ms,
            servers=servers,
            forbidden=await _forbidden(client, settings),
        )
    finally:
        await client.aclose()


async def _forbidden(client: Any, settings: RedisSettings) -> str:
    from redis.exceptions import ResponseError  # noqa: PLC0415

    publish = "SPUBLISH" if settings.cluster else "PUBLISH"
    try:
        await client.execute_command(publish, f"{settings.namespace}:doctor", b"")
        await client.eval(
            "return redis.call('TTL', KEYS[1])", 1, f"{{{settings.namespace}}}:doctor"
        )
        await client.smembers(f"{settings.namespace}:on:doctor")
        await client.srandmember(f"{settings.namespace}:at:doctor", 1)
    except ResponseError as problem:
        return str(problem)
    return ""


def _engine(info: dict[str, Any]) -> str:
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def _cause(problem: Exception) -> str:
    return str(problem) or type(problem).__name__
