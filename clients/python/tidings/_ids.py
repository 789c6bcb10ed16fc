"""Ids of messages and requests (UUIDv7), and the server's time as far as it is known."""

from __future__ import annotations

import random
from collections.abc import Callable

_MS_MASK = 0xFFFF_FFFF_FFFF
_RANDOM_BITS = 74
_RANDOM_MASK = (1 << _RANDOM_BITS) - 1


class IdMaker:
    """Makes UUIDv7 (RFC 9562) in lower-case text form that ascend, whatever the clock does."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._ms = -1
        self._random = 0

    def make(self, now_ms: int) -> str:
        """A new id of a time in milliseconds since the Unix epoch.

        Ids made within one millisecond, or after the clock was set back by less than a second, take the last time and
        count on, so that they sort as they were made.
        """
        if self._ms - 1000 < now_ms <= self._ms:
            self._random += 1 + self._rng.getrandbits(32)
            if self._random > _RANDOM_MASK:
                self._ms += 1
                self._random &= _RANDOM_MASK
        else:
            self._ms = now_ms
            # The highest bit stays free so that counting on doesn't run over.
            self._random = self._rng.getrandbits(_RANDOM_BITS - 1)
        value = (self._ms & _MS_MASK) << 80 | 0x7 << 76 | (self._random >> 62) << 64
        value |= 0b10 << 62 | (self._random & 0x3FFF_FFFF_FFFF_FFFF)
        text = f"{value:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def id_time_ms(message_id: str) -> int:
    """The time of a UUIDv7 in text form, in milliseconds since the Unix epoch.

    Raises ValueError when the first 48 bits can't be read.
    """
    return int(message_id[:8] + message_id[9:13], 16)


class ServerClock:
    """The server's time: its last word plus what has passed since by the loop's clock, which nobody sets.

    Until the server has spoken it is the device's own clock.
    """

    def __init__(self, wall_clock_ms: Callable[[], int]) -> None:
        self._wall_clock_ms = wall_clock_ms
        self._anchor: tuple[int, float] | None = None

    @property
    def known(self) -> bool:
        """Whether the server has told its time in this process."""
        return self._anchor is not None

    def set(self, server_ms: int, now: float) -> None:
        """Take the server's time at a moment of the loop's clock (seconds)."""
        self._anchor = (server_ms, now)

    def now_ms(self, now: float) -> int:
        """The server's time in milliseconds since the Unix epoch at a moment of the loop's clock (seconds)."""
        if self._anchor is None:
            return self._wall_clock_ms()
        server_ms, at = self._anchor
        return server_ms + int((now - at) * 1000)

    def offset_ms(self, now: float) -> int:
        """What is to be added to the device's own clock to get the server's; 0 until that is known."""
        return self.now_ms(now) - self._wall_clock_ms() if self._anchor is not None else 0
