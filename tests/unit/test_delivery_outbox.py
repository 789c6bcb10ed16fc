"""The outbox: one write at a time, as one frame of all that waits, and bounded memory."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.world import settled
from tidings_server.delivery.outbox import MAX_FRAME_BYTES, Outbox
from tidings_server.telemetry.counters import Counters

pytestmark = pytest.mark.virtual_time


class Wire:
    """A transport that takes a frame when the test says so."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.writing: asyncio.Future[None] | None = None
        self.writes = 0

    async def write(self, frame: bytes) -> None:
        assert self.writing is None, "one write at a time"
        self.writes += 1
        self.writing = asyncio.get_running_loop().create_future()
        try:
            await self.writing
        finally:
            self.writing = None
        self.frames.append(frame)

    async def take(self) -> None:
        await settled()
        assert self.writing is not None
        self.writing.set_result(None)
        await settled()

    async def cut(self) -> None:
        await settled()
        assert self.writing is not None
        self.writing.set_exception(ConnectionError("gone"))
        await settled()


class Box:
    def __init__(self, max_bytes: int = 100) -> None:
        self.wire = Wire()
        self.counters = Counters()
        self.emptied = self.lost = 0
        self.outbox = Outbox(self.wire, max_bytes, self.counters, self._emptied, self._lost)

    def _emptied(self) -> None:
        self.emptied += 1

    def _lost(self) -> None:
        self.lost += 1


@pytest.fixture
def box() -> Box:
    return Box()


async def test_a_piece_is_written_at_once(box: Box) -> None:
    box.outbox.put(b"one")
    await box.wire.take()
    assert box.wire.frames == [b"one"]
    assert box.emptied == 1


async def test_what_waits_during_a_write_is_one_frame(box: Box) -> None:
    box.outbox.put(b"one")
    await settled()
    for piece in (b"two", b"three", b"four"):
        box.outbox.put(piece)
    await box.wire.take()
    await box.wire.take()
    assert box.wire.frames == [b"one", b"twothreefour"]
    assert (box.wire.writes, box.emptied) == (2, 1)
    assert (box.counters.frames_out, box.counters.frame_bytes_out) == (2, 15)


async def test_pieces_of_one_moment_are_one_frame(box: Box) -> None:
    for piece in (b"one", b"two", b"three"):
        box.outbox.put(piece)
    await box.wire.take()
    assert box.wire.frames == [b"onetwothree"]


async def test_a_deferred_piece_waits_to_be_flushed(box: Box) -> None:
    box.outbox.put_deferred(b"one")
    await settled()
    assert box.wire.writes == 0
    box.outbox.put_deferred(b"two")
    box.outbox.flush()
    box.outbox.flush()
    await box.wire.take()
    assert box.wire.frames == [b"onetwo"]


async def test_a_deferred_piece_goes_with_a_write_under_way(box: Box) -> None:
    box.outbox.put(b"one")
    await settled()
    box.outbox.put_deferred(b"two")
    await box.wire.take()
    await box.wire.take()
    assert box.wire.frames == [b"one", b"two"]


async def test_bytes_count_until_the_transport_has_them(box: Box) -> None:
    box.outbox.put(b"x" * 60)
    await settled()
    assert (box.outbox.bytes, box.counters.outbox_bytes) == (60, 60)
    assert box.outbox.room(40)
    assert not box.outbox.room(41)
    await box.wire.take()
    assert (box.outbox.bytes, box.counters.outbox_bytes) == (0, 0)
    assert box.outbox.room(41)


async def test_a_piece_larger_than_the_outbox_finds_room_in_an_empty_one(box: Box) -> None:
    assert box.outbox.room(1000)
    box.outbox.put(b"x" * 1000)
    assert not box.outbox.room(1)
    await box.wire.take()
    assert len(box.wire.frames[0]) == 1000


async def test_congestion_is_relieved_by_reading(box: Box) -> None:
    box.outbox.put(b"x" * 90)
    await settled()
    congested = box.outbox.congested
    await box.outbox.relieved()
    box.outbox.put(b"y" * 90)
    assert (congested, box.outbox.congested) == (False, True)
    waiting = asyncio.get_running_loop().create_task(box.outbox.relieved())
    await settled()
    assert not waiting.done()
    await box.wire.take()
    assert waiting.done()
    await box.wire.take()


async def test_a_frame_is_no_larger_than_clients_take() -> None:
    """A client of gRPC takes 4 MiB unless it is told otherwise."""
    box = Box(max_bytes=1 << 20)
    pieces = [bytes([i]) * 300_000 for i in range(20)]
    for piece in pieces:
        box.outbox.put(piece)
    while box.outbox.bytes:
        await box.wire.take()
    assert b"".join(box.wire.frames) == b"".join(pieces)
    assert max(map(len, box.wire.frames)) <= MAX_FRAME_BYTES
    assert len(box.wire.frames) < len(pieces)
    assert box.counters.outbox_bytes == 0


async def test_one_piece_that_is_larger_goes_alone() -> None:
    box = Box(max_bytes=1 << 20)
    pieces = [b"a", b"b" * (MAX_FRAME_BYTES + 1), b"c"]
    for piece in pieces:
        box.outbox.put(piece)
    for _ in pieces:
        await box.wire.take()
    assert box.wire.frames == pieces


async def test_a_device_that_is_gone(box: Box) -> None:
    box.outbox.put(b"one")
    await settled()
    box.outbox.put(b"two")
    waiting = asyncio.get_running_loop().create_task(box.outbox.finish())
    await box.wire.cut()
    assert (box.lost, box.emptied) == (1, 0)
    assert box.outbox.closed
    assert (box.outbox.bytes, box.counters.outbox_bytes) == (0, 0)
    assert waiting.done()
    box.outbox.put(b"three")
    box.outbox.flush()
    await settled()
    assert box.wire.writes == 1
    assert box.outbox.bytes == 0


async def test_closing_drops_what_waits(box: Box) -> None:
    box.outbox.put(b"x" * 80)
    await settled()
    box.outbox.put(b"y" * 80)
    relief = asyncio.get_running_loop().create_task(box.outbox.relieved())
    await settled()
    box.outbox.close()
    await settled()
    assert relief.done()
    assert box.wire.writing is None
    assert (box.outbox.bytes, box.counters.outbox_bytes, box.lost) == (0, 0, 0)
    await box.outbox.finish()


async def test_finishing_waits_for_everything(box: Box) -> None:
    await box.outbox.finish()
    box.outbox.put(b"one")
    await settled()
    box.outbox.put(b"two")
    finishing = asyncio.get_running_loop().create_task(box.outbox.finish())
    await box.wire.take()
    assert not finishing.done()
    await box.wire.take()
    assert finishing.done()


async def test_what_is_put_once_everything_is_written_is_written_too() -> None:
    """`emptied` goes on with catching up."""
    wire = Wire()
    left = [b"two", b"three"]

    def more() -> None:
        if left:
            outbox.put(left.pop(0))

    outbox = Outbox(wire, 100, Counters(), more, lambda: None)
    outbox.put(b"one")
    for _ in range(3):
        await wire.take()
    assert wire.frames == [b"one", b"two", b"three"]


async def test_nothing_follows_the_last_word(box: Box) -> None:
    box.outbox.put(b"one")
    box.outbox.put_last(b"last")
    box.outbox.put(b"more")
    box.outbox.put_deferred(b"more")
    box.outbox.flush()
    await box.wire.take()
    assert box.wire.frames == [b"onelast"]
    assert box.outbox.bytes == 0
    assert not box.outbox.closed
