"""How threads hand answers back to the event loop: many in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from tidings_server.storage.base import APPLIED

Answers = list[tuple[asyncio.Future[Any], object]]
"""Futures with what they are answered; an exception is raised."""


def hand_over(
    loop: asyncio.AbstractEventLoop, answers: Answers, applied: Sequence[asyncio.Future[Any]] = ()
) -> None:
    """Answers futures of the event loop, from another thread; `applied` are answered APPLIED.

    Futures that were cancelled meanwhile are passed over.
    """
    try:
        loop.call_soon_threadsafe(_answer, answers, applied)
    except RuntimeError:
        # The event loop was closed: nobody waits any more.
        if not loop.is_closed():
            raise


def _answer(answers: Answers, applied: Sequence[asyncio.Future[Any]]) -> None:
    for future in applied:
        if not future.done():
            future.set_result(APPLIED)
    for future, answer in answers:
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
