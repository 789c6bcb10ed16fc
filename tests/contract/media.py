"""What stores keep their data on, one medium a backend: how tests make, reopen, back up and restore them."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from pathlib import Path

from tidings_server.storage.base import Store
from tidings_server.storage.memory import MemoryDisk, MemoryStore
from tidings_server.storage.sqlite import SqliteOptions, SqliteStore
from tidings_server.storage.sqlite.backup import backup, restore

MEMORY_DISK = Path("/dev/shm")
"""On Linux, a file system on which a sync costs nothing."""

_count = itertools.count(1)


def new_id() -> str:
    """An incarnation that no other medium has."""
    return f"incarnation-{next(_count)}"


class Medium(ABC):
    """The data of a store. It outlives the stores that are opened on it, one after the other."""

    @abstractmethod
    def store(self) -> Store:
        """A store on this data, not yet open."""

    @abstractmethod
    def restored_elsewhere(self) -> Medium:
        """A medium that was restored from a backup of this one, taken while a store may have it open."""


class MemoryMedium(Medium):
    def __init__(self, disk: MemoryDisk | None = None) -> None:
        self.disk = MemoryDisk() if disk is None else disk

    def store(self) -> Store:
        return MemoryStore(self.disk, new_id=new_id)

    def restored_elsewhere(self) -> Medium:
        return MemoryMedium(self.disk.backup())


class SqliteMedium(Medium):
    def __init__(self, directory: Path, options: SqliteOptions | None = None) -> None:
        self.directory = directory
        self.options = SqliteOptions(directory / "tidings.db") if options is None else options

    def store(self) -> SqliteStore:
        return SqliteStore(self.options, new_id=new_id)

    def restored_elsewhere(self) -> Medium:
        number = next(_count)
        saved = self.directory / f"backup-{number}.db"
        backup(self.options.path, saved)
        other = SqliteMedium(self.directory / f"restored-{number}")
        restore(saved, other.options.path, new_id=new_id)
        return other
