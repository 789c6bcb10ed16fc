"""Connections to the cluster, and how requests of each kind are carried out. Everything here blocks."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cassandra import (
    AuthenticationFailed,
    ConsistencyLevel,
    DriverException,
    OperationTimedOut,
    RateLimitReached,
    RequestValidationException,
    Timeout,
    Unavailable,
    UnresolvableContactPoints,
)
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster, ExecutionProfile, NoHostAvailable, Session
from cassandra.connection import ConnectionException
from cassandra.io.libevreactor import LibevConnection
from cassandra.policies import (
    DCAwareRoundRobinPolicy,
    ExponentialReconnectionPolicy,
    FallthroughRetryPolicy,
    RetryPolicy,
    TokenAwarePolicy,
)
from cassandra.protocol import ErrorMessage
from cassandra.protocol import RequestValidationException as ValidationMessage
from cassandra.query import dict_factory, tuple_factory

from tidings_server.storage.base import StoreUnavailable, Trouble
from tidings_server.storage.scylla.options import ScyllaOptions

PLAIN = "plain"
"""Reads, and writes that may be repeated: rows are tuples, and the driver may try another node."""
CONDITIONAL = "conditional"
"""Lightweight transactions: rows are dicts, and the driver never decides or repeats anything. They go to the same
replica of a partition, so that few meet."""
CONDITIONAL_ELSEWHERE = "conditional elsewhere"
"""The same, to any replica: for what the usual one did not answer."""

_PATIENT_S = 20.0
"""How long a change of the schema, or what is asked while opening, may take."""

_DEFINITE = (
    NoHostAvailable,
    RequestValidationException,
    ValidationMessage,
    AuthenticationFailed,
)


class Unsure(StoreUnavailable):
    """A request may have been carried out, or may still be."""


def connect(options: ScyllaOptions) -> Cluster:
    """A cluster object. Its `connect()` is still to be called; `shutdown()` ends it. Raises StoreUnavailable when none
    of the hosts has an address.
    """
    level, serial = levels(options)

    def profile(retries: RetryPolicy, rows: Any, *, shuffle: bool) -> ExecutionProfile:
        near = DCAwareRoundRobinPolicy(local_dc=options.home_datacenter or "")
        return ExecutionProfile(
            load_balancing_policy=TokenAwarePolicy(near, shuffle_replicas=shuffle),
            retry_policy=retries,
            consistency_level=level,
            serial_consistency_level=serial,
            request_timeout=options.request_timeout_s,
            row_factory=rows,
        )

    login = None
    if options.username is not None:
        login = PlainTextAuthProvider(options.username, options.password or "")
    try:
        return Cluster(
            list(options.hosts),
            port=options.port,
            auth_provider=login,
            ssl_context=options.tls,
            connection_class=LibevConnection,
            # Without it a request of two packets waits for the first one's acknowledgement, 40 ms.
            sockopts=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            protocol_version=4,
            compression=False,
            connect_timeout=options.connect_timeout_s,
            control_connection_timeout=options.connect_timeout_s,
            idle_heartbeat_interval=options.heartbeat_s,
            idle_heartbeat_timeout=options.heartbeat_s,
            reconnection_policy=ExponentialReconnectionPolicy(0.25, 10.0),
            driver_config_reporting_enabled=False,
            execution_profiles={
                PLAIN: profile(RetryPolicy(), tuple_factory, shuffle=True),
                CONDITIONAL: profile(FallthroughRetryPolicy(), dict_factory, shuffle=False),
                CONDITIONAL_ELSEWHERE: profile(
                    FallthroughRetryPolicy(), dict_factory, shuffle=True
                ),
            },
        )
    except UnresolvableContactPoints:
        names = ", ".join(options.hosts)
        raise StoreUnavailable(f"none of the hosts has an address: {names}") from None


def levels(options: ScyllaOptions) -> tuple[int, int]:
    """The consistency levels of what is plain, and of what is decided by transactions."""
    if options.everywhere:
        return ConsistencyLevel.QUORUM, ConsistencyLevel.SERIAL
    return ConsistencyLevel.LOCAL_QUORUM, ConsistencyLevel.LOCAL_SERIAL


def begin(cluster: Cluster) -> Session:
    """Connects. Raises StoreUnavailable."""
    with translated("the cluster can't be reached"):
        session = cluster.connect()
    # Lists of what one user has come whole: nothing is read in parts but what says so.
    session.default_fetch_size = None
    # Rows that need a timestamp say which; the others take the coordinator's.
    session.use_client_timestamp = False
    return session


def local_datacenter(cluster: Cluster) -> str:
    """The data centre that requests go to."""
    home: str = cluster.profile_manager.profiles[PLAIN].load_balancing_policy._child_policy.local_dc  # noqa: SLF001
    return home


def execute(session: Session, query: Any, values: Any = None, *, profile: str = PLAIN) -> Any:
    """Carries out one request, outside the hot path, and gives the result. Raises StoreUnavailable, or Unsure."""
    with translated("the cluster"):
        return session.execute(query, values, timeout=_PATIENT_S, execution_profile=profile)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Errors of the driver become the port's."""
    try:
        yield
    except (
        DriverException,
        ErrorMessage,
        NoHostAvailable,
        ConnectionException,
        OSError,
    ) as problem:
        raise translate(problem, what) from problem


def translate(problem: Exception, what: str = "the cluster") -> StoreUnavailable:
    """The port's error for one of the driver's, which is a plain StoreUnavailable only when nothing was carried out,
    nor will be.

    NoHostAvailable says that there was no connection to send the request on. A coordinator's "unavailable" is no such
    certainty: within one transaction it may come after a round of Paxos that some replicas accepted.
    """
    text = f"{what}: {describe(problem)}"
    # ScyllaDB may find a partition to be too busy after some replicas have written.
    if isinstance(problem, _DEFINITE) and not isinstance(problem, RateLimitReached):
        return StoreUnavailable(text, _trouble(problem))
    return Unsure(text, _trouble(problem))


def _trouble(problem: Exception) -> Trouble:
    if isinstance(problem, NoHostAvailable | ConnectionException | OSError):
        return Trouble.UNREACHABLE
    if isinstance(problem, OperationTimedOut | Timeout):
        return Trouble.SLOW
    return Trouble.TOO_FEW_REPLICAS if isinstance(problem, Unavailable) else Trouble.OTHER


def describe(problem: Exception) -> str:
    """An error of the driver in one line, for the log and the operator."""
    if isinstance(problem, NoHostAvailable) and isinstance(problem.errors, dict):
        each = "; ".join(f"{host}: {type(e).__name__}: {e}" for host, e in problem.errors.items())
        return f"no node answers ({each})" if each else "no node is known to be up"
    return f"{type(problem).__name__}: {problem}".replace("\n", " ")
