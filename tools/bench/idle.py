"""The workload without messages: what an idle connection takes of the server's memory (w3)."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from . import procfs
from .figures import Figures
from .processes import ROOT, ProcessFailed, Target

HOLDERS = 4
_WARM = 20
_SETTLE_S = 2.0
_SPARE_FILES = 200


@contextmanager
def _holder(target: Target, users: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process with a connected device of each user, once they are level."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.bench.holder", target.address],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    try:
        for user in users:
            process.stdin.write(f"{user} {target.token(user, 'idle')}\n")
        process.stdin.write("\n")
        process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.wait()


def _expect(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    said = process.stdout.readline().strip()
    if said != word:
        raise ProcessFailed(f"a holder of connections said {said!r} instead of {word!r}")


def raise_file_limit(files: int) -> None:
    """Lets this process and its children open so many files. Raises ProcessFailed when the system refuses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        if hard != resource.RLIM_INFINITY and hard < files:
            raise ProcessFailed(f"{files} open files are needed, the limit is {hard}: ulimit -Hn")
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


async def idle(target: Target, connections: int, measured_s: float) -> Figures:
    """w3: devices without conversations that connect, say hello, and stay."""
    return await asyncio.to_thread(_idle, target, connections, measured_s)


def _idle(target: Target, connections: int, measured_s: float) -> Figures:
    users = [f"idle{n}" for n in range(connections)]
    with _holder(target, [f"warm{n}" for n in range(_WARM)]) as warm:
        _expect(warm, "level")
        time.sleep(_SETTLE_S)
        before = procfs.proportional_bytes(target.pid)
        connecting = target.usage()
        holders = []
        managers = [_holder(target, users[n::HOLDERS]) for n in range(HOLDERS)]
        try:
            holders = [manager.__enter__() for manager in managers]
            for holder in holders:
                _expect(holder, "level")
            connected = target.usage() - connecting
            time.sleep(_SETTLE_S)
            after = procfs.proportional_bytes(target.pid)
            quiet = target.usage()
            time.sleep(measured_s)
            used = target.usage() - quiet
            for holder in holders:
                assert holder.stdin is not None
                holder.stdin.close()
                _expect(holder, "held")
        finally:
            for manager in managers[: len(holders)]:
                manager.__exit__(None, None, None)
    return Figures(
        used=used,
        units={"connection": connections},
        seconds=measured_s,
        bytes_each=(after - before) / connections,
        connect_us=connected.cpu_s * 1e6 / connections,
    )
