"""Asking a store again until it gives a definite answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import structlog

from ..core.pages import Page
from ..storage.base import UNKNOWN, Append, Outcome, Store, StoreUnavailable
from ..telemetry.counters import Counters

log = structlog.get_logger(__name__)

_RETRY_FIRST_S = 0.01
_RETRY_MOST_S = 1.0


async def send_again(
    append: Callable[[Append], asyncio.Future[Outcome]],
    request: Append,
    rng: random.Random,
    counters: Counters,
) -> Outcome:
    """The outcome of an append that was answered UNKNOWN: the identical one is sent again until it is known. A fault of
    the store's own tells as little: who gave up would leave a page behind that nobody publishes.
    """
    delay = _RETRY_FIRST_S
    while True:
        await asyncio.sleep(delay * rng.uniform(0.5, 1.0))
        delay = min(delay * 2, _RETRY_MOST_S)
        try:
            answer = await append(request)
        except StoreUnavailable:
            # This try was not applied; the one before may still be.
            counters.store_errors += 1
            continue
        except Exception:
            log.exception("append_failed", log=request.log)
            continue
        if answer is not UNKNOWN:
            return answer


async def read_after(store: Store, name: str, head: int, counters: Counters) -> list[Page]:
    """The first pages of a log after a head, as soon as the store can be read."""
    delay = _RETRY_FIRST_S
    while True:
        try:
            return await store.read(name, head, max_bytes=1)
        except StoreUnavailable:
            counters.store_errors += 1
        except Exception:
            log.exception("read_failed", log=name)
        await asyncio.sleep(delay)
        delay = min(delay * 2, _RETRY_MOST_S)
