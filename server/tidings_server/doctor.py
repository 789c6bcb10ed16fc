"""The doctor: looks at the settings, the machine and the store, and says what to do about what it finds."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from tidings_server.auth import KeysUnusable, TokenVerifier
from tidings_server.auth.sources import fetch_jwks
from tidings_server.cluster_doctor import ClusterFacts, examine_cluster
from tidings_server.config import Address, Settings
from tidings_server.core.clock import Clock
from tidings_server.demo import SecretUnusable, dev_secret_path, read_dev_secret
from tidings_server.findings import Finding, fail, ok, warn
from tidings_server.redis_doctor import examine_redis

_GIB = 1 << 30
_MIN_FREE = _GIB // 4
_LOW_FREE = 2 * _GIB
_MIN_FILES, _LOW_FILES = 256, 8_192
_SYNCS = 15
_FAST_SYNC_S, _SLOW_SYNC_S = 0.000_04, 0.05
_EARLIEST_MS = 1_735_689_600_000  # 2025: before this server was written
_MEMORY_FILESYSTEMS = frozenset({"tmpfs", "ramfs"})
_SHARED_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph"})
_CLOCK_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What an inspection of a database file found.

    One of the three is given: `unavailable` when it could not be looked at, most often since a
    server has it open; `corrupt` when it can't be trusted; `what` describes a sound one.
    """

    unavailable: str = ""
    corrupt: str = ""
    what: str = ""


def examine(
    settings: Settings,
    clock: Clock,
    inspect_store: Callable[[Path], Inspection],
    inspect_cluster: Callable[[], ClusterFacts],
) -> Iterator[Finding]:
    """Everything that can be looked at, one after the other. Leaves everything as it was.

    `inspect_store` looks at an existing database file, `inspect_cluster` at the cluster; one of them is used.
    """
    yield from _keys(settings, clock)
    yield from _addresses(settings)
    if settings.store.kind == "sqlite":
        yield from _embedded(settings, inspect_store)
        yield from _clock(clock, settings.store.path)
    else:
        yield from examine_cluster(settings.scylla, inspect_cluster)
        yield from _clock(clock, None)
    yield from examine_redis(settings)
    yield from _files()
    yield from _collector(settings)


def _embedded(settings: Settings, inspect_store: Callable[[Path], Inspection]) -> Iterator[Finding]:
    folder = _existing(settings.store.path.absolute().parent)
    yield from _folder(folder)
    if os.access(folder, os.W_OK):
        yield from _disk(folder)
    if settings.store.path.exists():
        yield from _store(settings.store.path, inspect_store)
    else:
        yield ok("store", f"{settings.store.path} is not there yet; the server makes it")


def _keys(settings: Settings, clock: Clock) -> Iterator[Finding]:
    auth = settings.auth
    if not auth.has_keys:
        path = dev_secret_path(settings)
        try:
            there = read_dev_secret(path) is not None
        except SecretUnusable as problem:
            yield fail("auth", str(problem), "the demo can't start like this")
            return
        yield warn(
            "auth",
            "no keys are configured" + (f"; the demo's secret is in {path}" if there else ""),
            "`serve` needs auth.jwks_url, auth.jwks_file or auth.hs256_secret;"
            " `serve --demo` does without",
        )
        return
    if auth.hs256_secret is not None:
        if Address.parse(settings.grpc.listen).loopback:
            yield ok("auth", "tokens are signed with auth.hs256_secret (development)")
        else:
            yield warn(
                "auth",
                "auth.hs256_secret is set and the API is open to other machines",
                "in production let auth.jwks_url or auth.jwks_file name public keys instead",
            )
    try:
        if auth.jwks_file is not None:
            TokenVerifier(auth.policy(), clock)
            yield ok("auth", f"{auth.jwks_file} holds usable keys")
        if auth.jwks_url is not None:
            keys = fetch_jwks(auth.jwks_url)
            yield ok("auth", f"auth.jwks_url gives {len(keys.keys)} usable keys")
    except KeysUnusable as problem:
        what = str(problem) if auth.jwks_url is None else f"auth.jwks_url: {problem}"
        yield fail("auth", what, "no token can be checked without keys")


def _addresses(settings: Settings) -> Iterator[Finding]:
    named = [("grpc.listen", settings.grpc.listen)]
    if settings.bridge.enabled:
        named.append(("bridge.listen", settings.bridge.listen))
    if settings.metrics.enabled:
        named.append(("metrics.listen", settings.metrics.listen))
    for name, text in named:
        address = Address.parse(text)
        problem = _bind(address)
        if problem is None:
            yield ok("port", f"{name} {address} is free")
        else:
            yield warn(
                "port",
                f"{name} {address} can't be had: {problem}",
                "a server that runs already holds it; otherwise choose another",
            )
        group = name.partition(".")[0]
        secured = (group, True) in {
            ("grpc", settings.grpc.tls_cert_file is not None),
            ("bridge", settings.bridge.tls_cert_file is not None),
        }
        if not address.loopback and not secured:
            yield warn(
                "port",
                f"{name} {address} is open to other machines, without TLS",
                f"set {group}.tls_cert_file and {group}.tls_key_file, put a proxy with TLS in front of it, or"
                " listen on 127.0.0.1"
                if group != "metrics"
                else "listen on 127.0.0.1, or where only you reach it",
            )


