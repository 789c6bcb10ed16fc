"""Readings: numbers that are kept elsewhere and published with the metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """A number that somebody else keeps, such as a store.

    `name` has dots ("tidings.store.transactions"); a `total` only grows and is published with
    "_total", otherwise it is a gauge. `unit` is a UCUM unit: "s" and "By" end up in the name.
    """

    name: str
    description: str
    read: Callable[[], float]
    total: bool = True
    unit: str = ""
