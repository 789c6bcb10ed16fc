"""The steps of a schema, as files of a package: `NNNN_name.SUFFIX`. A step that was released is never changed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from tidings_server.storage.base import StoreCorrupt


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema. The checksum is the SHA-256 of its text."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """What identifies the step's content."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@cache
def migrations_in(package: str, suffix: str) -> tuple[Migration, ...]:
    """The steps of this version, by number, from 1 without gaps."""
    wanted = re.compile(rf"(\d{{4}})_(\w+)\.{re.escape(suffix)}")
    found = []
    for file in resources.files(package).iterdir():
        named = wanted.fullmatch(file.name)
        if named:
            found.append(Migration(int(named[1]), named[2], file.read_text("utf-8")))
    found.sort(key=lambda m: m.number)
    assert [m.number for m in found] == list(range(1, len(found) + 1))
    return tuple(found)


def missing(
    known: tuple[Migration, ...], applied: Iterable[Sequence[Any]], what: str
) -> tuple[Migration, ...]:
    """The known steps that were not `applied` (number, name, checksum; ascending).

    Raises StoreCorrupt when `what`, such as "the database", is of a newer version, or was made by other steps.
    """
    there = list(applied)
    if len(there) > len(known):
        raise StoreCorrupt(
            f"{what} has schema version {there[-1][0]}, this program knows {len(known)}: "
            "use the newer program, or restore a backup"
        )
    for row, step in zip(there, known, strict=False):
        if tuple(row) != (step.number, step.name, step.checksum):
            raise StoreCorrupt(f"{what} was made by another version of migration {step.number}")
    return known[len(there) :]
