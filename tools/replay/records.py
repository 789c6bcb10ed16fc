"""Records: what one device has applied of each log, in its own order, and whether that ascended by one."""

from __future__ import annotations

from dataclasses import dataclass, field

from .findings import Findings
from .ledger import Ledger, Run


@dataclass(slots=True)
class Record:
    """One log as one device has it.

    Attributes:
        seq: The newest position applied.
        count: The entries applied.
        total: The sum of their digests.
        skips: Positions that the server passed over, as (from, to).
        gaps: Positions announced as a gap and not fetched, as (from, to).
        missing: Positions that were jumped over without a word.
        offered_again: Entries that came again where the server could not know better.
    """

    seq: int = 0
    count: int = 0
    total: int = 0
    skips: list[tuple[int, int]] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    missing: set[int] = field(default_factory=set)
    offered_again: int = 0


class Records:
    """All the logs of one device. What does not ascend by one is a finding.

    `by_facts` tells that the sums are of facts rather than of bytes.
    """

    def __init__(
        self, device: str, ledger: Ledger, findings: Findings, *, by_facts: bool = False
    ) -> None:
        self.device = device
        self.by_facts = by_facts
        self.logs: dict[str, Record] = {}
        self.applied = 0
        self._ledger = ledger
        self._findings = findings

    def log(self, name: str) -> Record:
        """The record of a log."""
        record = self.logs.get(name)
        if record is None:
            record = self.logs[name] = Record()
        return record

    def take(self, run: Run, *, again: bool = False) -> int:
        """The device applies entries; returns how many. `again` allows that it has them already."""
        record = self.log(run.log)
        if run.first == record.seq + 1:
            count = run.last - record.seq
            record.seq = run.last
            record.count += count
            record.total += run.total
            self.applied += count
            return count
        before = self.applied
        positions = self._ledger.log(run.log)
        digests = positions.facts if self.by_facts else positions.digests
        single = run.first == run.last
        for seq in range(run.first, run.last + 1):
            digest = run.total if single else digests[seq - 1]
            self._take_one(record, run.log, seq, digest, again=again)
        return self.applied - before

    def _take_one(self, record: Record, log: str, seq: int, digest: int, *, again: bool) -> None:
        if seq <= record.seq:
            if seq in record.missing:
                self._findings.add(
                    "out of order", f"{self.device}: {log} at {seq} came after {record.seq}"
                )
                record.missing.discard(seq)
            elif again:
                record.offered_again += 1
                return
            else:
                self._findings.add(
                    "doubled", f"{self.device}: {log} at {seq} came again, after {record.seq}"
                )
                return
        else:
            record.missing.update(range(record.seq + 1, seq))
            record.seq = seq
        record.count += 1
        record.total += digest
        self.applied += 1

    def skip(self, log: str, first: int, last: int) -> None:
        """The server passes over positions that the user may not see."""
        record = self.log(log)
        if self._pass(record, log, first, last, "skip"):
            record.skips.append((first, last))

    def gap(self, log: str, first: int, last: int) -> None:
        """The server leaves positions to be fetched."""
        record = self.log(log)
        if self._pass(record, log, first, last, "gap"):
            record.gaps.append((first, last))

    def fill(self, log: str, first: int, last: int, runs: list[Run]) -> bool:
        """The device has fetched an announced gap; returns whether that was all of it."""
        record = self.log(log)
        at = first
        for run in runs:
            if run.log != log or run.first != at or run.last > last:
                break
            at = run.last + 1
        if at <= last or (first, last) not in record.gaps:
            self._findings.add(
                "lost", f"{self.device}: {log} from {at} to {last} can't be fetched to fill a gap"
            )
            return False
        record.gaps.remove((first, last))
        record.count += last - first + 1
        record.total += sum(run.total for run in runs)
        self.applied += last - first + 1
        return True

    def _pass(self, record: Record, log: str, first: int, last: int, what: str) -> bool:
        if first != record.seq + 1 or last < first:
            self._findings.add(
                "gap", f"{self.device}: {log} has a {what} from {first} to {last} at {record.seq}"
            )
            if last <= record.seq:
                return False
        record.seq = last
        return True
