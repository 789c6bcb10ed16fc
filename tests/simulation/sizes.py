"""Makes sizes within the server small for the length of a run, so that their edges are met often."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tidings_server.messaging.recent_ids import RecentIds
from tidings_server.node import Node


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes within the server. The defaults are its own.

    `ids`, `older_ids` and `logs` are what the sequencer keeps in memory of each log and in all, `tail_bytes` is what
    the tail cache keeps, `carried_bytes` what the bus carries of a page. Notes of what is to be appended hold for
    `round_s`, and what was asked of the store takes effect within `late_s`.
    """

    bucket: int = 10_000
    page_entries: int = 100
    ids: int = 8192
    older_ids: int = 32 * 8192
    logs: int = 20_000
    tail_bytes: int = 64 << 20
    chunk_bytes: int = 128 * 1024
    flagged: int = 500
    pages_at_once: int = 500
    carried_bytes: int = 8 * 1024
    round_s: float = 60.0
    late_s: float = 30.0


@contextmanager
def made_small(sizes: Sizes) -> Iterator[None]:
    """Sets the module constants."""
    constants: dict[str, float] = {
        "BUCKET_SIZE": sizes.bucket,
        "MAX_PAGE_ENTRIES": sizes.page_entries,
        "CHUNK_BYTES": sizes.chunk_bytes,
        "_CHUNK_BYTES": sizes.chunk_bytes,
        "_FLAGGED_AT_ONCE": sizes.flagged,
        "_PAGES_AT_ONCE": sizes.pages_at_once,
        "_RECENT_PAGES": sizes.pages_at_once,
        "LARGE_BYTES": sizes.carried_bytes,
        "ROUND_S": sizes.round_s,
        "LATE_S": sizes.late_s,
        "_CLEAR_EVERY_S": sizes.round_s / 4,
        # A beat for every session, with so few of them.
        "_BEATS": 4,
    }
    before: list[tuple[object, str, object]] = []
    for name, module in sorted(sys.modules.items()):
        # The SQLite store brings its own and isn't part of a simulation.
        if name.startswith("tidings_server.") and "sqlite" not in name:
            for constant, value in constants.items():
                if hasattr(module, constant):
                    before.append((module, constant, getattr(module, constant)))
                    setattr(module, constant, value)
    init = RecentIds.__init__
    defaults = init.__defaults__
    init.__defaults__ = (sizes.ids, sizes.older_ids)
    try:
        yield
    finally:
        init.__defaults__ = defaults
        for module, constant, value in before:  # type: ignore[assignment]
            setattr(module, constant, value)


def make_small(node: Node, sizes: Sizes) -> None:
    """Sets what belongs to one node."""
    node.sequencer._max_idle_logs = sizes.logs
    node._pages._max_bytes = sizes.tail_bytes
