"""`python -m tools.bench.cluster`: what several nodes on Cassandra and Redis cost beside the embedded store."""

from __future__ import annotations

import asyncio
import gc
import json
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import uvloop

from tools.stack.cassandra import CassandraNodes, NodeOptions
from tools.stack.redis import RedisServer

from . import machine, workloads
from .api import Api
from .device import Device
from .figures import percentile
from .frames import FIRST_COMMAND_ID, FrameReader, MessageIds, Received, SendFrames, message_text
from .ledger import Ledger
from .processes import Target
from .workloads import QUICK, SETTLE_S, Scale

_LIMIT_S = 900.0
_KNOWN_WITHIN_S = 20.0


class Cluster:
    """Redis, one Cassandra node and the servers on them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        redis = RedisServer(folder / "redis")
        (folder / "redis").mkdir()
        stack.callback(redis.stop)
        redis.start()
        ring = CassandraNodes(folder / "cassandra", options=NodeOptions(tied=True))
        stack.callback(ring.stop)
        ring.start()
        self._secret = secrets.token_hex(32)
        self._settings = {
            "STORE__KIND": "scylla",
            "SCYLLA__HOSTS": ring.hosts[0],
            "SCYLLA__PORT": str(ring.port),
            "SCYLLA__REPLICATION": "1",
            "BUS__KIND": "redis",
            "REDIS__HOSTS": f"127.0.0.1:{redis.port}",
            "NODES__KEY": secrets.token_hex(32),
        }

    def node(self, keyspace: str) -> Target:
        """A server, not yet started."""
        settings = {**self._settings, "SCYLLA__KEYSPACE": keyspace, "REDIS__NAMESPACE": keyspace}
        return Target("cluster", self._folder, settings, secret=self._secret)

    @contextmanager
    def nodes(self, count: int, keyspace: str) -> Iterator[list[Target]]:
        """Servers that run, on tables of their own."""
        with ExitStack() as stack:
            nodes = [stack.enter_context(self.node(keyspace)) for _ in range(count)]
            deadline = time.monotonic() + _KNOWN_WITHIN_S
            while any(node.metric("tidings_leases_nodes") != count for node in nodes):
                if time.monotonic() > deadline:
                    raise click.ClickException("the nodes do not come to know each other")
                time.sleep(0.1)
            yield nodes


class People:
    """Devices on several servers, whose entries one ledger checks."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.ids = MessageIds()
        self._reader = FrameReader()
        self._devices: list[Device] = []

    async def connect(self, target: Target, user: str, name: str = "") -> Device:
        """A device that is level."""
        device = Device(user, target.token(user, name or user), self.ledger, self._reader, name)
        self._devices.append(device)
        await device.open(target.address)
        await device.hello()
        return device

    async def close(self) -> None:
        """Ends all connections. Raises ClickException when anything came wrong."""
        for device in self._devices:
            await device.close()
        if self.ledger.wrong:
            raise click.ClickException("wrong: " + "; ".join(self.ledger.problems))


class Line:
    """A conversation in which messages go one after the other, each when the last one has reached all."""

    def __init__(
        self, people: People, conversation: str, sender: Device, receivers: Sequence[Device]
    ) -> None:
        self.took: list[list[float]] = [[] for _ in receivers]
        """Seconds from sending to each receiver."""
        self._people = people
        self._frames = SendFrames(conversation)
        self._log = people.ledger.log(conversation)
        self._sender = sender
        self._number = 0
        self._began = 0.0
        self._awaited = 0
        self._id = ""
        self._level = asyncio.Event()
        sender.on_frame = self._heard_by_sender
        for at, receiver in enumerate(receivers):
            receiver.on_frame = lambda received, at=at: self._heard(at, received)  # type: ignore[misc]

    async def say(self) -> None:
        """Sends a message; returns when all have it."""
        self._number += 1
        self._id = self._people.ids.make()
        body = message_text(self._sender.user, self._number)
        self._log.sent.append((self._id, body))
        self._level.clear()
        self._awaited = len(self.took) + 1
        self._began = time.perf_counter()
        self._sender.send(self._frames.make(FIRST_COMMAND_ID + self._number, self._id, body, None))
        await self._level.wait()

    def _heard_by_sender(self, received: Received) -> None:
        for _, reason, error in received.results:
            if reason:
                raise AssertionError(error)
        self._count(received)

    def _heard(self, at: int, received: Received) -> None:
        if self._count(received):
            self.took[at].append(time.perf_counter() - self._began)

    def _count(self, received: Received) -> bool:
        if not any(message_id == self._id for _, _, message_id, _ in received.entries):
            return False
        self._awaited -= 1
        if not self._awaited:
            self._level.set()
        return True


