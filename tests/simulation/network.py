"""The network between devices and servers: ordered streams that are slow, stall and break, and calls that get lost.

What is under way belongs to the network, not to the processes at its ends: it arrives, or doesn't, whoever dies.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from tidings import ConnectionLost, EndOfStream
from tidings._grpc import _end_of, error_of_call
from tidings.errors import Code, error_for

from .loop import Process, SimFuture, SimLoop

MTU_DELAY_S = 0.0002


class Broken(Exception):
    """This end of a stream knows that it is over."""


@dataclass(frozen=True, slots=True)
class Status:
    """How the server ended a stream or a call: a gRPC status."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""
    trailers: tuple[tuple[str, bytes], ...] = ()

    def rpc_error(self) -> grpc.aio.AioRpcError:
        """As grpc tells a client of it."""
        return grpc.aio.AioRpcError(
            self.code, grpc.aio.Metadata(), grpc.aio.Metadata(*self.trailers), self.details
        )


class Pipe:
    """One direction of a stream. Frames arrive in order, after a delay; `capacity` bytes may be unread."""

    def __init__(self, network: Network, capacity: int) -> None:
        self._network = network
        self._loop = network.loop
        self._capacity = capacity
        self._flying: deque[bytes | Status] = deque()
        self._arrived: deque[bytes | Status] = deque()
        self._unread = 0
        self._last = 0.0
        self._reader: SimFuture | None = None
        self._writers: deque[SimFuture] = deque()
        self._reader_knows = False
        self._writer_knows = False
        self._cut = False
        self._ended = False

    async def send(self, frame: bytes) -> None:
        """Hands a frame over, waiting while too much is unread. Raises Broken."""
        while self._unread >= self._capacity and not self._writer_knows:
            waiter = self._loop.create_future()
            self._writers.append(waiter)
            await waiter
        if self._writer_knows or self._ended:
            raise Broken
        self._unread += len(frame) + 1
        self._put(frame)

    def end(self, status: Status) -> None:
        """The last that goes through: how it ended."""
        if not self._ended:
            self._ended = True
            self._put(status)

    async def receive(self) -> bytes | Status:
        """The next that arrives. Raises Broken."""
        while not self._arrived:
            if self._reader_knows:
                raise Broken
            self._reader = self._loop.create_future()
            await self._reader
        item = self._arrived.popleft()
        if isinstance(item, bytes):
            self._unread -= len(item) + 1
            self._wake_writers()
        return item

    def stall(self, until: float) -> None:
        """Nothing that is sent from now on arrives before a moment."""
        self._last = max(self._last, until)

    def cut(self, keep: int) -> None:
        """The wire is cut: of what is under way only the first `keep` frames arrive."""
        self._cut = True
        while len(self._flying) > keep:
            self._flying.pop()

    def break_reader(self) -> None:
        """The reading end notices that the stream is over."""
        self._reader_knows = True
        self._wake_reader()

    def break_writer(self) -> None:
        """The writing end notices that the stream is over."""
        self._writer_knows = True
        self._wake_writers()

    @property
    def flying(self) -> int:
        """How many frames are under way."""
        return len(self._flying)

    def _put(self, item: bytes | Status) -> None:
        if self._cut:
            return
        self._last = max(self._loop.time() + self._network.delay(), self._last)
        self._flying.append(item)
        # Whichever timer fires, what was sent first arrives first.
        self._loop.later(self._last - self._loop.time(), self._arrive)

    def _arrive(self) -> None:
        if self._flying:
            self._arrived.append(self._flying.popleft())
            self._wake_reader()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _wake_writers(self) -> None:
        while self._writers:
            waiter = self._writers.popleft()
            if not waiter.done():
                waiter.set_result(None)
                if not self._writer_knows:
                    return


class StreamWatch(Protocol):
    """Sees what goes over one stream."""

    def to_server(self, frame: bytes) -> None:
        """The device hands a frame over."""

    def to_device(self, frame: bytes) -> None:
        """The server hands a frame over."""


