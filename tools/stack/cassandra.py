"""Throw-away Cassandra nodes on this machine, for tests and `make stack`: the same CQL as ScyllaDB.

    python -m tools.stack.cassandra install
    python -m tools.stack.cassandra start --dir DIR [--nodes 3] [--port 9042] [--keep-data]
    python -m tools.stack.cassandra stop --dir DIR

The jars come from Maven Central through `mvn`, as it is set up on this machine, and are kept in the user's cache. Java
and Maven, where they are missing, come from Debian's packages.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FILES = Path(__file__).parent / "cassandra_files"
_POM = FILES / "pom.xml"
_VERSION = re.search(r"<cassandra.version>([^<]+)<", _POM.read_text("utf-8"))
assert _VERSION is not None
VERSION = _VERSION[1]
CACHE = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    / "tidings"
    / f"cassandra-{VERSION}"
)
LIB = CACHE / "lib"
ARCHIVE = CACHE / "classes.jsa"
"""Java's archive of loaded classes: a node starts in half the time with it."""

START_S = 180.0
STOP_S = 60.0
_JAVA_VERSIONS = ("17", "11")
_JAVA_PACKAGE = "openjdk-17-jre-headless"
_RING_LOW, _RING = -(2**63), 2**64
_EXPORTS = [
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.base/java.lang.ref",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.rmi/sun.rmi.transport.tcp",
    "java.sql/java.sql",
    "jdk.unsupported/sun.misc",
]
_OPENS = [
    "java.base/java.lang.module",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.util.jar",
    "java.base/sun.nio.ch",
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.reflect",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/java.nio",
    "java.base/java.math",
    "java.base/java.net",
    "java.rmi/sun.rmi.transport.tcp",
    "jdk.management/com.sun.management.internal",
]


class CannotStart(Exception):
    """A node, or what it needs, can't be had. The text says why."""


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """How nodes run. `tied` nodes are killed when the process that started them ends, however it ends."""

    heap: str = "512m"
    paxos: str = "v2"
    sync: str = "periodic"
    patience_ms: int = 2_000
    """How long a node waits for others, or for itself, before it says that an outcome is unknown."""
    quick: bool = True
    """Compile less: quicker to start, slower in the long run."""
    tied: bool = False
    archive_to: Path | None = None
    """Where a node writes its archive of classes when it ends."""


