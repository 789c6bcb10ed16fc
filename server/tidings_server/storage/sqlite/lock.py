"""A lock against a second store on the same database file, in this process or another."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from tidings_server.storage.base import StoreUnavailable


class FileLock:
    """An flock on a side file, which holds the owner's process id. The kernel lets go of it when the process ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Takes the lock. Raises StoreUnavailable, naming the holder, when it is held, or can't be made."""
        try:
            self._fd = self._acquire()
        except OSError as problem:
            raise StoreUnavailable(f"{self._path} can't be locked: {problem}") from problem

    def release(self) -> None:
        """Lets go. The side file stays: to delete it would open a race with the next holder."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _acquire(self) -> int:
        while True:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Somebody may have deleted the file between our opening and locking it: then it guards nothing.
                if _same_file(fd, self._path):
                    os.ftruncate(fd, 0)
                    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                    return fd
            except BlockingIOError:
                holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
                os.close(fd)
                raise StoreUnavailable(
                    f"the database is in use by the process with id {holder} (it holds {self._path})"
                ) from None
            except OSError:
                os.close(fd)
                raise
            os.close(fd)


def lock_path(database: Path) -> Path:
    """The side file of a database file."""
    return database.with_name(database.name + ".lock")


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
