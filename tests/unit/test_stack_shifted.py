"""A server's clock that is wrong, as faults make it."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

PROGRAM = """
import sys
from tools.stack.shifted import shift
shift(int(sys.argv[1]))
from tidings_server.core.clock import SystemClock
print(SystemClock().now_ms())
"""


@pytest.mark.parametrize("offset_ms", [-600_000, 600_000])
def test_a_shifted_process_sees_another_time(offset_ms: int) -> None:
    before = time.time_ns() // 1_000_000
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(offset_ms)], capture_output=True, text=True, check=True
    )
    after = time.time_ns() // 1_000_000
    assert before + offset_ms <= int(run.stdout) <= after + offset_ms
