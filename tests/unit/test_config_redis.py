"""Settings of the bus, what becomes of them, and what the doctor says of a Redis."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tidings_server.bus.local import LocalBus
from tidings_server.bus.redis import RedisBus
from tidings_server.buses import BusUnusable, make_between, redis_options
from tidings_server.config import ConfigError, RedisSettings, Settings, load
from tidings_server.findings import Level
from tidings_server.presence.base import NodeInfo
from tidings_server.presence.local import LocalLeases
from tidings_server.presence.redis import RedisLeases
from tidings_server.redis_doctor import examine_redis
from tools.stack.redis import RedisCluster, RedisServer, free_port


def problem(tmp_path: Path, text: str) -> str:
    path = tmp_path / "server.toml"
    path.write_text(f"[redis]\n{text}\n", "utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path)
    return str(caught.value)


def made(**groups: Any) -> Settings:
    return Settings(**groups)


def test_a_node_alone_needs_no_redis() -> None:
    between = make_between(Settings(), NodeInfo("n"), random.Random(1))
    assert isinstance(between.bus, LocalBus)
    assert isinstance(between.leases, LocalLeases)


async def test_the_kind_chooses() -> None:
    settings = made(bus={"kind": "redis"})
    between = make_between(settings, NodeInfo("n"), random.Random(1))
    assert isinstance(between.bus, RedisBus)
    assert isinstance(between.leases, RedisLeases)
    assert {r.name for r in between.readings} >= {"tidings.bus.owed", "tidings.leases.nodes"}
    assert all(isinstance(r.read(), int | float) for r in between.readings)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('hosts = "a"', "host:port"),
        ('hosts = "a:1,b:2"', "set cluster"),
        ('namespace = "{x}"', "redis.namespace"),
        ('username = "u"', "username needs password"),
        ('tls_ca_file = "x"', "tls is off"),
        ('tls = true\ntls_cert_file = "x"', "go together"),
        ("lease_s = 0.5", "redis.lease_s"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, text: str, says: str) -> None:
    assert says in problem(tmp_path, text)


def test_everything_reaches_the_options(tmp_path: Path) -> None:
    options = redis_options(
        RedisSettings(
            hosts="a:1, [::1]:2",
            cluster=True,
            namespace="chat",
            username="u",
            password="secret",  # type: ignore[arg-type]  # as pydantic makes it
            tls=True,
            tls_ca_file=tmp_path,
            tls_check_hostname=False,
            silence_s=3,
        )
    )
    assert options.hosts == (("a", 1), ("::1", 2))
    assert (options.cluster, options.namespace) == (True, "chat")
    assert (options.username, options.password) == ("u", "secret")
    assert (options.tls, options.tls_ca_file, options.tls_check_hostname) == (True, tmp_path, False)
    assert options.silence_s == 3
    assert "secret" not in repr(options)


def test_files_for_tls_that_are_not_there(tmp_path: Path) -> None:
    redis = {"tls": True, "tls_ca_file": tmp_path / "none.pem"}
    with pytest.raises(BusUnusable, match="TLS"):
        make_between(made(bus={"kind": "redis"}, redis=redis), NodeInfo("n"), random.Random(1))


def findings(port: int, **redis: Any) -> tuple[Level, str]:
    settings = made(bus={"kind": "redis"}, redis={"hosts": f"127.0.0.1:{port}", **redis})
    (found,) = examine_redis(settings)
    assert found.subject == "bus"
    return found.level, found.what + found.remedy


def test_the_doctor_sees_a_server(redis_server: RedisServer) -> None:
    level, what = findings(redis_server.port)
    assert level is Level.OK
    assert "answers in" in what


def test_the_doctor_sees_a_cluster(redis_cluster: RedisCluster) -> None:
    port = redis_cluster.servers[2].port
    level, what = findings(port, cluster=True)
    assert (level, "3 primaries" in what) == (Level.OK, True), what
    level, what = findings(port)
    assert (level, "redis.cluster = true" in what) == (Level.FAIL, True), what


def test_the_doctor_sees_what_is_not_there() -> None:
    level, what = findings(free_port())
    assert level is Level.FAIL
    assert "redis.hosts" in what


def test_the_doctor_sees_what_is_forbidden(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, password="right").start()
    try:
        assert findings(server.port, password="right")[0] is Level.OK
        assert findings(server.port, password="wrong")[0] is Level.FAIL
        assert findings(server.port)[0] is Level.FAIL
        server.client.execute_command(
            "ACL", "SETUSER", "weak", "on", ">weak", "~*", "&*", "+@all", "-publish"
        )
        level, what = findings(server.port, username="weak", password="weak")
        assert (level, "publish" in what) == (Level.FAIL, True), what
    finally:
        server.stop()


def test_the_doctor_warns_of_a_cluster_of_nodes_that_are_deaf() -> None:
    (found,) = examine_redis(made(store={"kind": "scylla"}))
    assert (found.level, found.subject) == (Level.WARN, "bus")
