"""A device: one Chat stream that resumes by itself, applies what comes in order, and sends what it is given.

It is lean so that hundreds fit into one process, and shares nothing with the SDK: each checks the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import Any, Final

import grpc
import grpc.aio

from tidings.v1 import chat_service_pb2, error_pb2, event_pb2

from .api import Api
from .lane import Lane, Send
from .ledger import Run
from .records import Records
from .script import Row
from .world import World

_CHAT: Final = "/tidings.v1.ChatService/Chat"
_WINDOW: Final = 2048
_ACK_AFTER_S: Final = 0.5
_MARK_READ_EVERY: Final = 400
_MOST_CURSORS: Final = 10_000
_COMMANDS_AT_ONCE: Final = 200
_FETCHES_AT_ONCE: Final = 4
_FAREWELL_S: Final = 2.0
_AGAIN: Final = frozenset(
    {
        error_pb2.ERROR_REASON_OUTCOME_UNKNOWN,
        error_pb2.ERROR_REASON_STORE_UNAVAILABLE,
        error_pb2.ERROR_REASON_DRAINING,
        error_pb2.ERROR_REASON_PREDECESSOR_MISSING,
        error_pb2.ERROR_REASON_TOO_MANY_IN_FLIGHT,
    }
)


class Device:
    """One device of a user, connected from `start` to `stop`.

    `records` is what it has applied. One that comes without having seen the beginning gets a gap where much was missed;
    with an Api to fetch by it then fetches that from history.
    """

    def __init__(
        self,
        world: World,
        user: str,
        name: str,
        *,
        catch_up_limit: int = 10_000,
        fetches: Api | None,
    ) -> None:
        self.user = user
        self.name = name
        self.connected = False
        self.records = Records(f"{user}/{name}", world.ledger, world.findings)
        self.lanes: dict[str, Lane] = {}
        self.last_used = 0.0
        self._world = world
        self._catch_up_limit = catch_up_limit
        self._api = fetches
        self._incarnation = ""
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._call: Any = None
        self._since = 0.0
        self._moving = False
        self._left = 0.0
        self._channel: Any = None
        self._writing: asyncio.Task[None] | None = None
        self._commands: dict[int, Send | tuple[str, int]] = {}
        self._next_command = 1
        self._hello: bytes | None = None
        self._unacked: dict[str, int] = {}
        self._unacked_entries = 0
        self._ack_timer: asyncio.TimerHandle | None = None
        self._acks_due = False
        self._marks: dict[str, int] = {}
        self._marks_due: dict[str, int] = {}
        self._lane_timer: asyncio.TimerHandle | None = None
        # Logs that the last hello named: of these nothing may come again.
        self._named: set[str] | None = set()
        self._fetching: set[asyncio.Task[None]] = set()
        self._fetch_slots = asyncio.Semaphore(_FETCHES_AT_ONCE)

    # What the player does with it

    def start(self) -> None:
        """Begins to connect."""
        self._closing = False
        self._left = 0.0
        self._task = asyncio.get_running_loop().create_task(self._run())

    def post(self, row: Row) -> None:
        """Sends a message, once all before it to the same conversation are on their way."""
        world = self._world
        message_id = world.new_id()
        world.board.name(row, message_id)
        conversation = row.conversation.id
        lane = self.lanes.get(conversation)
        if lane is None:
            lane = self.lanes[conversation] = Lane(conversation)
        lane.queue.append(Send(row, message_id, world.board.reply_id(row)))
        self._flush()

    @property
    def busy(self) -> bool:
        """Whether it has sends that are not acknowledged."""
        return bool(self.lanes)

    @property
    def fetching(self) -> bool:
        """Whether it is fetching what a gap left out."""
        return bool(self._fetching)

    def move(self, since: float) -> None:
        """Connects again if it has connected since a moment: to its own server, which may have been away then."""
        if self._since >= since:
            self._leave(self._call)

    def _leave(self, call: Any) -> None:
        """Ends a call, if it is still the one, to connect again."""
        if call is not None and call is self._call:
            self._moving = True
            call.cancel()

    async def stop(self) -> None:
        """Acknowledges what was applied and leaves."""
        self._closing = True
        call = self._call
        if self.connected:
            self._acks_due = True
            self._flush()
            if self._writing is not None:
                await asyncio.wait([self._writing])
            with contextlib.suppress(
                TimeoutError, grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError
            ):
                async with asyncio.timeout(_FAREWELL_S):
                    await call.done_writing()
                    await call.code()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for task in self._fetching:
            task.cancel()

    # The connection

    async def _run(self) -> None:
        rng = self._world.rng
        attempt = 0
        while not self._closing:
            try:
                if await self._connection():
                    attempt = 0
            except Exception as problem:  # noqa: BLE001
                self._world.findings.add("fault", f"{self.records.device}: {problem!r}")
            finally:
                await self._disconnected()
            attempt += 1
            await asyncio.sleep(rng.random() * min(1.0, 0.05 * 2**attempt))

    async def _connection(self) -> bool:
        """One stream from hello to its end; returns whether the device was level in it."""
        world = self._world
        world.tally.connects += 1
        self._channel = world.channel(self.user)
        self._since = asyncio.get_running_loop().time()
        call = self._call = self._channel.stream_stream(_CHAT)(
            metadata=world.metadata(self.user, self.name)
        )
        self._hello = self._make_hello()
        self._flush()
        read = call.read
        try:
            while (frame := await read()) is not grpc.aio.EOF:
                self._take(frame)
        except grpc.aio.AioRpcError:
            pass
        except asyncio.CancelledError:
            # The end of a call that was cancelled looks like that of the task.
            if not self._moving:
                raise
        self._moving = False
        was_level, self.connected = self.connected, False
        if was_level:
            self._left = asyncio.get_running_loop().time()
        if was_level and not self._closing:
            world.tally.lost_sessions += 1
        return was_level

    async def _disconnected(self) -> None:
        self.connected = False
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        if self._channel is not None:
            await self._channel.close()
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        for timer in (self._ack_timer, self._lane_timer):
            if timer is not None:
                timer.cancel()
        self._ack_timer = self._lane_timer = None
        self._acks_due = False
        self._unacked.clear()
        self._unacked_entries = 0
        self._commands.clear()
        for lane in self.lanes.values():
            lane.rewind(0.0)

    def _make_hello(self) -> bytes:
        logs = self.records.logs
        names = list(logs)
        if len(names) > _MOST_CURSORS:
            names = names[-_MOST_CURSORS:]
            self._named = set(names)
        else:
            self._named = None
        hello = chat_service_pb2.Hello(
            incarnation=self._incarnation,
            window=_WINDOW,
            catch_up_limit=self._catch_up_limit,
            client="tidings-replay",
        )
        for name in names:
            hello.cursors.add(conversation_id=name, seq=logs[name].seq)
        command = chat_service_pb2.Command(command_id=0, hello=hello)
        return chat_service_pb2.ChatRequest(commands=[command]).SerializeToString()

    # Reading

    def _take(self, frame: bytes) -> None:
        for item in self._world.ledger.read(frame):
            if isinstance(item, Run):
                self._take_run(item)
            else:
                self._take_event(item)
        if self._unacked_entries >= _WINDOW // 4:
            self._acks_due = True
            self._flush()
        elif self._unacked and self._ack_timer is None:
            loop = asyncio.get_running_loop()
            self._ack_timer = loop.call_later(_ACK_AFTER_S, self._ack_now)

    def _take_run(self, run: Run) -> None:
        again = self._named is not None and run.log not in self._named
        self.records.take(run, again=again)
        self._unacked[run.log] = run.last
        self._unacked_entries += run.last - run.first + 1
        marked = self._marks.setdefault(run.log, 0)
        if run.last - marked >= _MARK_READ_EVERY and not run.log.startswith("inbox:"):
            self._marks[run.log] = self._marks_due[run.log] = run.last

    def _take_event(self, event: event_pb2.Event) -> None:
        kind = event.WhichOneof("event")
        match kind:
            case "result":
                self._result(event.result)
            case "welcome":
                self._incarnation = event.welcome.incarnation
            case "skipped":
                self._skipped(event.skipped)
            case "gap":
                self._gap(event.gap)
            case "sync_complete":
                self.connected = True
                if self._left:
                    away = asyncio.get_running_loop().time() - self._left
                    world = self._world
                    world.tally.longest_away_s = max(world.tally.longest_away_s, away)
                self._flush()
            case "beacon":
                self._beacon(event.beacon)
            case "going_away":
                delay_s = event.going_away.reconnect_delay_ms / 1000
                asyncio.get_running_loop().call_later(delay_s, self._leave, self._call)
            case "session_ended":
                ended = event.session_ended
                if not ended.reconnect:
                    self._world.findings.add(
                        "fault", f"{self.records.device}: session ended: {ended.error.message}"
                    )
            case _:
                pass

    def _told_again(self, log: str, last: int) -> bool:
        """Whether the server tells of positions that the device has dealt with, since hello could not name the log."""
        return (
            self._named is not None and log not in self._named and last <= self.records.log(log).seq
        )

    def _skipped(self, skipped: event_pb2.Skipped) -> None:
        log, first, last = skipped.conversation_id, skipped.from_seq, skipped.to_seq
        if not self._told_again(log, last):
            self.records.skip(log, first, last)
        self._unacked[log] = last

    def _gap(self, gap: event_pb2.Gap) -> None:
        log, first, last = gap.conversation_id, gap.from_seq, gap.to_seq
        if self._told_again(log, last):
            self._unacked[log] = last
            return
        self._world.tally.gaps_announced += 1
        self.records.gap(log, first, last)
        self._unacked[log] = last
        if self._api is not None:
            task = asyncio.get_running_loop().create_task(self._fetch(self._api, log, first, last))
            self._fetching.add(task)
            task.add_done_callback(self._fetching.discard)

    async def _fetch(self, api: Api, log: str, first: int, last: int) -> None:
        runs: list[Run] = []
        async with self._fetch_slots:
            async for elements in api.history(self.user, log, first=first, last=last):
                runs += [i for i in self._world.ledger.items(elements) if isinstance(i, Run)]
        if self.records.fill(log, first, last, runs):
            self._world.tally.gaps_fetched += 1

    def _beacon(self, beacon: event_pb2.Beacon) -> None:
        if not beacon.level or not self.connected:
            return
        self._world.tally.beacons_compared += 1
        digest = logs = 0
        for name, record in self.records.logs.items():
            if record.seq:
                logs += 1
                raw = hashlib.sha256(f"{name}:{record.seq}".encode()).digest()
                digest += int.from_bytes(raw[:8], "big")
        if (digest & 0xFFFF_FFFF_FFFF_FFFF, logs) != (beacon.digest, beacon.conversations):
            self._world.findings.add(
                "beacon",
                f"{self.records.device}: {logs} logs, {beacon.conversations} in the beacon",
            )

    def _result(self, result: event_pb2.CommandResult) -> None:
        what = self._commands.pop(result.command_id, None)
        failed = result.HasField("error")
        if isinstance(what, Send):
            if failed:
                self._refused(what, result.error)
            else:
                self._world.board.ack(what.row, result.send_message.seq)
                self._settled(what)
        elif what is not None:
            self._marked(*what, result)
        elif result.command_id == 0 and failed and result.error.reason not in _AGAIN:
            self._world.findings.add("refused", f"{self.records.device}: hello: {result.error}")
        elif result.command_id == 0 and result.hello.refused_cursors:
            refusal = result.hello.refused_cursors[0]
            self._world.findings.add(
                "refused", f"{self.records.device}: cursor of {refusal.conversation_id}"
            )

    def _marked(self, log: str, seq: int, result: event_pb2.CommandResult) -> None:
        if result.HasField("error"):
            self._marks_due.setdefault(log, seq)
            return
        mark = self._world.reads[self.user, log]
        mark[1] = max(mark[1], result.mark_read.read_seq)
        if result.mark_read.read_seq < seq:
            self._world.findings.add(
                "unread",
                f"{self.records.device}: {log} marked {seq}, is {result.mark_read.read_seq}",
            )

    def _refused(self, send: Send, error: error_pb2.Error) -> None:
        lane = self.lanes.get(send.row.conversation.id)
        if lane is None or send.done:
            return
        if error.reason in _AGAIN:
            loop = asyncio.get_running_loop()
            delay = 0.02 + self._world.rng.random() * min(1.0, 0.05 * 2 ** min(send.tries, 6))
            lane.rewind(loop.time() + delay)
            if self._lane_timer is None:
                self._lane_timer = loop.call_later(delay + 0.001, self._lane_woken)
            return
        self._world.board.fail(send.row, f"{error.message} ({error.reason})")
        self._settled(send)

    def _settled(self, send: Send) -> None:
        conversation = send.row.conversation.id
        lane = self.lanes.get(conversation)
        if lane is not None:
            lane.acknowledged(send)
            if not lane.queue:
                del self.lanes[conversation]

    # Writing

    def _ack_now(self) -> None:
        self._ack_timer = None
        self._acks_due = True
        self._flush()

    def _lane_woken(self) -> None:
        self._lane_timer = None
        self._flush()
        now = asyncio.get_running_loop().time()
        waits = [lane.not_before - now for lane in self.lanes.values() if lane.not_before > now]
        if waits and self._lane_timer is None:
            loop = asyncio.get_running_loop()
            self._lane_timer = loop.call_later(min(waits) + 0.001, self._lane_woken)

    def _flush(self) -> None:
        if self._writing is None and self._call is not None:
            frame = self._next_frame()
            if frame:
                self._writing = asyncio.get_running_loop().create_task(
                    self._write(self._call, frame)
                )

    async def _write(self, call: Any, frame: bytes) -> None:
        try:
            while frame and call is self._call:
                await call.write(frame)
                frame = self._next_frame()
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            # The reader learns of it too.
            return
        finally:
            if call is self._call:
                self._writing = None

    def _next_frame(self) -> bytes:
        if self._hello is not None:
            hello, self._hello = self._hello, None
            return hello
        request = chat_service_pb2.ChatRequest()
        if self.connected:
            self._add_sends(request)
            self._add_marks(request)
        if self._acks_due:
            self._acks_due = False
            self._unacked_entries = 0
            for log, seq in self._unacked.items():
                request.acks.add(conversation_id=log, seq=seq)
            self._unacked.clear()
            if self._ack_timer is not None:
                self._ack_timer.cancel()
                self._ack_timer = None
        return request.SerializeToString()

    def _add_sends(self, request: chat_service_pb2.ChatRequest) -> None:
        now = asyncio.get_running_loop().time()
        for lane in self.lanes.values():
            while len(request.commands) < _COMMANDS_AT_ONCE and (send := lane.next(now)):
                if send.done:
                    continue
                if send.tries:
                    self._world.tally.resent += 1
                request.commands.append(lane.command(send, self._number(send)))

    def _add_marks(self, request: chat_service_pb2.ChatRequest) -> None:
        for log, seq in self._marks_due.items():
            mark = self._world.reads.setdefault((self.user, log), [0, 0])
            mark[0] = max(mark[0], seq)
            self._world.tally.read_marks += 1
            command = request.commands.add(command_id=self._number((log, seq)))
            command.mark_read.conversation_id = log
            command.mark_read.seq = seq
        self._marks_due.clear()

    def _number(self, what: Send | tuple[str, int]) -> int:
        number = self._next_command
        self._next_command += 1
        self._commands[number] = what
        return number
