"""What the kernel knows of a process: its CPU time, its memory, how often it was woken."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SELF = os.getpid()
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """Of all threads of a process, since it began: seconds of CPU in user and kernel mode, and how often they slept."""

    user_s: float
    system_s: float
    sleeps: int

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU."""
        return self.user_s + self.system_s

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.user_s + other.user_s,
            self.system_s + other.system_s,
            self.sleeps + other.sleeps,
        )

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.user_s - other.user_s,
            self.system_s - other.system_s,
            self.sleeps - other.sleeps,
        )


NOTHING = Usage(0.0, 0.0, 0)


def usage(pid: int) -> Usage:
    """What a process has used so far. Raises OSError when it is gone."""
    # The name in parentheses may hold spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    sleeps = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            status = (task / "status").read_text()
        except OSError:
            # The thread has just ended.
            continue
        for line in status.splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                sleeps += int(line.split()[1])
    return Usage(int(fields[11]) * _TICK_S, int(fields[12]) * _TICK_S, sleeps)


def proportional_bytes(pid: int) -> int:
    """The memory of a process, pages shared by several counted in part (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise OSError("smaps_rollup has no Pss")
