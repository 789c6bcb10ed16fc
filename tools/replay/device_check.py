"""The check of one device's records against the history: all that its user may see, once, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .findings import Findings
from .records import Record, Records


@dataclass(frozen=True, slots=True)
class Expected:
    """What a member's device should have of a log: the entries from `join_seq` to the end.

    The sums are those of the digests up to each position, beginning with 0 for none.
    """

    name: str
    join_seq: int
    sums: list[int]

    @property
    def head(self) -> int:
        """The newest position."""
        return len(self.sums) - 1


def check_device(
    records: Records, expected: Mapping[str, Expected], findings: Findings, *, steady: bool = True
) -> None:
    """Compares what a device has with what it should have, by log.

    `steady` says that it was connected to the end and fetched what gaps left out.
    """
    for log, record in records.logs.items():
        if record.missing:
            some = ", ".join(map(str, sorted(record.missing)[:5]))
            findings.add(
                "lost", f"{records.device}: {log} lacks {len(record.missing)} positions: {some}"
            )
        if log not in expected and record.count:
            findings.add("foreign", f"{records.device}: {log} is none of the user's")
    for log, wanted in expected.items():
        _check_log(records, log, wanted, findings, steady=steady)


def _check_log(
    records: Records, log: str, wanted: Expected, findings: Findings, *, steady: bool
) -> None:
    record = records.logs.get(log)
    if record is None:
        if steady:
            findings.add("not level", f"{records.device}: nothing of {wanted.name} came")
        return
    where = f"{records.device}: {wanted.name}"
    if record.seq != wanted.head and (steady or record.seq > wanted.head):
        findings.add("not level", f"{where} is at {record.seq}, the head is {wanted.head}")
    if steady and record.gaps:
        findings.add("lost", f"{where} has the gaps {_told(record.gaps)}")
    _check_skips(record, wanted, where, findings)
    if record.missing or record.seq > wanted.head:
        return
    count, total = record.seq, wanted.sums[record.seq]
    for first, last in (*record.skips, *record.gaps):
        count -= last - first + 1
        total -= wanted.sums[last] - wanted.sums[first - 1]
    if record.count != count:
        findings.add("lost", f"{where} has {record.count} entries applied, not {count}")
    elif record.total != total:
        findings.add("altered", f"{where}: what was applied is not what history holds")


def _check_skips(record: Record, wanted: Expected, where: str, findings: Findings) -> None:
    """Only what came before joining may be passed over without being told of."""
    before = wanted.join_seq - 1
    skipped = sum(last - first + 1 for first, last in record.skips)
    if any(last > before for _, last in record.skips):
        findings.add(
            "gap", f"{where} skipped {_told(record.skips)} though it joined at {before + 1}"
        )
    elif record.seq > before and not record.gaps and skipped != before:
        findings.add("foreign", f"{where} holds {before - skipped} entries from before joining")


def _told(ranges: Iterable[tuple[int, int]]) -> str:
    return ", ".join(f"{first}-{last}" for first, last in ranges)
