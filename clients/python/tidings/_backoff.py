"""Waiting before trying again: exponential, with full jitter, so that clients do not come back in step."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """The waiting times of repeated attempts.

    Attributes:
        base: The longest wait before the second attempt, in seconds; it doubles with each attempt.
        cap: The longest wait of all, in seconds.
    """

    base: float
    cap: float

    def delay(self, attempt: int, rng: random.Random, at_least: float = 0.0) -> float:
        """The seconds to wait after a number of failed attempts, 0 for the first failure.

        A wait that the server asked for (`at_least`) is kept, and the jitter comes on top of it.
        """
        ceiling = min(self.cap, self.base * 2.0 ** min(attempt, 60))
        return at_least + rng.uniform(0.0, ceiling)