def _bind(address: Address) -> str | None:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, where = found[0]
        with closing(socket.socket(family, kind, protocol)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as problem:
        return problem.strerror or str(problem)
    return None


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _folder(folder: Path) -> Iterator[Finding]:
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        yield fail(
            "disk",
            f"{folder} can't be written to by this user",
            "give the folder to the server's user, or set store.path",
        )
        return
    kind = _filesystem(folder)
    if kind in _MEMORY_FILESYSTEMS:
        yield fail(
            "disk",
            f"{folder} is in memory ({kind}): nothing there survives a restart of the machine",
            "set store.path to a folder on a disk",
        )
    elif kind in _SHARED_FILESYSTEMS:
        yield fail(
            "disk",
            f"{folder} is on a network ({kind}), where the store's locks can't be relied on",
            "set store.path to a folder on a local disk",
        )
    free = shutil.disk_usage(folder).free
    what = f"{free / _GIB:.1f} GiB are free in {folder}"
    if free < _MIN_FREE:
        yield fail("disk", what, "make room: sends fail when the disk is full")
    elif free < _LOW_FREE:
        yield warn("disk", what, "make room soon: sends fail when the disk is full")
    else:
        yield ok("disk", what)


def _store(path: Path, inspect_store: Callable[[Path], Inspection]) -> Iterator[Finding]:
    found = inspect_store(path)
    if found.unavailable:
        yield warn(
            "store", found.unavailable, "its integrity can be checked while no server uses it"
        )
    elif found.corrupt:
        yield fail(
            "store",
            found.corrupt,
            "keep a copy of the file as it is, and restore a backup (tidings-server restore)",
        )
    else:
        yield ok("store", f"{path}: {found.what}")
    mode = path.stat().st_mode & 0o077
    if mode:
        yield warn("store", f"{path} can be read by others (mode {mode:o})", f"chmod 600 {path}")


def _filesystem(folder: Path) -> str:
    """The type of the file system that holds a folder, or an empty string where it isn't told."""
    best, kind = "", ""
    try:
        mounts = Path("/proc/self/mounts").read_text("utf-8", "surrogateescape")
    except OSError:
        return ""
    here = folder.resolve()
    for line in mounts.splitlines():
        _, point, fstype, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        # Of two mounts on one point the later one is seen.
        if here.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, fstype
    return kind


def _disk(folder: Path) -> Iterator[Finding]:
    try:
        took = _sync_time(folder)
    except OSError as problem:
        yield fail("fsync", f"{folder} can't be synced: {problem.strerror}", "check the disk")
        return
    what = f"an fsync takes {took * 1000:.2f} ms"
    if took < _FAST_SYNC_S:
        yield warn(
            "fsync",
            f"{what}, too little for a disk to have kept anything",
            "a crash of the machine may lose acknowledged messages here: use a disk that syncs",
        )
    elif took > _SLOW_SYNC_S:
        yield warn("fsync", what, "every send waits for one: use a faster disk")
    else:
        yield ok("fsync", what)


def _sync_time(folder: Path) -> float:
    """The median time of an fsync after a small write, in seconds."""
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for i in range(_SYNCS):
            os.pwrite(file.fileno(), bytes([i]) * 4096, i * 4096)
            start = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - start)
    return median(times)


def _clock(clock: Clock, database: Path | None) -> Iterator[Finding]:
    now = clock.now_ms()
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now / 1000))
    remedy = "set the clock, and keep it by NTP: positions in time and tokens depend on it"
    written = database.stat().st_mtime * 1000 if database is not None and database.exists() else 0
    if now < _EARLIEST_MS:
        yield fail("clock", f"it is {shown}, before this server was written", remedy)
    elif written > now + 60_000:
        yield fail("clock", f"it is {shown}, before the store was last written to", remedy)
    elif _unsynchronised():
        yield warn("clock", f"it is {shown}, but nothing keeps the clock right", remedy)
    else:
        yield ok("clock", f"it is {shown}")


def _unsynchronised() -> bool:
    """Whether the kernel says that the clock is not kept right. Asking changes nothing."""
    try:
        ask = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return False
    return bool(ask(ctypes.create_string_buffer(1024)) == _CLOCK_UNSYNCHRONISED)


def _files() -> Iterator[Finding]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 1 << 30 if hard == resource.RLIM_INFINITY else hard
    what = (
        f"up to {'any number of' if files == 1 << 30 else files} files and connections can be open"
    )
    remedy = "raise the limit (LimitNOFILE of systemd, ulimit -n): each client needs one"
    if files < _MIN_FILES:
        yield fail("limits", what, remedy)
    elif files < _LOW_FILES:
        yield warn("limits", what, remedy)
    else:
        yield ok("limits", what)


def _collector(settings: Settings) -> Iterator[Finding]:
    endpoint = settings.otel.otlp_endpoint
    if endpoint is None:
        return
    parts = urlsplit(endpoint)
    where = (parts.hostname or "", parts.port or 4317)
    try:
        with socket.create_connection(where, timeout=5):
            yield ok("otel", f"{where[0]}:{where[1]} can be reached")
    except OSError as problem:
        yield warn(
            "otel",
            f"{where[0]}:{where[1]} can't be reached: {problem.strerror or problem}",
            "metrics and traces are dropped until otel.otlp_endpoint answers",
        )
