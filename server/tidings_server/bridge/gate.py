"""The gate: who may connect. Sites by their Origin, addresses by how often they come."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlsplit

_REMEMBERED = 10_000


class Origins:
    """The sites whose pages may speak to the bridge: its own, and those that are named; "*" names all."""

    def __init__(self, allowed: tuple[str, ...] = ()) -> None:
        self._all = "*" in allowed
        self._allowed = frozenset(allowed)

    def allows(self, origin: str | None, host: str | None) -> bool:
        """Whether a request may come from a page of `origin`; None is no browser. `host` is the header Host."""
        if origin is None or self._all or origin in self._allowed:
            return True
        return bool(host) and urlsplit(origin).netloc.lower() == str(host).lower()


def forwarded(header: str, address: str) -> str:
    """Where a client is, by the header X-Forwarded-For of the proxy at `address`.

    The last was added by that proxy; what stands before it anybody may have written.
    """
    return header.rpartition(",")[2].strip() or address


class Rates:
    """How often each address comes: `a_second` for long, `burst` at once. Of many addresses the oldest are forgotten.

    `now` gives seconds.
    """

    def __init__(self, a_second: float, burst: float, now: Callable[[], float]) -> None:
        self._rate, self._burst, self._now = a_second, burst, now
        # What each has left, and when that was so.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> bool:
        """Whether an address may come now. If so, it has."""
        now = self._now()
        left, when = self._left.pop(address, (self._burst, now))
        left = min(self._burst, left + (now - when) * self._rate)
        may = left >= 1
        self._left[address] = (left - 1 if may else left, now)
        if len(self._left) > _REMEMBERED:
            self._left.popitem(last=False)
        return may