async def beside_embedded(cluster: Cluster, folder: Path, scale: Scale) -> dict[str, float]:
    """w1 on one node of the cluster and on the embedded store, in turn."""
    found = {}
    for window in (1, 32):
        own = folder / f"w1-{window}"
        own.mkdir()
        targets = [Target("server", own), cluster.node(f"w1_{window}")]
        figures = await workloads.direct(targets, window, scale, {})
        for kind, one in figures.items():
            if one.wrong:
                raise click.ClickException(f"w1/{window} {kind}: {one.problems}")
            found[f"w1/{window} {kind}: us of CPU a message"] = one.cpu_us("message")
        found[f"w1/{window}: ratio"] = figures["cluster"].cpu_us("message") / figures[
            "server"
        ].cpu_us("message")
    return found


async def across_nodes(cluster: Cluster, count: int, conversations: int) -> dict[str, float]:
    """The same message reaches a receiver at the sender's node and one at the other."""
    with cluster.nodes(2, "across") as (one, other):
        people = People()
        near: list[float] = []
        far: list[float] = []
        async with Api(one) as api:
            for number in range(conversations):
                users = [f"{role}{number}" for role in ("sender", "near", "far")]
                conversation = await api.group(users[0], users[1:])
                sender = await people.connect(one, users[0])
                receivers = [
                    await people.connect(one, users[1]),
                    await people.connect(other, users[2]),
                ]
                line = Line(people, conversation, sender, receivers)
                for _ in range(count):
                    await line.say()
                near += line.took[0][5:]
                far += line.took[1][5:]
        await people.close()
    near.sort()
    far.sort()
    return {
        "delivery at the same node: ms p50": percentile(near, 50) * 1e3,
        "delivery at the other node: ms p50": percentile(far, 50) * 1e3,
        "across nodes adds: ms p50": (percentile(far, 50) - percentile(near, 50)) * 1e3,
    }


async def refusals(cluster: Cluster, seconds: float, window: int) -> dict[str, float]:
    """Two people at two nodes write to one conversation as fast as `window` messages in flight let them."""
    with cluster.nodes(2, "refusals") as nodes:
        people = People()
        async with Api(nodes[0]) as api:
            conversation = await api.group("left", ["right"])
        devices = [
            await people.connect(node, user)
            for node, user in zip(nodes, ("left", "right"), strict=True)
        ]
        before = [
            (node.metric("tidings_commits"), node.metric("tidings_conflicts")) for node in nodes
        ]
        sent = await asyncio.gather(
            *(_pour(people, conversation, device, seconds, window) for device in devices)
        )
        await asyncio.sleep(SETTLE_S)
        after = [
            (node.metric("tidings_commits"), node.metric("tidings_conflicts")) for node in nodes
        ]
        expected = 1 + sum(sent)
        for device in devices:
            if device.cursors[conversation] != expected:
                people.ledger.problem(f"{device.name} has {device.cursors} of {expected}")
        await people.close()
    commits = sum(b[0] - a[0] for a, b in zip(before, after, strict=True))
    conflicts = sum(b[1] - a[1] for a, b in zip(before, after, strict=True))
    return {
        "one conversation, two nodes: messages": float(sum(sent)),
        "one conversation, two nodes: commits": float(commits),
        "one conversation, two nodes: refusals a commit": conflicts / max(1, commits),
    }


async def _pour(
    people: People, conversation: str, device: Device, seconds: float, window: int
) -> int:
    """Sends for a time; returns how many messages, when all are acknowledged."""
    frames = SendFrames(conversation)
    deadline = time.perf_counter() + seconds
    slots = asyncio.Semaphore(window)
    open_: set[int] = set()
    quiet = asyncio.Event()

    def heard(received: Received) -> None:
        for number, reason, error in received.results:
            if number < FIRST_COMMAND_ID:
                continue
            if reason:
                people.ledger.problem(f"{device.name}: refused: {error}")
            open_.discard(number)
            slots.release()
        if not open_:
            quiet.set()

    device.on_frame = heard
    number = 0
    last = None
    while time.perf_counter() < deadline:
        await slots.acquire()
        quiet.clear()
        message_id = people.ids.make()
        open_.add(FIRST_COMMAND_ID + number)
        body = message_text(device.user, number)
        device.send(frames.make(FIRST_COMMAND_ID + number, message_id, body, last))
        last = message_id
        number += 1
    await quiet.wait()
    return number


