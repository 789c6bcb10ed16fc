"""What a doctor finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `remedy` says what to do when it isn't well."""

    level: Level
    subject: str
    what: str
    remedy: str = ""


def ok(subject: str, what: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, subject, what)


def warn(subject: str, what: str, remedy: str) -> Finding:
    """It works, but somebody should know."""
    return Finding(Level.WARN, subject, what, remedy)


def fail(subject: str, what: str, remedy: str) -> Finding:
    """The server will not work, or not keep its promise."""
    return Finding(Level.FAIL, subject, what, remedy)
