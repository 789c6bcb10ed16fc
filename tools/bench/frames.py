"""Frames of the Chat stream as the load client makes and reads them: cheaply, so that it is not what is measured."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from tidings.v1 import chat_service_pb2
from tidings_server.codec.wire import element, text, varint

TEXT_BYTES = 200
FIRST_COMMAND_ID = 1 << 21
"""Command ids up to 2^28 from here on take four bytes, so that every command of a shape has the same layout."""


class MessageIds:
    """Makes UUIDv7 in text form, each another one."""

    def __init__(self) -> None:
        self._next = 0b10 << 62 | random.getrandbits(61)

    def make(self) -> str:
        """The next id."""
        self._next += 1
        ms, tail = f"{time.time_ns() // 1_000_000:012x}", f"{self._next:016x}"
        return f"{ms[:8]}-{ms[8:]}-7000-{tail[:4]}-{tail[4:]}"


def message_text(sender: str, number: int) -> str:
    """A text of TEXT_BYTES bytes that no other message has."""
    return f"{sender} {number} ".ljust(TEXT_BYTES, "x")


class SendFrames:
    """Makes send commands for one conversation."""

    def __init__(self, conversation: str) -> None:
        self._conversation = text(0x0A, conversation)

    def make(self, command_id: int, message_id: str, body: str, after: str | None) -> bytes:
        """A frame with one command."""
        content = element(0x0A, body.encode())
        request = b"".join(
            (
                self._conversation,
                b"\x12\x24",
                message_id.encode(),
                element(0x1A, content),
                text(0x22, after) if after else b"",
            )
        )
        return element(0x0A, b"\x08" + varint(command_id) + element(0x1A, request))


def hello_frame(cursors: dict[str, int], incarnation: str, window: int) -> bytes:
    """A frame with a hello command, numbered 1."""
    hello = chat_service_pb2.Hello(incarnation=incarnation, window=window, client="tidings-bench")
    for log, seq in cursors.items():
        hello.cursors.add(conversation_id=log, seq=seq)
    command = chat_service_pb2.Command(command_id=1, hello=hello)
    return chat_service_pb2.ChatRequest(commands=[command]).SerializeToString()


def ack_frame(positions: dict[str, int]) -> bytes:
    """A frame that acknowledges what was applied."""
    return b"".join(
        element(0x12, text(0x0A, log) + b"\x10" + varint(seq)) for log, seq in positions.items()
    )


@dataclass(frozen=True, slots=True)
class Received:
    """What a frame from the server says: results as (command id, reason or 0, error text), entries as (log, seq, id,
    text); id and text are None for what is no message.
    """

    results: tuple[tuple[int, int, str], ...]
    entries: tuple[tuple[str, int, str | None, str | None], ...]
    incarnation: str
    synced: bool
    gaps: tuple[str, ...]
    ended: str


class FrameReader:
    """Reads frames. Frames with the same bytes, which the members of a group get, are read once."""

    def __init__(self) -> None:
        self._known: dict[bytes, Received] = {}

    def read(self, frame: bytes) -> Received:
        """What a frame says."""
        known = self._known.get(frame)
        if known is None:
            if len(self._known) >= 256:
                self._known.clear()
            known = self._known[frame] = _read(frame)
        return known


def _read(frame: bytes) -> Received:
    results = []
    entries: list[tuple[str, int, str | None, str | None]] = []
    incarnation = ended = ""
    synced = False
    gaps = []
    for event in chat_service_pb2.ChatResponse.FromString(frame).events:
        match event.WhichOneof("event"):
            case "entry":
                entry = event.entry
                if entry.HasField("message"):
                    entries.append((entry.conversation_id, entry.seq, entry.id, entry.message.text))
                else:
                    entries.append((entry.conversation_id, entry.seq, None, None))
            case "result":
                result = event.result
                error = result.error
                results.append((result.command_id, error.reason, error.message))
            case "welcome":
                incarnation = event.welcome.incarnation
            case "sync_complete":
                synced = True
            case "gap":
                gaps.append(f"gap {event.gap.from_seq}-{event.gap.to_seq}")
            case "skipped":
                gaps.append(f"skipped {event.skipped.from_seq}-{event.skipped.to_seq}")
            case "session_ended":
                ended = event.session_ended.error.message
            case _:
                pass
    return Received(tuple(results), tuple(entries), incarnation, synced, tuple(gaps), ended)
