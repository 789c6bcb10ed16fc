"""A disk for SQLite that fails on demand, and that knows what a power cut would leave.

What is written is visible at once, as in the page cache. It is durable after a sync. A sync that fails loses the
durability of what it was to write, for good: as Linux does, the next one says nothing of it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import apsw

Fault = Callable[[str, str], Exception | None]
"""Told what is done ("read", "write", "sync", "truncate" or "open") to what ("db", "wal" or "other"): what to raise."""

_names = itertools.count(1)
_SECTOR = 512


def full() -> Exception:
    return apsw.exception_for(apsw.SQLITE_FULL)


def failed_write() -> Exception:
    return apsw.exception_for(apsw.SQLITE_IOERR_WRITE)


def failed_sync() -> Exception:
    return apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)


def failed_read() -> Exception:
    return apsw.exception_for(apsw.SQLITE_IOERR_READ)


@dataclass
class _Write:
    offset: int
    data: bytes

    def apply(self, content: bytearray, rng: random.Random | None = None) -> None:
        data = self.data
        if rng is not None:
            # A torn write: some of its sectors.
            data = data[: rng.randrange(0, len(data) + _SECTOR, _SECTOR)]
        if len(content) < self.offset:
            content.extend(bytes(self.offset - len(content)))
        content[self.offset : self.offset + len(data)] = data


@dataclass
class _Truncate:
    size: int

    def apply(self, content: bytearray, rng: random.Random | None = None) -> None:
        if rng is None or rng.random() < 0.5:
            del content[self.size :]


@dataclass
class _File:
    durable: bytearray = field(default_factory=bytearray)
    waiting: list[_Write | _Truncate] = field(default_factory=list)


class FaultyVFS(apsw.VFS):
    """Registered under `self.name` while it lives. `fault` may be set at any time."""

    def __init__(self, rng: random.Random) -> None:
        self.name = f"faulty-{next(_names)}"
        super().__init__(self.name, "")
        self.fault: Fault = lambda _do, _what: None
        self.steps = 0
        """How many things were done, or failed."""
        self.readonly = False
        self._rng = rng
        self._files: dict[str, _File] = {}
        self._lock = Lock()

    def excepthook(self, *_: object) -> bool:
        # SQLite is told of it: nobody else needs to.
        return True

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return _FaultyFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        with self._lock:
            self._files.pop(filename, None)

    def step(self, do: str, what: str) -> None:
        """Raises what the fault wants to be raised."""
        self.steps += 1
        problem = self.fault(do, what)
        if problem is not None:
            raise problem

    def opened(self, path: str) -> _File:
        """What is known of a file. One that was deleted may still be open, and is another than its successor."""
        with self._lock:
            if path not in self._files:
                self._files[path] = _File(bytearray(Path(path).read_bytes()))
            return self._files[path]

    def changed(self, file: _File, change: _Write | _Truncate) -> None:
        with self._lock:
            file.waiting.append(change)

    def synced(self, file: _File, *, successfully: bool) -> None:
        with self._lock:
            for change in file.waiting:
                if successfully or self._rng.random() < 0.5:
                    change.apply(file.durable)
            file.waiting.clear()

    def power_cut(self, path: Path, target: Path) -> None:
        """Writes what a power cut now would leave of the database to the directory of `target`, under its name.

        All that is durable, and of what waits for a sync any part.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        for suffix in ("", "-wal"):
            with self._lock:
                file = self._files.get(f"{path}{suffix}")
                if file is None:
                    continue
                content = bytearray(file.durable)
                for change in file.waiting:
                    if self._rng.random() < 0.5:
                        change.apply(content, self._rng)
            target.with_name(target.name + suffix).write_bytes(content)

    def killed(self, path: Path, target: Path) -> None:
        """Makes `target` what a new process would find if this one were killed now: all that is visible."""
        target.parent.mkdir(parents=True, exist_ok=True)
        for suffix in ("", "-wal"):
            source = path.with_name(path.name + suffix)
            with self._lock:
                file = self._files.get(str(source))
                if file is None or not source.exists():
                    continue
                moved = target.with_name(target.name + suffix)
                moved.write_bytes(source.read_bytes())
                self._files[str(moved)] = _File(bytearray(file.durable), list(file.waiting))


class _FaultyFile(apsw.VFSFile):
    def __init__(
        self, vfs: FaultyVFS, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        self._vfs = vfs
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        kind = flags[0]
        self._what = "other"
        if kind & apsw.SQLITE_OPEN_WAL:
            self._what = "wal"
        elif kind & apsw.SQLITE_OPEN_MAIN_DB:
            self._what = "db"
        vfs.step("open", self._what)
        if vfs.readonly:
            flags[0] = kind & ~(apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
            flags[0] |= apsw.SQLITE_OPEN_READONLY
        super().__init__("", name, flags)
        self._file = vfs.opened(path) if path else _File()

    def excepthook(self, *_: object) -> bool:
        return True

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        self._vfs.step("read", self._what)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._vfs.step("write", self._what)
        super().xWrite(data, offset)
        self._vfs.changed(self._file, _Write(offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._vfs.step("truncate", self._what)
        super().xTruncate(newsize)
        self._vfs.changed(self._file, _Truncate(newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802
        try:
            self._vfs.step("sync", self._what)
        except apsw.Error:
            self._vfs.synced(self._file, successfully=False)
            raise
        # Nothing is gained by syncing the file itself: this class is the disk.
        self._vfs.synced(self._file, successfully=True)
