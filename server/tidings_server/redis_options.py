"""Where Redis is and how to speak to it: what the bus and the leases in Redis share."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

RedisAddress = tuple[str, int]
"""Host and port."""


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """One server (`cluster` is false and there is one host), or a Redis Cluster, of which `hosts` are some nodes.

    `namespace` parts deployments that share a Redis. `connect_s` bounds connecting. A connection on which nothing is
    heard for `silence_s`, although it was asked for a sign, is given up.
    """

    hosts: tuple[RedisAddress, ...] = (("127.0.0.1", 6379),)
    cluster: bool = False
    namespace: str = "tidings"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    tls_check_hostname: bool = True
    connect_s: float = 2.0
    silence_s: float = 5.0

    def tls_context(self) -> ssl.SSLContext | None:
        """What connections are secured by, if they are. Raises OSError when a file can't be used."""
        if not self.tls:
            return None
        context = ssl.create_default_context(cafile=self.tls_ca_file)
        context.check_hostname = self.tls_check_hostname
        if self.tls_cert_file is not None:
            context.load_cert_chain(self.tls_cert_file, self.tls_key_file)
        return context

    def client(self) -> Redis | RedisCluster:
        """A client for commands, which repeats nothing by itself. It connects when it is used.

        Raises nothing that is not of `redis.exceptions` or OSError.
        """
        given: dict[str, Any] = {
            "username": self.username,
            "password": self.password,
            "protocol": 3,
            "socket_connect_timeout": self.connect_s,
            "socket_timeout": self.silence_s,
            "retry": Retry(NoBackoff(), 0),
            "ssl": self.tls,
        }
        if self.tls:
            given |= {
                "ssl_ca_certs": _text(self.tls_ca_file),
                "ssl_certfile": _text(self.tls_cert_file),
                "ssl_keyfile": _text(self.tls_key_file),
                "ssl_check_hostname": self.tls_check_hostname,
            }
        if self.cluster:
            nodes = [ClusterNode(host, port) for host, port in self.hosts]
            return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **given)
        host, port = self.hosts[0]
        return Redis(host=host, port=port, **given)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