class CassandraNodes:
    """Some nodes of one ring, 127.0.0.1, 127.0.0.2 and so on, all with the same port. State lies in `folder`."""

    def __init__(
        self,
        folder: Path,
        count: int = 1,
        *,
        port: int = 0,
        options: NodeOptions | None = None,
        advertised: Sequence[str] = (),
    ) -> None:
        """`advertised` are the addresses, one a node, that nodes tell clients; those of proxies, for example."""
        self.folder = folder.resolve()
        self.hosts = [f"127.0.0.{n}" for n in range(1, count + 1)]
        self.port = port
        self.advertised = list(advertised) or self.hosts
        self._storage_port = 0
        self._options = NodeOptions() if options is None else options
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, *, fresh: bool = True) -> None:
        """Starts all nodes and waits until each answers and knows the others. Raises CannotStart.

        `fresh` forgets what earlier ones stored in the folder.
        """
        install()
        self.run(fresh=fresh)

    def run(self, *, fresh: bool = True) -> None:
        """The same, where everything is installed."""
        if fresh and self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._choose_ports(fresh=fresh)
        for index in range(len(self.hosts)):
            self.launch(index)
        for index in range(len(self.hosts)):
            self.wait_ready(index)

    def launch(self, index: int) -> None:
        """Starts one node on what is in its folder, and returns at once."""
        node = self._folder(index)
        (node / "tmp").mkdir(parents=True, exist_ok=True)
        settings = node / "cassandra.yaml"
        settings.write_text(self._settings(index, node), "utf-8")
        command = _java_command(node, settings, self._options, alone=len(self.hosts) == 1)
        if self._options.tied:
            command = ["setpriv", "--pdeathsig", "SIGKILL", "--", *command]
        with (node / "log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=node,
            )
        self._processes[index] = process
        (node / "pid").write_text(f"{process.pid}\n", "ascii")

    def wait_ready(self, index: int) -> None:
        """Waits until a node serves clients and knows all others. Raises CannotStart."""
        host, others = self.hosts[index], len(self.hosts) - 1
        deadline = time.monotonic() + START_S
        while _peers(host, self.port) < others:
            process = self._processes.get(index)
            if process is not None and process.poll() is not None:
                raise CannotStart(f"{host} ended with {process.returncode}:\n{self.log(index)}")
            if time.monotonic() > deadline:
                raise CannotStart(f"{host} does not answer:\n{self.log(index)}")
            time.sleep(0.05)

    def pid(self, index: int) -> int:
        """The process of a node."""
        return int((self._folder(index) / "pid").read_text("ascii"))

    def send(self, index: int, number: int) -> None:
        """Sends a signal to a node."""
        os.kill(self.pid(index), number)

    def kill(self, index: int) -> None:
        """Kills a node with SIGKILL, and waits until it is gone."""
        self.send(index, signal.SIGKILL)
        self._wait_gone(index, time.monotonic() + STOP_S)

    def stop(self) -> None:
        """Ends all nodes, with SIGKILL those that don't end by themselves."""
        running = [i for i in range(len(self.hosts)) if self._is_running(i)]
        for index in running:
            with contextlib.suppress(ProcessLookupError):
                self.send(index, signal.SIGCONT)
                self.send(index, signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        for index in running:
            self._wait_gone(index, deadline)
        for index in range(len(self.hosts)):
            (self._folder(index) / "pid").unlink(missing_ok=True)

    def log(self, index: int) -> str:
        """The end of what a node said."""
        with contextlib.suppress(OSError):
            return (self._folder(index) / "log").read_text("utf-8", "replace")[-4_000:]
        return ""

    def _folder(self, index: int) -> Path:
        return self.folder / f"node{index + 1}"

    def _choose_ports(self, *, fresh: bool) -> None:
        kept = self.folder / "ports"
        if not fresh and kept.exists():
            port, self._storage_port = map(int, kept.read_text("ascii").split())
            self.port = self.port or port
        else:
            # Also on the addresses that clients are told.
            told = dict.fromkeys([*self.hosts, *self.advertised])
            self.port = self.port or _free_port(list(told))
            self._storage_port = _free_port(self.hosts)
        kept.write_text(f"{self.port} {self._storage_port}\n", "ascii")

    def _settings(self, index: int, node: Path) -> str:
        count = len(self.hosts)
        periodic = self._options.sync == "periodic"
        values = {
            "TOKEN": str(_RING_LOW + _RING // count * (index + 1) - 1 if count > 1 else 0),
            # All are seeds: none waits for another.
            "SEEDS": ",".join(self.hosts),
            "ADDRESS": self.hosts[index],
            "ADVERTISED": self.advertised[index],
            "PORT": str(self.port),
            "STORAGE_PORT": str(self._storage_port),
            "DIR": str(node),
            "SYNC": self._options.sync,
            "SYNC_PERIOD": "commitlog_sync_period: 1000ms" if periodic else "",
            "PAXOS": self._options.paxos,
            "PATIENCE": str(self._options.patience_ms),
        }
        text = (FILES / "cassandra.yaml").read_text("utf-8")
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        return text

    def _is_running(self, index: int) -> bool:
        try:
            pid = self.pid(index)
            # The number may have gone to another process since.
            return b"CassandraDaemon" in Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return False

    def _wait_gone(self, index: int, deadline: float) -> None:
        process = self._processes.pop(index, None)
        if process is not None:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            return
        while self._is_running(index):
            if time.monotonic() > deadline:
                self.send(index, signal.SIGKILL)
            time.sleep(0.05)


def install() -> None:
    """Brings Java, the jars and the archive of classes, whichever are missing. Raises CannotStart."""
    if LIB.exists() and ARCHIVE.exists() and _java() is not None:
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with _only_one():
        if _java() is None:
            _install_debian(_JAVA_PACKAGE)
            if _java() is None:
                raise CannotStart("Cassandra needs Java 17 or 11, which can't be found")
        if not LIB.exists():
            _take_jars()
        if not ARCHIVE.exists():
            _make_archive()


@contextlib.contextmanager
def _only_one() -> Iterator[None]:
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _take_jars() -> None:
    if shutil.which("mvn") is None:
        _install_debian("maven")
    taken = CACHE / "lib.partial"
    shutil.rmtree(taken, ignore_errors=True)
    _run(
        "mvn",
        "--quiet",
        "--batch-mode",
        "--no-transfer-progress",
        "--file",
        str(_POM),
        "dependency:copy-dependencies",
        f"-DoutputDirectory={taken}",
        "-DincludeScope=runtime",
    )
    taken.rename(LIB)


def _make_archive() -> None:
    """Runs a node once, which writes the archive when it ends."""
    folder = CACHE / "first-run"
    made = CACHE / "classes.partial"
    nodes = CassandraNodes(folder, options=NodeOptions(archive_to=made))
    try:
        nodes.run()
    finally:
        nodes.stop()
    shutil.rmtree(folder, ignore_errors=True)
    if not made.exists():
        raise CannotStart("Java wrote no archive of classes")
    made.rename(ARCHIVE)


def _install_debian(package: str) -> None:
    if shutil.which("apt-get") is None:
        raise CannotStart(f"{package} is missing, and there is no apt-get to install it with")
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    if as_root and shutil.which("sudo") is None:
        raise CannotStart(f"please install as root: apt-get install {package}")
    print(f"cassandra: installing {package} through apt-get", file=sys.stderr)
    _run(*as_root, "apt-get", "update", "-qq")
    _run(
        *as_root,
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "install",
        "-qq",
        "-y",
        "--no-install-recommends",
        package,
    )


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr)[-3_000:]
        raise CannotStart(f"`{' '.join(command)}` failed:\n{said}")


def _java() -> str | None:
    """The first Java of a version that Cassandra runs on."""
    candidates = [str(path) for path in sorted(Path("/usr/lib/jvm").glob("*/bin/java"))]
    home = os.environ.get("JAVA_HOME")
    first = [str(Path(home) / "bin/java")] if home else []
    for command in [*first, shutil.which("java") or "", *candidates]:
        if not command or not Path(command).exists():
            continue
        said = subprocess.run([command, "-version"], check=False, capture_output=True, text=True)
        version = re.search(r'version "(\d+)', said.stderr)
        if version is not None and version[1] in _JAVA_VERSIONS:
            return command
    return None


def _java_command(node: Path, settings: Path, options: NodeOptions, *, alone: bool) -> list[str]:
    java = _java()
    if java is None:
        raise CannotStart("Cassandra needs Java 17 or 11")
    jars = sorted(
        str(jar)
        for jar in LIB.glob("*.jar")
        if not any(other in jar.name for other in ("osx", "windows", "aarch_64", "macos"))
    )
    archive = (
        [f"-XX:ArchiveClassesAtExit={options.archive_to}"]
        if options.archive_to is not None
        else [f"-XX:SharedArchiveFile={ARCHIVE}", "-Xshare:auto"]
    )
    properties = {
        "java.net.preferIPv4Stack": "true",
        "jdk.attach.allowAttachSelf": "true",
        "io.netty.tryReflectionSetAccessible": "true",
        "jna.nosys": "true",
        "cassandra.config": f"file://{settings}",
        "cassandra.storagedir": str(node),
        "java.io.tmpdir": str(node / "tmp"),
        "logback.configurationFile": str(FILES / "logback.xml"),
        "log.level": "WARN",
        "cassandra.skip_wait_for_gossip_to_settle": "0",
        "cassandra.ring_delay_ms": "100" if alone else "1000",
        "cassandra.load_ring_state": "false",
        "cassandra.skip_schema_check": "true",
        "cassandra.superuser_setup_delay_ms": "-1",
        "cassandra.memtable.row_overhead_size": "180",  # or it measures for 0.5 to 2.5 s
        "cassandra.shutdown_announce_in_ms": "0",
        "cassandra.disable_auth_caches_remote_configuration": "true",
        "cassandra.libjemalloc": "-",
        "cassandra-foreground": "yes",
    }
    return [
        java,
        "-Xms96m",
        f"-Xmx{options.heap}",
        "-Xss384k",
        "-XX:+UseSerialGC",
        "-XX:MaxDirectMemorySize=256m",
        "-XX:+UseStringDeduplication",
        "-XX:-UsePerfData",
        "-XX:+ExitOnOutOfMemoryError",
        "-Xlog:disable",
        *(["-XX:TieredStopAtLevel=1"] if options.quick else []),
        *archive,
        *(f"-D{name}={value}" for name, value in properties.items()),
        *(part for name in _EXPORTS for part in ("--add-exports", f"{name}=ALL-UNNAMED")),
        *(part for name in _OPENS for part in ("--add-opens", f"{name}=ALL-UNNAMED")),
        "-cp",
        ":".join(jars),
        "org.apache.cassandra.service.CassandraDaemon",
    ]


def _free_port(hosts: Sequence[str]) -> int:
    """A port that is free on all of these addresses now."""
    for _ in range(100):
        with contextlib.ExitStack() as held:
            first = held.enter_context(socket.socket())
            first.bind((hosts[0], 0))
            port: int = first.getsockname()[1]
            try:
                for host in hosts[1:]:
                    held.enter_context(socket.socket()).bind((host, port))
            except OSError:
                continue
            return port
    raise CannotStart("no port is free")


def _frame(opcode: int, body: bytes) -> bytes:
    """A request of the native protocol, version 4."""
    return bytes([4, 0, 0, 0, opcode]) + len(body).to_bytes(4, "big") + body


def _peers(host: str, port: int) -> int:
    """How many other nodes a node knows, or -1 while it does not serve clients."""
    query = b"SELECT count(*) FROM system.peers_v2"
    try:
        with socket.create_connection((host, port), 0.5) as connection:
            connection.settimeout(5)
            answers = connection.makefile("rb")
            connection.sendall(_frame(1, b"\0\1\0\x0bCQL_VERSION\0\x053.0.0"))
            answers.read(int.from_bytes(answers.read(9)[5:9], "big"))
            connection.sendall(_frame(7, len(query).to_bytes(4, "big") + query + b"\0\1\0"))
            head = answers.read(9)
            body = answers.read(int.from_bytes(head[5:9], "big"))
            # The only cell of the only row is last.
            return int.from_bytes(body[-8:], "big") if head[4] == 8 else -1
    except (OSError, IndexError):
        return -1


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("command", choices=["install", "start", "stop"])
    parser.add_argument("--dir", type=Path, default=Path("build/cassandra"))
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--port", type=int, default=9042)
    parser.add_argument("--sync", choices=["periodic", "batch"], default="periodic")
    parser.add_argument("--heap", default="512m")
    parser.add_argument("--full-jit", action="store_true", help="for measurements")
    parser.add_argument("--keep-data", action="store_true")
    given = parser.parse_args()
    began = time.monotonic()
    try:
        if given.command == "install":
            install()
        else:
            options = NodeOptions(heap=given.heap, sync=given.sync, quick=not given.full_jit)
            count = given.nodes if given.command == "start" else _nodes_in(given.dir)
            nodes = CassandraNodes(given.dir, count, port=given.port, options=options)
            if given.command == "start":
                nodes.start(fresh=not given.keep_data)
            else:
                nodes.stop()
    except CannotStart as problem:
        sys.exit(f"cassandra: {problem}")
    print(f"cassandra: {given.command} took {time.monotonic() - began:.1f} s")


def _nodes_in(folder: Path) -> int:
    return max(1, len(list(folder.glob("node*"))))


if __name__ == "__main__":
    main()
