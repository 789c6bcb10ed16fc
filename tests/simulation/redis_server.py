"""A Redis of the simulation: as much of one as the bus and the leases use, over connections of the simulated network.

What speaks to it is the server's own code down to its bytes. It may be killed and come back with or without what it
held, stand still, be flushed, and its clock may be set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import hiredis

from tidings_server.presence import redis as leases_in_redis

from .clock import SimClock
from .loop import Process, SimLoop
from .socket import Peer, SimSocket


class _Error(Exception):
    """What is answered with an error."""


@dataclass(frozen=True, slots=True)
class Push:
    """An answer that is no reply to a command."""

    parts: tuple[bytes | int, ...]


@dataclass(slots=True)
class _Data:
    """What is held, and until when by the clock, in ms."""

    keys: dict[bytes, Any] = field(default_factory=dict)
    ends: dict[bytes, int] = field(default_factory=dict)

    def copy(self) -> _Data:
        return _Data({key: value.copy() for key, value in self.keys.items()}, dict(self.ends))


class _Client(Peer):
    """The server's side of one connection."""

    def __init__(self, server: SimRedis, socket: SimSocket) -> None:
        self.channels: dict[bytes, None] = {}
        self._server = server
        self._socket = socket
        self._reader = hiredis.Reader()
        self._waiting: list[bytes] = []

    def received(self, data: bytes) -> None:
        """See `Peer`."""
        if self._server.still:
            self._waiting.append(data)
            return
        self._reader.feed(data)
        answers: list[bytes] = []
        while (command := self._reader.gets()) is not False:
            answers.extend(_encoded(answer) for answer in self._server.carry_out(command, self))
        self.send(b"".join(answers))

    def send(self, data: bytes) -> None:
        """Sends what is encoded."""
        if data:
            self._socket.send_back(data)

    def closed(self) -> None:
        """See `Peer`."""
        self._server.clients.pop(self, None)

    def go_on(self) -> None:
        """The server does not stand still any more."""
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self.received(data)


