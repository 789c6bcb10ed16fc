"""How a memory store misbehaves: what may happen to a call, and who decides it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Call:
    """A call that reached the store: the port's method, and the log or user it is about (or "")."""

    method: str
    about: str

    @property
    def is_write(self) -> bool:
        """Whether it changes something."""
        return self.method in ("append", "rewrite") or self.method.startswith(("put_", "clear_"))


class Happens(Enum):
    """What becomes of a call.

    The unsure ones answer `UNKNOWN` to an append and raise StoreUnavailable to everything else.
    """

    DONE = "done as asked"
    REFUSED = "not done, and StoreUnavailable says so"
    UNSURE_DONE = "done, but the answer is lost"
    UNSURE_LOST = "not done, and the answer is lost"
    UNSURE_LATE = "the answer is lost, and it is done later, if its condition holds then"


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to one call, in seconds of the event loop's time.

    The call takes effect after `before` and is answered `after` seconds later. A late write takes
    effect after `late` instead, which may be long after its answer, and even after the crash of
    the store that took it.
    """

    happens: Happens = Happens.DONE
    before: float = 0.0
    after: float = 0.0
    late: float = 0.0


Faults = Callable[[Call], Fate]
"""Decides what happens to each call."""

_OBEY = Fate()
_UNSURE = (Happens.UNSURE_DONE, Happens.UNSURE_LOST, Happens.UNSURE_LATE)


@dataclass(slots=True)
class RandomFaults:
    """Draws fates from `rng`. Settings may be changed while stores use it.

    `refused` and `unsure` are probabilities of a call; `max_delay` bounds `before` and `after` each
    and `max_late` bounds `late`, in seconds.
    """

    rng: random.Random
    refused: float = 0.0
    unsure: float = 0.0
    max_delay: float = 0.0
    max_late: float = 1.0

    def __call__(self, call: Call) -> Fate:
        """The fate of a call."""
        rng = self.rng
        happens, late = Happens.DONE, 0.0
        draw = rng.random()
        if draw < self.refused:
            happens = Happens.REFUSED
        elif call.is_write and draw < self.refused + self.unsure:
            happens = rng.choice(_UNSURE)
            if happens is Happens.UNSURE_LATE:
                late = rng.uniform(0.0, self.max_late)
        if not self.max_delay:
            return Fate(happens, late=late) if happens is not Happens.DONE else _OBEY
        before, after = rng.uniform(0.0, self.max_delay), rng.uniform(0.0, self.max_delay)
        return Fate(happens, before, after, late)

    def calm(self) -> None:
        """From now on calls are done as asked. Delays stay, and late writes may still come."""
        self.refused = self.unsure = 0.0
