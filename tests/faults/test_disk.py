"""A disk that is full, that fails, or that can only be read: nothing is lost, and it is over once it can be written.

Real faults of the kernel: a small file system of the server's own, a limit on the size of its files, permissions.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.faults.check import invariants
from tests.faults.person import Person
from tests.integration.processes import ServerProcess
from tests.integration.test_process import health
from tests.integration.wire import PATIENCE_S, until

SERVING, NOT_SERVING = 1, 2
# Root may write whatever permissions say, unless it gives up that right.
OBEYING = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")


class Disk:
    """A file system of 24 MB that the server alone sees."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = ServerProcess(folder, prefix=(*_unshared(), "sh", "-c", _MOUNT, str(folder)))

    @property
    def inside(self) -> Path:
        """The folder as the server sees it."""
        return Path(f"/proc/{self.process.pid}/root{self.folder}")

    def fill(self) -> None:
        """Leaves nothing."""
        with (self.inside / "filler").open("ab") as filler:
            size = os.fstatvfs(filler.fileno())
            os.posix_fallocate(filler.fileno(), 0, size.f_bavail * size.f_frsize)

    def free(self) -> None:
        (self.inside / "filler").unlink()


_MOUNT = 'mount -t tmpfs -o size=24m tmpfs "$0" && exec "$@"'


def _unshared() -> tuple[str, ...]:
    """Gives a process mounts of its own; without root also a user namespace, in which it is root."""
    if os.geteuid() == 0:
        return ("unshare", "--mount")
    return ("unshare", "--user", "--map-root-user", "--mount")


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    made = Disk(tmp_path)
    yield made
    await made.process.close()


async def talk(person: Person, log: str, count: int) -> None:
    for _ in range(count):
        person.post(log)
    await until(lambda: not person.waiting)


async def through(
    process: ServerProcess,
    fault: Callable[[], None],
    heal: Callable[[], Awaitable[None]],
) -> None:
    """People talk before, during and after a fault, with their streams open all the time."""
    caller = process.caller("alice")
    log = await caller.group("bob")
    people = [Person(user, lambda: process.address, [log]) for user in ("alice", "bob")]
    for person in people:
        await talk(person, log, 20)
    fault()
    for person in people:
        for _ in range(30):
            person.post(log)
    # Everybody is told that it can't be done now.
    await until(lambda: all(len(p.refused) > 20 for p in people))
    refused = {reason for p in people for reason in p.refused}
    assert refused <= {"STORE_UNAVAILABLE", "OUTCOME_UNKNOWN", "PREDECESSOR_MISSING"}
    assert refused & {"STORE_UNAVAILABLE", "OUTCOME_UNKNOWN"}
    await refuses(process)
    await heal()
    await until(lambda: not any(p.waiting for p in people))
    for person in people:
        await talk(person, log, 20)
    heads = {log: len(await caller.history(log))}
    await until(lambda: all(p.level(heads) for p in people))
    await invariants(people, caller, [log])
    assert all(p.sessions == 1 for p in people), "the streams outlived it"
    for person in people:
        await person.stop()


async def refuses(process: ServerProcess) -> None:
    """Nothing can be written."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await process.caller("carol").group("dave")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def becomes(process: ServerProcess, status: int) -> None:
    """Waits for a state of health."""
    async with asyncio.timeout(PATIENCE_S):
        while await health(process.address) != status:
            pass


async def test_a_full_disk(disk: Disk) -> None:
    await disk.process.start()

    async def heal() -> None:
        # Whoever looks for a server is sent elsewhere meanwhile.
        await becomes(disk.process, NOT_SERVING)
        disk.free()
        await becomes(disk.process, SERVING)

    await through(disk.process, disk.fill, heal)
    assert not list(disk.folder.iterdir()), "the disk is the server's own"


def limit_files(process: ServerProcess, size: int) -> None:
    """Writes beyond a size fail with an I/O error."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def test_a_disk_that_fails(process: ServerProcess) -> None:
    await process.start()

    async def heal() -> None:
        limit_files(process, resource.RLIM_INFINITY)

    await through(process, lambda: limit_files(process, 512), heal)


async def test_a_database_that_can_only_be_read(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path, prefix=OBEYING if os.geteuid() == 0 else ())
    await process.start()
    files = [tmp_path / f"tidings.db{suffix}" for suffix in ("", "-wal", "-shm")]

    def protect() -> None:
        for file in files:
            file.chmod(stat.S_IRUSR)
        # A write that fails makes the server open its files anew, and now it may only read them.
        limit_files(process, 512)

    async def release() -> None:
        limit_files(process, resource.RLIM_INFINITY)
        tried = len(attempts(process))
        await until(lambda: len(attempts(process)) > tried + 1)
        await refuses(process)
        for file in files:
            file.chmod(stat.S_IRUSR | stat.S_IWUSR)

    await through(process, protect, release)
    await process.close()


def attempts(process: ServerProcess) -> list[str]:
    """Failed attempts to heal the database, as the log tells."""
    lines = [str(line.get("message")) for line in process.log]
    return [line for line in lines if "trying again" in line]


async def test_a_database_that_can_only_be_read_from_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    first = await ServerProcess(folder).start()
    await first.caller("alice").group("bob")
    await first.kill()
    await first.close()
    for file in folder.iterdir():
        file.chmod(stat.S_IRUSR)
    second = ServerProcess(folder, prefix=OBEYING if os.geteuid() == 0 else ())
    with pytest.raises(AssertionError, match="it ended with 1"):
        await second.start()
    assert "tidings.db" in second.log[-1]["message"]
    assert "Traceback" not in str(second.log)
    shutil.rmtree(folder)