class SimRedis:
    """The server. `delay` gives the seconds that a packet is under way."""

    def __init__(self, loop: SimLoop, clock: SimClock, delay: Callable[[], float]) -> None:
        self.clients: dict[_Client, None] = {}
        self.sockets: dict[SimSocket, None] = {}
        self.clock = clock
        self.up = True
        self.still = False
        self.runs = 1
        self._loop = loop
        self._delay = delay
        self._data = _Data()

    # What the simulation does to it

    def dial(self, process: Process, protocol: Any) -> SimSocket:
        """A connection of a process. Raises ConnectionRefusedError."""
        if not self.up:
            raise ConnectionRefusedError("Redis is down")
        socket = SimSocket(self._loop, process, protocol, self._delay, self.sockets)
        client = _Client(self, socket)
        socket.peer = client
        self.clients[client] = None
        return socket

    def dump(self) -> _Data:
        """What it holds, to be loaded later."""
        return self._data.copy()

    def kill(self) -> None:
        """It ends, and with it its connections."""
        self.up = self.still = False
        for socket in list(self.sockets):
            socket.cut(self._delay())
        self.clients.clear()

    def start(self, data: _Data | None = None) -> None:
        """It runs again, with a dump or with nothing."""
        self.up = True
        self.runs += 1
        self._data = data or _Data()

    def flush(self) -> None:
        """FLUSHALL."""
        self._data = _Data()

    def stand_still(self) -> None:
        """SIGSTOP: connections are there, nothing is answered."""
        self.still = self.up

    def go_on(self) -> None:
        """SIGCONT."""
        self.still = False
        for client in list(self.clients):
            client.go_on()

    def calm(self) -> None:
        """It runs and answers."""
        if not self.up:
            self.start()
        self.go_on()

    def died(self, process: Process) -> None:
        """A process is gone: its connections are closed by its machine."""
        for socket in [socket for socket in self.sockets if socket.process is process]:
            socket.cut(None)

    # Commands

    def carry_out(self, command: Sequence[bytes], client: _Client) -> list[Any]:
        """The answers to a command."""
        name = command[0].decode().lower()
        handler = getattr(self, f"_do_{name}", None)
        if handler is None:
            return [_Error(f"ERR unknown command '{name}'")]
        try:
            if name in ("subscribe", "unsubscribe"):
                return list(handler(client, *command[1:]))
            return [handler(*command[1:])]
        except _Error as problem:
            return [problem]

    def _do_hello(self, *_: bytes) -> Any:
        return {
            b"server": b"redis",
            b"version": b"7.0.0",
            b"proto": 3,
            b"id": 1,
            b"mode": b"standalone",
        }

    def _do_client(self, what: bytes, *_: bytes) -> Any:
        if what.upper() in (b"SETNAME", b"SETINFO"):
            return "OK"
        raise _Error("ERR unknown subcommand")

    def _do_ping(self) -> Any:
        return "PONG"

    def _do_info(self, *_: bytes) -> Any:
        return f"# Server\r\nredis_version:7.0.0\r\nrun_id:{self.runs:040d}\r\n".encode()

    def _do_publish(self, channel: bytes, message: bytes) -> Any:
        push = _encoded(Push((b"message", channel, message)))
        to = [client for client in self.clients if channel in client.channels]
        for client in to:
            client.send(push)
        return len(to)

    def _do_subscribe(self, client: _Client, *channels: bytes) -> Any:
        for channel in channels:
            client.channels[channel] = None
            yield Push((b"subscribe", channel, len(client.channels)))

    def _do_unsubscribe(self, client: _Client, *channels: bytes) -> Any:
        for channel in channels:
            client.channels.pop(channel, None)
            yield Push((b"unsubscribe", channel, len(client.channels)))

    def _do_sadd(self, key: bytes, *members: bytes) -> Any:
        held = self._get(key, dict)
        new = [member for member in members if member not in held]
        held.update(dict.fromkeys(members))
        return len(new)

    def _do_srem(self, key: bytes, *members: bytes) -> Any:
        held = self._get(key, dict)
        gone = [member for member in members if held.pop(member, held) is None]
        if not held:
            self._drop(key)
        return len(gone)

    def _do_smembers(self, key: bytes) -> Any:
        return set(self._get(key, dict, keep=False))

    def _do_srandmember(self, key: bytes, count: bytes) -> Any:
        return list(self._get(key, dict, keep=False))[: int(count)]

    def _do_zrem(self, key: bytes, *members: bytes) -> Any:
        return self._do_srem(key, *members)

    def _do_unlink(self, *keys: bytes) -> Any:
        for key in keys:
            self._drop(key)
        return len(keys)

    def _do_expire(self, key: bytes, seconds: bytes) -> Any:
        return self._expire(key, int(seconds) * 1000)

    def _do_eval(self, script: bytes, count: bytes, *rest: bytes) -> Any:
        if script.decode() != leases_in_redis._RENEW:
            raise _Error("ERR the simulated Redis knows one script only")
        return self._renew(rest[: int(count)], rest[int(count) :])

    def _renew(self, keys: Sequence[bytes], arguments: Sequence[bytes]) -> Any:
        """`_RENEW` line by line."""
        now, lease = self.clock.now_ms(), int(arguments[0])
        _, new_epoch, token, who, old_token, kept_ms = arguments
        epoch = self._get(keys[2], dict)
        epoch.setdefault(b"", new_epoch)
        ends, info = self._get(keys[0], dict), self._get(keys[1], dict)
        ended = self._get(keys[3], dict)
        for other in [other for other, end in ends.items() if end <= now - lease]:
            ended[other] = ends.pop(other)
            info.pop(other, None)
        if old_token:
            ended.pop(old_token, None)
            ends.pop(old_token, None)
            info.pop(old_token, None)
        if token:
            ends[token] = now + lease
            info[token] = who
        ends.update({other: now + lease for other, end in ends.items() if end > now + lease})
        for key in keys:
            self._expire(key, int(kept_ms))
        rows = sorted((end, other) for other, end in ends.items())
        return [
            epoch[b""],
            [[other, str(end - now).encode(), info[other]] for end, other in rows if other in info],
            [
                [other, str(now - end).encode()]
                for end, other in sorted((end, other) for other, end in ended.items())[:100]
            ],
        ]

    # Keys

    def _get(self, key: bytes, make: Callable[[], Any], *, keep: bool = True) -> Any:
        data = self._data
        end = data.ends.get(key)
        if end is not None and end <= self.clock.now_ms():
            self._drop(key)
        value = data.keys.get(key)
        if value is None:
            value = make()
            if keep:
                data.keys[key] = value
        return value

    def _drop(self, key: bytes) -> None:
        self._data.keys.pop(key, None)
        self._data.ends.pop(key, None)

    def _expire(self, key: bytes, ms: int) -> int:
        if key not in self._data.keys:
            return 0
        self._data.ends[key] = self.clock.now_ms() + ms
        return 1


def _encoded(value: Any) -> bytes:
    """An answer as it goes over the wire (RESP3)."""
    match value:
        case _Error():
            return f"-{value}\r\n".encode()
        case str():
            return f"+{value}\r\n".encode()
        case int():
            return b":%d\r\n" % value
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(value), value)
        case dict():
            parts = [_encoded(part) for pair in value.items() for part in pair]
            return b"%%%d\r\n%b" % (len(value), b"".join(parts))
        case Push():
            return _many(b">", value.parts)
        case set():
            # In one order, whatever the hashes are.
            return _many(b"~", sorted(value))
        case _:
            return _many(b"*", value)


def _many(kind: bytes, values: Sequence[Any]) -> bytes:
    return b"%b%d\r\n%b" % (kind, len(values), b"".join(map(_encoded, values)))
