"""The quick part of `python -m tools.faults`: a cluster of real processes, with some faults under load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tools.stack.faults import FAULTS

ROOT = Path(__file__).parents[2]


def test_the_quick_part_finds_nothing_wrong(tmp_path: Path) -> None:
    page = tmp_path / "faults.md"
    run = subprocess.run(
        [sys.executable, "-m", "tools.faults", "--quick", "--report", str(page)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    told = page.read_text("utf-8")
    dealt = [name for name in FAULTS if f"\n| {name} | " in told]
    assert dealt == ["commit-answers-lost", "nodes-half-open"]
    assert told.count("| right |") == len(dealt)
