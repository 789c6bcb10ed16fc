"""What an operator is told of the driver's errors, and what is never told: their text."""

from __future__ import annotations

import pytest
from cassandra import OperationTimedOut, Unavailable, WriteTimeout, WriteType
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionException

from tidings_server.storage.base import Trouble
from tidings_server.storage.scylla.connection import translate


@pytest.mark.parametrize(
    ("problem", "trouble"),
    [
        (NoHostAvailable("no", {}), Trouble.UNREACHABLE),
        (ConnectionException("cut", "10.0.0.1"), Trouble.UNREACHABLE),
        (ConnectionRefusedError("no"), Trouble.UNREACHABLE),
        (OperationTimedOut({"10.0.0.1": "late"}), Trouble.SLOW),
        (WriteTimeout("late", write_type=WriteType.CAS), Trouble.SLOW),
        (Unavailable("two of three are down"), Trouble.TOO_FEW_REPLICAS),
        (RuntimeError("a secret of the driver's"), Trouble.OTHER),
    ],
)
def test_the_trouble_of_an_error(problem: Exception, trouble: Trouble) -> None:
    assert translate(problem).trouble is trouble
