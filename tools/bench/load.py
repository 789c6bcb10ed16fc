"""Load: senders that keep a window of messages in flight, and what their messages took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from .device import Device
from .frames import FIRST_COMMAND_ID, MessageIds, Received, SendFrames, message_text
from .ledger import Ledger


class Sender:
    """The one sender of a conversation.

    Keeps `window` messages in flight. A message is in flight until it is acknowledged; with `until_delivered`, until
    the last of `receivers` has it too. Each message names its predecessor while that isn't acknowledged, as the SDK
    does.
    """

    def __init__(
        self,
        conversation: str,
        device: Device,
        receivers: Iterable[Device],
        ledger: Ledger,
        ids: MessageIds,
        *,
        window: int,
        until_delivered: bool,
        at_most: int | None = None,
    ) -> None:
        self.conversation = conversation
        self.device = device
        self.window = window
        self.ack_s: list[float] = []
        self.delivery_s: list[float] = []
        """From sending to a receiver that is not the sender."""
        self.sent = 0
        self._receivers = list(receivers)
        self._until_delivered = until_delivered
        self._ledger = ledger
        self._log = ledger.log(conversation)
        self._ids = ids
        self._frames = SendFrames(conversation)
        self._number = 0
        self._in_flight = 0
        self._running = False
        self._left = at_most
        self._open: dict[int, tuple[float, str]] = {}
        """Sent and not acknowledged: when, and the id."""
        self._awaited: dict[str, tuple[float, int]] = {}
        """Not yet with all receivers: when it was sent, and how many are still to get it."""
        self._last_id = ""
        self._quiet = asyncio.Event()
        device.on_frame = self._on_own
        for receiver in self._receivers:
            if receiver is not device:
                receiver.on_frame = self._on_entries

    def start(self) -> None:
        """Begins to send."""
        self._running = True
        self._quiet.clear()
        self._pump()

    async def finished(self) -> None:
        """Returns when `at_most` messages were sent, acknowledged and delivered."""
        await self._quiet.wait()

    async def stop(self) -> None:
        """Sends no more; returns when everything that was sent is acknowledged and delivered."""
        self._running = False
        if self._open or self._awaited:
            await self._quiet.wait()

    def forget(self) -> None:
        """What was measured so far does not count."""
        self.ack_s.clear()
        self.delivery_s.clear()
        self.sent = 0

    def resend(self) -> int:
        """Sends everything that isn't acknowledged again, in order, on a new connection. Returns how much that was."""
        after: str | None = None
        for command_id, (_, message_id) in self._open.items():
            number = command_id - FIRST_COMMAND_ID
            body = message_text(self.device.user, number)
            self.device.send(self._frames.make(command_id, message_id, body, after))
            after = message_id
        return len(self._open)

    def _pump(self) -> None:
        while self._running and self._in_flight < self.window:
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    self._running = False
                    return
            self._in_flight += 1
            self.sent += 1
            number = self._number
            self._number += 1
            message_id = self._ids.make()
            body = message_text(self.device.user, number)
            after = self._last_id if self._open else None
            self._last_id = message_id
            command_id = FIRST_COMMAND_ID + number
            frame = self._frames.make(command_id, message_id, body, after)
            self._log.sent.append((message_id, body))
            now = time.perf_counter()
            self._open[command_id] = (now, message_id)
            self._awaited[message_id] = (now, len(self._receivers))
            self.device.send(frame)

    def _on_own(self, received: Received) -> None:
        for command_id, reason, error in received.results:
            opened = self._open.pop(command_id, None)
            if opened is None:
                continue
            if reason:
                self._ledger.problem(f"{self.device.name}: refused: {error}")
            self.ack_s.append(time.perf_counter() - opened[0])
            if not self._until_delivered:
                self._in_flight -= 1
        self._take(received, own=True)

    def _on_entries(self, received: Received) -> None:
        self._take(received, own=False)

    def _take(self, received: Received, *, own: bool) -> None:
        now = time.perf_counter()
        for _, _, message_id, _ in received.entries:
            awaited = self._awaited.get(message_id) if message_id else None
            if awaited is None:
                continue
            if not own:
                self.delivery_s.append(now - awaited[0])
            assert message_id is not None
            if awaited[1] > 1:
                self._awaited[message_id] = (awaited[0], awaited[1] - 1)
            else:
                del self._awaited[message_id]
                if self._until_delivered:
                    self._in_flight -= 1
        self._pump()
        if not self._running and not self._open and not self._awaited:
            self._quiet.set()
