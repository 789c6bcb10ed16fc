"""Records: immutable values that are made on the hot path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:
    T = TypeVar("T")

    def record(*, frozen: bool, slots: bool) -> Callable[[type[T]], type[T]]:
        """A dataclass that only the type checker holds to be frozen: one that is frozen at run time takes ten times
        as long to make, 2.5 µs with nine fields.
        """
        return dataclass(slots=slots, unsafe_hash=frozen)


__all__ = ["record"]
