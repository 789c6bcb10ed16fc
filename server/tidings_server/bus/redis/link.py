"""Links: what keeps a connection to one server of Redis, for receiving or for sending."""

from __future__ import annotations

import asyncio
import contextlib
import random
from abc import ABC, abstractmethod
from typing import Any

import hiredis
import structlog

from ...redis_options import RedisAddress, RedisOptions
from .connection import Connection, Refused, connect, pack

log = structlog.get_logger(__name__)

_FIRST_WAIT_S = 0.02
_LONGEST_WAIT_S = 1.0
_STEADY_S = 5.0
"""A connection that lasted so long was a good one: the next is tried at once."""
_PING = pack("PING")


class Link(ABC):
    """Connects, and again whenever the connection is gone or silent.

    `refused` is set by its owner and called when a connection could not be had or an answer was an error: in a
    cluster another server may be the right one.
    """

    kind = ""

    def __init__(self, options: RedisOptions, address: RedisAddress, rng: random.Random) -> None:
        self.address = address
        self.connection: Connection | None = None
        self.connects = 0
        self.down_since: float | None = asyncio.get_running_loop().time()
        self.first_try = asyncio.Event()
        """Set once it is known whether a connection could be had."""
        self._options = options
        self._rng = rng
        self._pinged = False
        self._broken = False
        self._told = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to connect."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Ends the connection."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @abstractmethod
    def refused(self) -> None:
        """No connection could be had, or an answer was an error."""

    @abstractmethod
    def up(self) -> None:
        """There is a connection."""

    @abstractmethod
    def down(self) -> None:
        """The connection is gone."""

    @abstractmethod
    def pushed(self, push: list[Any]) -> None:
        """See `Receiver`."""

    @abstractmethod
    def answered(self) -> None:
        """A command of the subclass was answered, and not with an error."""

    @abstractmethod
    def next_is_ping(self) -> bool:
        """Whether the next reply is that to a ping."""

    @abstractmethod
    def pinging(self) -> None:
        """A ping is being sent."""

    @abstractmethod
    def writable(self) -> None:
        """See `Receiver`."""

    def replied(self, reply: Any) -> None:
        """See `Receiver`."""
        if self._broken:
            return
        if isinstance(reply, hiredis.ReplyError):
            self._broken = True
            # Of a channel that is another server's, or something that this client may not do.
            self._tell("redis_refuses", str(reply))
            self.refused()
            if self.connection is not None:
                self.connection.abort()
            return
        if self.next_is_ping():
            self._pinged = False
        self.answered()

    async def _run(self) -> None:
        wait = _FIRST_WAIT_S
        while True:
            steady = False
            try:
                steady = await self._once()
            except Exception:
                # Whatever it was: a node without this link hears of nothing any more.
                log.exception("redis_link_failed", link=self.kind, address=self._where())
            if steady:
                wait = _FIRST_WAIT_S
            await asyncio.sleep(wait * self._rng.uniform(0.5, 1.0))
            wait = min(wait * 2, _LONGEST_WAIT_S)

    async def _once(self) -> bool:
        """Connects, and returns when the connection is gone or could not be had: whether it was a good one."""
        try:
            connection = await connect(self._options, self.address, self)
        except (OSError, Refused) as problem:
            if not self.first_try.is_set():
                self.first_try.set()
                self.down()
            self._tell("redis_unreachable", str(problem) or type(problem).__name__)
            self.refused()
            return False
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            self._begin(connection)
            await self._watch(connection)
        finally:
            connection.abort()
            self._end()
        steady = loop.time() - began >= _STEADY_S
        if steady:
            self._told = False
        self._tell("redis_connection_lost", "it was closed")
        return steady

    def _begin(self, connection: Connection) -> None:
        if self._told:
            log.info("redis_connected", link=self.kind, address=self._where())
        self.connects += 1
        self.connection, self.down_since = connection, None
        self._pinged = self._broken = False
        self.first_try.set()
        self.up()

    def _end(self) -> None:
        self.connection, self.down_since = None, asyncio.get_running_loop().time()
        self.down()

    async def _watch(self, connection: Connection) -> None:
        """Returns when the connection is gone. One that gives no sign is ended."""
        try:
            heard = -1
            while True:
                await asyncio.wait([connection.gone], timeout=self._options.silence_s / 2)
                if connection.gone.done():
                    return
                if self._pinged and connection.heard == heard:
                    self._tell("redis_silent", "nothing comes, though it was asked for a sign")
                    connection.abort()
                elif not self._pinged:
                    self._pinged = True
                    self.pinging()
                    connection.write(_PING)
                heard = connection.heard
        except asyncio.CancelledError:
            connection.abort()
            await connection.gone
            raise

    def _tell(self, event: str, cause: str) -> None:
        # Once an outage: it is tried again every second.
        if not self._told:
            self._told = True
            log.warning(event, link=self.kind, address=self._where(), cause=cause)

    def _where(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"
