"""The ledger: what was sent and what every device was given, held against each other."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_TOLD = 20


@dataclass(slots=True)
class Log:
    """What is known of one log: its entries by position, as the first device got them."""

    entries: dict[int, tuple[str | None, str | None]] = field(default_factory=dict)
    sent: list[tuple[str, str]] = field(default_factory=list)
    """The ids and texts of a conversation's one sender, in the order of sending."""


class Ledger:
    """Checks each entry when it is received, and everything at the end.

    What is wrong is kept as text in `problems`, at most MAX_TOLD of them; `wrong` counts all.
    """

    def __init__(self) -> None:
        self.logs: dict[str, Log] = {}
        self.problems: list[str] = []
        self.wrong = 0
        self.received = 0
        self._devices: list[tuple[str, dict[str, int]]] = []

    def log(self, name: str) -> Log:
        """The page of a log."""
        found = self.logs.get(name)
        if found is None:
            found = self.logs[name] = Log()
        return found

    def device(self, name: str) -> dict[str, int]:
        """The cursors of a new device, which `entry` moves on."""
        cursors: dict[str, int] = {}
        self._devices.append((name, cursors))
        return cursors

    def entry(
        self,
        device: str,
        cursors: dict[str, int],
        entry: tuple[str, int, str | None, str | None],
    ) -> None:
        """A device was given an entry."""
        log, seq, message_id, text = entry
        cursor = cursors.get(log, 0)
        if seq != cursor + 1:
            kind = "doubled" if seq <= cursor else "gap"
            self.problem(f"{device}: {kind}: {seq} after {cursor} in {log}")
        cursors[log] = max(seq, cursor)
        self.received += 1
        known = self.log(log).entries.setdefault(seq, (message_id, text))
        if known[0] != message_id or known[1] != text:
            self.problem(f"{device}: another entry at {seq} of {log} than others got")

    def problem(self, text: str) -> None:
        """Notes what is wrong."""
        self.wrong += 1
        if len(self.problems) < MAX_TOLD:
            self.problems.append(text)

    def close(self, expected: dict[str, set[str]]) -> None:
        """Checks at the end: `expected` maps each conversation to the devices that must have all of it.

        Every message that was sent is there once, in the order of sending, with its own text, at gapless positions;
        every device has reached the end.
        """
        for name, devices in expected.items():
            log = self.log(name)
            head = max(log.entries, default=0)
            if sorted(log.entries) != list(range(1, head + 1)):
                self.problem(f"the positions of {name} are not 1..{head}")
            messages = [log.entries[seq] for seq in sorted(log.entries) if log.entries[seq][0]]
            if messages != log.sent:
                lost = len(set(log.sent) - set(messages))
                doubled = len(messages) - len(set(messages))
                self.problem(
                    f"{name}: sent {len(log.sent)}, there are {len(messages)}: {lost} lost, {doubled} doubled,"
                    f" order {'kept' if not lost and not doubled else 'unknown'}"
                )
            for device, cursors in self._devices:
                if device in devices and cursors.get(name, 0) != head:
                    self.problem(f"{device} is at {cursors.get(name, 0)} of {head} in {name}")
