"""Homes: the node that appends to a log, so that its commits are large and meet no conflicts.

Rendezvous hashing: of the nodes that live, a log's home is the one whose hash with the log is the
largest. When a node comes or goes, only its own logs move.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b


def home_of(log: str, node_ids: Iterable[str]) -> str | None:
    """The home of a log among these nodes, the same in whatever order they come; None of none."""
    return max(node_ids, key=lambda node_id: (_weight(log, node_id), node_id), default=None)


def _weight(log: str, node_id: str) -> bytes:
    return blake2b(f"{node_id}\0{log}".encode(), digest_size=8).digest()
