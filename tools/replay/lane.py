"""Lanes: what one device sends to one conversation, in order, each message under one id until it is acknowledged."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tidings.v1 import chat_service_pb2

from .script import Row


@dataclass(slots=True, eq=False)
class Send:
    """A message that is not acknowledged. `tries` counts how often it was sent."""

    row: Row
    message_id: str
    reply_id: str
    tries: int = 0
    done: bool = False


@dataclass(slots=True, eq=False)
class Lane:
    """Sends to one conversation, oldest first. The first `sent` of them are on their way.

    Each names its predecessor until that is acknowledged, so that a refusal in the middle refuses the rest as well, and
    all are sent again from the oldest on.
    """

    conversation: str
    queue: deque[Send] = field(default_factory=deque)
    sent: int = 0
    not_before: float = 0.0

    def next(self, now: float) -> Send | None:
        """The next to be sent, or None."""
        if self.sent >= len(self.queue) or now < self.not_before:
            return None
        self.sent += 1
        return self.queue[self.sent - 1]

    def command(self, send: Send, command_id: int) -> chat_service_pb2.Command:
        """The command for a send that `next` gave."""
        send.tries += 1
        command = chat_service_pb2.Command(command_id=command_id)
        request = command.send_message
        request.conversation_id = self.conversation
        request.message_id = send.message_id
        request.content.text = send.row.text
        request.content.reply_to_message_id = send.reply_id
        if self.sent > 1:
            request.after_message_id = self.queue[self.sent - 2].message_id
        return command

    def acknowledged(self, send: Send) -> None:
        """A send has its position."""
        send.done = True
        while self.queue and self.queue[0].done:
            self.queue.popleft()
            self.sent = max(0, self.sent - 1)

    def rewind(self, not_before: float) -> None:
        """All that is not acknowledged is sent again, from a moment on."""
        self.sent = 0
        self.not_before = not_before
