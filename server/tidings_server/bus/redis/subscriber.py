"""The subscriber: the link that receives what is published to the channels that this node is subscribed to."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

from ...redis_options import RedisAddress, RedisOptions
from .connection import pack
from .link import Link
from .subscriptions import Subscriptions

_AT_ONCE = 500
"""Channels in one command."""


class Subscriber(Link):
    """Receives from one server. `message` gets channel and payload; `refused` says that a server did not take a
    command, or ended a subscription by itself.
    """

    kind = "subscriber"

    def __init__(
        self,
        options: RedisOptions,
        address: RedisAddress,
        rng: random.Random,
        *,
        message: Callable[[bytes, bytes], None],
        all_sure: Callable[[], None],
        refused: Callable[[], None],
    ) -> None:
        super().__init__(options, address, rng)
        self.subscriptions = Subscriptions(all_sure)
        self._message = message
        self._on_refused = refused
        self._scheduled = False
        self._sharded = options.cluster

    def changed(self) -> None:
        """What is wanted has changed: the server is told soon."""
        if not self._scheduled and self.connection is not None:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._send)

    def up(self) -> None:
        """See `Link`."""
        self._send()

    def down(self) -> None:
        """See `Link`."""
        self.subscriptions.lost()

    def refused(self) -> None:
        """See `Link`."""
        self._on_refused()

    def answered(self) -> None:
        """See `Link`: only pings are answered, all else is confirmed by pushes."""

    def next_is_ping(self) -> bool:
        """See `Link`."""
        return True

    def pinging(self) -> None:
        """See `Link`."""

    def writable(self) -> None:
        """See `Link`."""

    def pushed(self, push: list[Any]) -> None:
        """See `Link`."""
        kind, channel, content = push
        if kind in {b"message", b"smessage"}:
            self._message(channel, content)
        elif kind in {b"subscribe", b"ssubscribe"}:
            self.subscriptions.subscribed(channel)
        elif (
            kind in {b"unsubscribe", b"sunsubscribe"}
            and channel is not None
            and self.subscriptions.unsubscribed(channel)
        ):
            self._on_refused()
            self.changed()

    def _send(self) -> None:
        self._scheduled = False
        if self.connection is None:
            return
        subscribe, unsubscribe = self.subscriptions.commands()
        if unsubscribe:
            self.connection.write(self._packed("UNSUBSCRIBE", unsubscribe))
        if subscribe:
            self.connection.write(self._packed("SUBSCRIBE", subscribe))

    def _packed(self, command: str, channels: Sequence[bytes]) -> bytes:
        if self._sharded:
            # Channels of one command would have to be in one slot.
            return b"".join(pack("S" + command, channel) for channel in channels)
        return b"".join(
            pack(command, *channels[at : at + _AT_ONCE]) for at in range(0, len(channels), _AT_ONCE)
        )