class Link:
    """One Chat stream: the device's end and the server's."""

    def __init__(
        self, network: Network, device: Process, server: Process, watch: StreamWatch
    ) -> None:
        self.network = network
        self.device = device
        self.server = server
        self.watch = watch
        self.up = Pipe(network, network.capacity)
        self.down = Pipe(network, network.capacity)
        self.whole = True
        """Whether both ends could still talk: not cut, and neither process dead."""
        self.handler: asyncio.Task[None] | None = None

    def cut(self, device_after: float | None, server_after: float | None) -> None:
        """Cuts the wire; each end notices after some seconds, or with None only by its own means."""
        if not self.whole:
            return
        self.whole = False
        rng, loop = self.network.rng, self.network.loop
        self.network.links.pop(self, None)
        for pipe in (self.up, self.down):
            pipe.cut(rng.randint(0, pipe.flying))
        if device_after is not None:
            loop.later(device_after, self._device_notices)
        if server_after is not None:
            loop.later(server_after, self._server_notices)

    def _device_notices(self) -> None:
        self.down.break_reader()
        self.up.break_writer()

    def _server_notices(self) -> None:
        self.up.break_reader()
        self.down.break_writer()
        # grpc cancels the handler of a stream that is gone.
        if self.handler is not None and self.server.alive:
            self.handler.cancel()

    def closed_by_device(self) -> None:
        """The device has let go of the stream: what it sent arrives, then its end."""
        self._device_notices()
        if self.whole:
            self.up.end(Status(grpc.StatusCode.CANCELLED))

    def ended(self, status: Status) -> None:
        """The server's handler has returned."""
        self.down.end(status)
        self.up.break_writer()
        self.network.links.pop(self, None)


class DeviceEnd:
    """The device's end of a stream, as the SDK's transport port has it."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def send(self, frame: bytes) -> None:
        """See `tidings.Connection`."""
        try:
            self._link.watch.to_server(frame)
            await self._link.up.send(frame)
        except Broken:
            raise ConnectionLost("the stream is over") from None

    async def receive(self) -> bytes:
        """See `tidings.Connection`."""
        try:
            item = await self._link.down.receive()
        except Broken:
            raise ConnectionLost("the connection broke") from None
        if isinstance(item, bytes):
            return item
        if item.code is grpc.StatusCode.OK:
            raise EndOfStream
        problem = item.rpc_error()
        raise _end_of(error_of_call(problem)) from problem

    async def close(self, *, graceful: bool) -> None:
        """See `tidings.Connection`."""
        if graceful and self._link.whole:
            self._link.up.end(Status())
            try:
                async with asyncio.timeout(1.0):
                    while isinstance(await self._link.down.receive(), bytes):
                        pass
            except (Broken, TimeoutError):
                pass
        self._link.closed_by_device()


class ServerContext:
    """The server's end of a stream or call: the part of `grpc.aio.ServicerContext` that the servicers use."""

    def __init__(self, token: str, link: Link | None = None) -> None:
        self._token = token
        self._link = link
        self.status = Status()
        self._callbacks: list[Callable[[ServerContext], object]] = []

    def add_done_callback(self, callback: Callable[[ServerContext], object]) -> None:
        """See grpc."""
        self._callbacks.append(callback)

    def done(self) -> None:
        """The call is over."""
        for callback in self._callbacks:
            callback(self)

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """See grpc."""
        return (("authorization", f"Bearer {self._token}"),)

    async def write(self, frame: bytes) -> None:
        """See grpc."""
        assert self._link is not None
        self._link.watch.to_device(frame)
        await self._link.down.send(frame)

    async def abort(
        self, code: grpc.StatusCode, details: str, trailers: tuple[tuple[str, bytes], ...]
    ) -> None:
        """See grpc."""
        self.status = Status(code, details, trailers)
        raise Aborted

    def set_code(self, code: grpc.StatusCode) -> None:
        """See grpc."""
        self.status = Status(code, self.status.details, self.status.trailers)

    def set_details(self, details: str) -> None:
        """See grpc."""
        self.status = Status(self.status.code, details, self.status.trailers)

    def set_trailing_metadata(self, trailers: tuple[tuple[str, bytes], ...]) -> None:
        """See grpc."""
        self.status = Status(self.status.code, self.status.details, trailers)


class Aborted(Exception):
    """The servicer has ended a call."""


async def frames_of(link: Link) -> AsyncIterator[bytes]:
    """The frames from a device, as grpc gives them to a servicer. A broken stream cancels the servicer instead."""
    while True:
        try:
            item = await link.up.receive()
        except Broken:
            await asyncio.get_running_loop().create_future()
            continue
        if isinstance(item, Status):
            if item.code is not grpc.StatusCode.OK and link.handler is not None:
                # The device gave the stream up: grpc cancels the servicer.
                link.handler.cancel()
                await asyncio.get_running_loop().create_future()
            return
        yield item


@dataclass(slots=True)
class Weather:
    """What the network does to connections and calls. Times in seconds, the rest are probabilities."""

    delay: float = 0.02
    refuse: float = 0.0
    lose_request: float = 0.0
    lose_answer: float = 0.0
    duplicate: float = 0.0


