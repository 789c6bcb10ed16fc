"""The settings of the store in a cluster, and the rule that keeps a log from forking."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

from tidings_server.storage.base import StoreCorrupt


@dataclass(frozen=True, slots=True)
class ScyllaOptions:
    """How the cluster is reached, and how sure an answer must be.

    `hosts` are contact points; the others are found from them. `replication` is used when the keyspace is made: copies
    by data centre, "" for that of the contact points. With `everywhere` a commit needs a quorum of all data centres;
    otherwise one of the data centre that a node speaks to.
    """

    hosts: tuple[str, ...] = ("127.0.0.1",)
    port: int = 9042
    keyspace: str = "tidings"
    replication: Mapping[str, int] = field(default_factory=lambda: {"": 3})
    everywhere: bool = False
    home_datacenter: str | None = None
    """The data centre that all nodes speak to. It has to be named when there are several, unless `everywhere`."""
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None
    request_timeout_s: float = 3.0
    """How long an answer is waited for. More than the servers' own limit for writes, or outcomes that they would tell
    become unknown."""
    connect_timeout_s: float = 5.0
    heartbeat_s: float = 5.0
    """How often a quiet connection is tried, and how long that may take before it counts as lost."""
    max_in_flight: int = 8_000
    """Most requests under way. The driver has 32,768 numbers for them on a connection, and blocks when they are used
    up."""
    known_buckets: int = 100_000
    """Logs of more than one bucket whose newest bucket is remembered."""


def refuse_forks(options: ScyllaOptions, replication: Mapping[str, int]) -> None:
    """Raises StoreCorrupt when nodes in two data centres could append to one log without knowing of each other."""
    centres = sorted(name for name, copies in replication.items() if copies)
    if options.everywhere:
        return
    if len(centres) > 1 and options.home_datacenter is None:
        raise StoreCorrupt(
            f"keyspace {options.keyspace} has copies in {', '.join(centres)}: appends that are decided in one data"
            " centre (LOCAL_SERIAL) would fork logs; name the home data centre, or decide in all (SERIAL)"
        )
    home = options.home_datacenter
    if home is not None and home not in centres:
        raise StoreCorrupt(
            f"keyspace {options.keyspace} has no copies in the home data centre {home}, but in {', '.join(centres)}"
        )
