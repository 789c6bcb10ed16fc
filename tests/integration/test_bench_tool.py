"""The benchmark runs, and its devices get every message once, in order: also when the server is killed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from subprocess import run
from typing import Any

from tools.bench.ledger import Ledger

ROOT = Path(__file__).parents[2]


def bench(folder: Path, *workloads: str) -> dict[str, Any]:
    told = folder / "figures.json"
    names = [part for name in workloads for part in ("--workload", name)]
    done = run(
        [sys.executable, "-m", "tools.bench", "--quick", "--store", folder, "--json", told, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    runs: dict[str, Any] = json.loads(told.read_text())["runs"]
    return runs


def test_pairs_on_the_server_and_on_both_floors(tmp_path: Path) -> None:
    runs = bench(tmp_path, "w1/1")
    assert set(runs["w1/1"]) == {"floor", "floor+store", "server"}
    for (figures,) in runs["w1/1"].values():
        assert figures["wrong"] == 0
        assert figures["units"]["message"] > 0
        assert figures["units"]["delivery"] == figures["units"]["message"]
        assert figures["used"]["user_s"] + figures["used"]["system_s"] > 0


def test_a_killed_server_loses_and_doubles_nothing(tmp_path: Path) -> None:
    (figures,) = bench(tmp_path, "w5")["w5"]["server"]
    assert figures["wrong"] == 0
    assert figures["units"]["kill"] == 1
    assert figures["units"]["message"] > 0


class TestLedger:
    """The check that every run stands on can fail."""

    def check(self, *entries: tuple[int, str]) -> list[str]:
        ledger = Ledger()
        ledger.log("c").sent += [("m1", "one"), ("m2", "two")]
        texts = {"m1": "one", "m2": "two", "m3": "three"}
        cursors = ledger.device("d")
        for seq, message_id in entries:
            ledger.entry("d", cursors, ("c", seq, message_id, texts[message_id]))
        ledger.close({"c": {"d"}})
        assert bool(ledger.problems) == bool(ledger.wrong)
        return ledger.problems

    def test_nothing_wrong(self) -> None:
        assert self.check((1, "m1"), (2, "m2")) == []

    def test_lost(self) -> None:
        assert any("1 lost" in p for p in self.check((1, "m1")))

    def test_doubled_at_another_position(self) -> None:
        assert any("1 doubled" in p for p in self.check((1, "m1"), (2, "m2"), (3, "m1")))

    def test_given_twice(self) -> None:
        assert any("doubled: 1 after 1" in p for p in self.check((1, "m1"), (1, "m1"), (2, "m2")))

    def test_gap(self) -> None:
        assert any("gap: 3 after 1" in p for p in self.check((1, "m1"), (3, "m2")))

    def test_order(self) -> None:
        assert self.check((1, "m2"), (2, "m1"))

    def test_never_sent(self) -> None:
        assert self.check((1, "m1"), (2, "m2"), (3, "m3"))

    def test_devices_that_disagree(self) -> None:
        ledger = Ledger()
        ledger.entry("a", ledger.device("a"), ("c", 1, "m1", "one"))
        ledger.entry("b", ledger.device("b"), ("c", 1, "m2", "two"))
        assert ledger.wrong == 1

    def test_a_device_left_behind(self) -> None:
        ledger = Ledger()
        ledger.log("c").sent.append(("m1", "one"))
        ledger.entry("a", ledger.device("a"), ("c", 1, "m1", "one"))
        ledger.device("b")
        ledger.close({"c": {"a", "b"}})
        assert ledger.problems == ["b is at 0 of 1 in c"]