class Endpoint(Protocol):
    """Where a connection leads to: a server that runs now."""

    @property
    def process(self) -> Process | None:
        """The process that listens, or None."""

    def accept(self, link: Link, token: str) -> None:
        """Begins to serve a stream."""

    def serve(
        self, method: str, request: bytes, token: str, answer: Callable[[bytes | Status], None]
    ) -> None:
        """Begins a call."""


class CallWatch(Protocol):
    """Sees the unary calls of one device."""

    def called(self, method: str, request: bytes, copies: int) -> int:
        """A call was made, and so many copies of it travel; returns its number."""

    def served(self, number: int, answer: bytes | Status) -> None:
        """The server has answered it, whether or not that arrives. Of a doubled request, each time."""


class Network:
    """All wires of a simulation, and the weather."""

    def __init__(
        self,
        loop: SimLoop,
        rng: random.Random,
        endpoints: Sequence[Endpoint],
        *,
        capacity: int = 64 * 1024,
    ) -> None:
        self.loop = loop
        self.rng = rng
        self.endpoints = endpoints
        self.capacity = capacity
        self.weather = Weather()
        self.links: dict[Link, None] = {}
        self._calls: dict[SimFuture, Process] = {}

    def delay(self) -> float:
        """How long the next frame is under way."""
        return MTU_DELAY_S + self.rng.random() * self.weather.delay

    def _pick(self) -> tuple[Endpoint, Process] | None:
        """One of the servers that listen, as a load balancer chooses it."""
        up = [(e, e.process) for e in self.endpoints if e.process is not None]
        if not up:
            return None
        return up[0] if len(up) == 1 else self.rng.choice(up)

    async def connect(self, device: Process, token: str, watch: StreamWatch) -> DeviceEnd:
        """Opens a stream. Raises ConnectionLost."""
        await asyncio.sleep(self.delay())
        picked = self._pick()
        if picked is None or self.rng.random() < self.weather.refuse:
            raise ConnectionLost("the connection was refused")
        endpoint, server = picked
        link = Link(self, device, server, watch)
        self.links[link] = None
        endpoint.accept(link, token)
        return DeviceEnd(link)

    async def call(
        self, method: str, request: bytes, token: str, timeout: float, watch: CallWatch
    ) -> bytes:
        """Carries out a call. Raises TidingsError."""
        rng, weather = self.rng, self.weather
        lost = rng.random() < weather.lose_request
        answer_lost = rng.random() < weather.lose_answer
        copies = 2 if rng.random() < weather.duplicate else 1
        number = watch.called(method, request, copies)
        answers: SimFuture = self.loop.create_future()

        def answered(answer: bytes | Status) -> None:
            watch.served(number, answer)
            if not answer_lost:
                self.loop.later(self.delay(), _settle, answers, answer)

        def arrive() -> None:
            picked = self._pick()
            if picked is None:
                self.loop.later(self.delay(), _settle, answers, None)
                return
            endpoint, self._calls[answers] = picked
            endpoint.serve(method, request, token, answered)

        if not lost:
            self.loop.later(self.delay(), arrive)
            if copies > 1:
                self.loop.later(self.delay() * rng.choice((1, 5, 50)), arrive)
        try:
            async with asyncio.timeout(min(timeout, 5.0 if lost or answer_lost else timeout)):
                answer = await answers
        except TimeoutError:
            if lost or answer_lost:
                raise ConnectionLost("the connection broke") from None
            raise error_for(Code.DEADLINE_EXCEEDED, "no answer in time") from None
        finally:
            self._calls.pop(answers, None)
        if answer is None:
            raise ConnectionLost("the connection broke")
        if isinstance(answer, Status):
            problem = answer.rpc_error()
            raise error_of_call(problem) from problem
        result: bytes = answer
        return result

    def server_died(self, process: Process) -> None:
        """A server's process is gone: its connections are reset, sooner or later."""
        for link in [link for link in self.links if link.server is process]:
            silent = self.rng.random() < 0.1
            link.cut(self.rng.uniform(20, 40) if silent else self.rng.random() * 0.2, None)
        for future, server in list(self._calls.items()):
            if server is process:
                self.loop.later(self.rng.random() * 0.2, _settle, future, None)

    def device_died(self, process: Process) -> None:
        """A device's process is gone: its connections end, or for a while nobody notices."""
        for link in [link for link in self.links if link.device is process]:
            silent = self.rng.random() < 0.3
            link.cut(None, self.rng.uniform(1, 40) if silent else self.rng.random() * 0.2)

    def calm(self) -> None:
        """From now on nothing is refused, lost or doubled."""
        self.weather = Weather(delay=self.weather.delay)


def _settle(future: SimFuture, answer: Any) -> None:
    if not future.done():
        future.set_result(answer)