async def a_node_dies(cluster: Cluster, devices: int, missed: int) -> dict[str, float]:
    """A node is killed, and those who were connected to it come to another."""
    with cluster.nodes(2, "dying") as (dying, staying):
        people = People()
        async with Api(staying) as api:
            conversation = await api.group("poster", [f"d{n}" for n in range(devices)])
        poster = await people.connect(staying, "poster")
        guests = [await people.connect(dying, f"d{n}") for n in range(devices)]
        dying.kill()
        line = Line(people, conversation, poster, [])
        for _ in range(missed):
            await line.say()
        await asyncio.gather(*(guest.ended.wait() for guest in guests))
        took: list[float] = []

        async def return_(guest: Device) -> None:
            await guest.close()
            began = time.perf_counter()
            await guest.open(staying.address)
            await guest.hello(resume=True)
            took.append(time.perf_counter() - began)

        await asyncio.gather(*(return_(guest) for guest in guests))
        for guest in guests:
            if guest.cursors[conversation] != 1 + missed:
                people.ledger.problem(f"{guest.name} is at {guest.cursors}")
        await people.close()
    return {
        "a node killed: devices": float(devices),
        "a node killed: s until the last device was level on another": max(took),
    }


async def resuming(cluster: Cluster, conversations: int, rounds: int) -> dict[str, float]:
    """A user with many conversations comes back, with nothing missed."""
    with cluster.nodes(2, "resuming") as (node, other):
        people = People()
        # Before the conversations are made: a new device would get only the newest of many.
        device = await people.connect(node, "busy")
        async with Api(node) as api:
            for begin in range(0, conversations, 20):
                await asyncio.gather(
                    *(
                        api.group("busy", [f"friend{n}"])
                        for n in range(begin, min(begin + 20, conversations))
                    )
                )
        used = []
        for _ in range(rounds):
            await device.close()
            await device.open(node.address)
            await asyncio.sleep(SETTLE_S)
            before = node.usage(), other.usage()
            await device.hello(resume=True)
            spent = node.usage() - before[0], other.usage() - before[1]
            used.append(sum(one.cpu_s for one in spent))
        logs = len(device.cursors)
        await people.close()
    return {
        "resumed: logs": float(logs),
        "resumed: ms of CPU of both nodes, median": sorted(used)[rounds // 2] * 1e3,
    }


@click.command(context_settings={"show_default": True})
@click.option("--quick", is_flag=True, help="Small: proves that all works, measures nothing.")
@click.option(
    "--only", multiple=True, help="Only these parts: w1, across, refusals, dying, resuming."
)
@click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/bench"),
    help="The folder for databases; it must be on a real disk.",
)
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write all here."
)
def main(quick: bool, only: Sequence[str], store: Path, json_path: Path | None) -> None:
    """Measure several nodes on one Cassandra node and Redis, which are started for it.

    Every run checks that each device got each message once, in order, without a gap.
    """
    store.mkdir(parents=True, exist_ok=True)
    about = machine.describe(store)
    scale = QUICK if quick else Scale()

    async def run(folder: Path) -> dict[str, float]:
        found: dict[str, float] = {}
        with ExitStack() as stack:
            cluster = Cluster(folder, stack)
            parts: dict[str, Callable[[], Awaitable[dict[str, float]]]] = {
                "w1": lambda: beside_embedded(cluster, folder, scale),
                "across": lambda: across_nodes(cluster, 20 if quick else 200, 2 if quick else 8),
                "refusals": lambda: refusals(cluster, scale.measured_s, 8),
                "dying": lambda: a_node_dies(cluster, scale.devices, scale.missed // 10),
                "resuming": lambda: resuming(cluster, 40 if quick else 2000, 5),
            }
            for name, part in parts.items():
                if only and name not in only:
                    continue
                async with asyncio.timeout(_LIMIT_S):
                    figures = await part()
                for what, value in figures.items():
                    click.echo(f"{what}: {value:,.3f}")
                found |= figures
        return found

    with tempfile.TemporaryDirectory(dir=store) as name:
        gc.collect()
        gc.disable()
        try:
            found = uvloop.run(run(Path(name)))
        finally:
            gc.enable()
    for what, words in about.items():
        click.echo(f"{what}: {words}")
    if json_path is not None:
        json_path.write_text(json.dumps({"machine": about, "figures": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
