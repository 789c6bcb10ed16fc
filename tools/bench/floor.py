"""The floor: a pass-through server on grpc.aio, which reads and writes what the real one does and does nothing else.

usage: python -m tools.bench.floor [--engine] [--store DATABASE]

It takes the frames that `tools.bench.frames` makes by their layout, gives each message the next position of its
room, and writes the same bytes to the same streams, gathered in the same way. With a database it appends each batch
of a room as a row to SQLite first, with an fsync at each commit: what durability alone adds. With --engine grpc.aio
is set up as the real server does it, otherwise it is as it comes.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from queue import SimpleQueue
from threading import Thread
from typing import Any

import apsw
import click
import grpc
import uvloop

from tidings.v1 import chat_service_pb2
from tidings_server.codec.wire import element, text, varint
from tidings_server.delivery.hub import GATHER_S
from tidings_server.rpc.engine import one_wake_up
from tidings_server.rpc.server import OPTIONS

from .device import CHAT
from .frames import TEXT_BYTES, message_text

SMALL_ROOM = 32
BACKLOG_FRAME_BYTES = 128 * 1024
_TIME = element(0x32, b"\x08\xf0\xf0\xf0\xf0\x06\x10\x80\xa0\xc2\x1e")
_RESULT_TIME = element(0x12, b"\x08\xf0\xf0\xf0\xf0\x06\x10\x80\xa0\xc2\x1e")
_COMMANDS = 0x0A
# Where the parts of a command lie, in the layout that `SendFrames` makes.
_NUMBER = slice(3, 8)
_MESSAGE_ID = slice(51, 87)
_CONTENT = slice(88, 93 + TEXT_BYTES)

Context = grpc.aio.ServicerContext[bytes, bytes]
Batch = list[tuple["Stream", bytes]]


class Stream:
    """A connected device: what waits is written as one frame, one write in flight."""

    __slots__ = ("_context", "_pending", "_task")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pending: list[bytes] = []
        self._task: asyncio.Task[None] | None = None

    def put(self, piece: bytes) -> None:
        """Writes a piece, at once when nothing is being written."""
        self._pending.append(piece)
        self.flush()

    def put_deferred(self, piece: bytes) -> None:
        """Takes a piece for the next flush."""
        self._pending.append(piece)

    def flush(self) -> None:
        """Begins to write what waits."""
        if self._task is None and self._pending:
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._pending:
                pending = self._pending
                frame = pending[0] if len(pending) == 1 else b"".join(pending)
                pending.clear()
                await self._context.write(frame)
        finally:
            self._task = None


class Room:
    """The streams of a conversation, and its count of messages."""

    __slots__ = ("_disk", "_name", "_prefix", "_queue", "_storing", "head", "streams")

    def __init__(self, name: str, disk: Disk | None) -> None:
        self.streams: list[Stream] = []
        self.head = 0
        self._name = name
        self._prefix = text(0x0A, name) + b"\x10"
        self._disk = disk
        self._queue: Batch = []
        self._storing = False

    def post(self, sender: Stream, command: bytes) -> None:
        """Takes a message."""
        self._queue.append((sender, command))
        if not self._storing:
            self._storing = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        if not self._queue:
            self._storing = False
            return
        batch, self._queue = self._queue, []
        results = []
        parts = []
        for sender, command in batch:
            self.head += 1
            results.append((sender, _result(command, self.head)))
            parts.append(self.entry(command[_MESSAGE_ID], self.head, command[_CONTENT]))
        body = b"".join(parts)
        if self._disk is None:
            self._told(results, body)
        else:
            self._disk.append((self._name, self.head, body), lambda: self._told(results, body))

    def _told(self, results: Batch, body: bytes) -> None:
        for sender, result in results:
            sender.put(result)
        if len(self.streams) > SMALL_ROOM:
            for stream in self.streams:
                stream.put_deferred(body)
            asyncio.get_running_loop().call_later(GATHER_S, self._flush)
        else:
            for stream in self.streams:
                stream.put(body)
        self._next()

    def _flush(self) -> None:
        for stream in self.streams:
            stream.flush()

    def entry(self, message_id: bytes, seq: int, content: bytes) -> bytes:
        """A message as an `events` element."""
        number = varint(seq)
        user = b"floor-user"
        entry = b"".join(
            (
                *(self._prefix, number, b"\x18", number, b"\x22\x24", message_id),
                *(b"\x2a", varint(len(user)), user, _TIME, b"\x42", content),
            )
        )
        return element(0x0A, b"\x0a" + varint(len(entry)) + entry)


class Disk:
    """Appends rows in a thread, as many in one transaction as wait."""

    def __init__(self, path: str, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: SimpleQueue[tuple[tuple[str, int, bytes], Callable[[], None]]] = SimpleQueue()
        self._db = apsw.Connection(path)
        self._db.pragma("journal_mode", "wal")
        self._db.pragma("synchronous", "full")
        self._db.execute(
            "CREATE TABLE page (room TEXT, seq INTEGER, body BLOB, UNIQUE (room, seq))"
        )
        Thread(target=self._run, daemon=True).start()

    def append(self, row: tuple[str, int, bytes], done: Callable[[], None]) -> None:
        """Appends a row; `done` is called in the event loop."""
        self._queue.put((row, done))

    def _run(self) -> None:
        queue = self._queue
        while True:
            work = [queue.get()]
            work.extend(queue.get_nowait() for _ in range(queue.qsize()))
            values = ",".join(["(?,?,?)"] * len(work))
            self._db.execute(
                f"INSERT INTO page VALUES {values}",  # noqa: S608  # only question marks
                [value for row, _ in work for value in row],
            )
            self._loop.call_soon_threadsafe(_call_all, [done for _, done in work])


def _call_all(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()


def _result(command: bytes, seq: int) -> bytes:
    sent = element(0x1A, b"\x08" + varint(seq) + _RESULT_TIME)
    return element(0x0A, element(0x12, command[_NUMBER] + sent))


def _commands(frame: bytes) -> list[bytes]:
    """The commands of a frame; acknowledgements are passed over."""
    found = []
    at = 0
    while at < len(frame):
        length, start = frame[at + 1], at + 2
        if length > 0x7F:
            length, start = length & 0x7F | frame[at + 2] << 7, at + 3
        if frame[at] == _COMMANDS:
            found.append(frame[at : start + length])
        at = start + length
    return found


def _backlog(room: Room, count: int) -> list[bytes]:
    """Frames with so many messages."""
    frames: list[bytes] = []
    parts: list[bytes] = []
    size = 0
    for seq in range(1, count + 1):
        content = element(0x0A, message_text("backlog", seq).encode())
        part = room.entry(
            f"{seq:08x}-0000-7000-8000-000000000000".encode(),
            seq,
            varint(len(content)) + content,
        )
        parts.append(part)
        size += len(part)
        if size >= BACKLOG_FRAME_BYTES or seq == count:
            frames.append(b"".join(parts))
            parts, size = [], 0
    return frames


async def serve(database: str | None, *, engine: bool) -> None:
    """Serves until it is ended."""
    loop = asyncio.get_running_loop()
    disk = Disk(database, loop) if database else None
    rooms: dict[str, Room] = {}
    backlogs: dict[int, list[bytes]] = {}
    welcome = chat_service_pb2.ChatResponse()
    welcome.events.add().welcome.incarnation = "floor"
    welcome.events.add().result.command_id = 1
    synced = chat_service_pb2.ChatResponse()
    synced.events.add().sync_complete.conversations = 1
    hello, level = welcome.SerializeToString(), synced.SerializeToString()

    async def chat(frames: AsyncIterator[bytes], context: Context) -> None:
        metadata = dict(context.invocation_metadata() or ())
        stream = Stream(context)
        name = str(metadata.get("room", ""))
        room = rooms.get(name)
        if room is None:
            room = rooms[name] = Room(name, disk)
        backlog = int(metadata.get("backlog", 0))
        greeted = False
        try:
            async for frame in frames:
                if not greeted:
                    greeted = True
                    if name:
                        room.streams.append(stream)
                    stream.put(hello)
                    if backlog:
                        if backlog not in backlogs:
                            backlogs[backlog] = _backlog(room, backlog)
                        for part in backlogs[backlog]:
                            stream.put(part)
                    stream.put(level)
                    continue
                for command in _commands(frame):
                    room.post(stream, command)
        finally:
            if stream in room.streams:
                room.streams.remove(stream)

    with one_wake_up() if engine else nullcontext():
        server = grpc.aio.server(options=OPTIONS)
        service, _, method = CHAT.strip("/").partition("/")
        handler: Any = grpc.stream_stream_rpc_method_handler(chat)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        gc.collect()
        gc.freeze()
        print(json.dumps({"event": "serving", "grpc_port": port}), file=sys.stderr, flush=True)
        await server.wait_for_termination()


@click.command()
@click.option("--engine", is_flag=True)
@click.option("--store", "database")
def main(*, engine: bool, database: str | None) -> None:
    """The entry point of the process."""
    sys.setswitchinterval(0.0005)
    uvloop.run(serve(database, engine=engine))


if __name__ == "__main__":
    main()
