"""Subscriptions: what one connection is to be subscribed to, and what is known of it. No I/O.

Commands of a connection are carried out and confirmed in their order, so the last one sent for a channel decides, and
a channel is sure when that one is confirmed. What is wanted and what was sent are compared once for many changes:
subscribing, unsubscribing and subscribing again need not send anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Wait:
    """What somebody who subscribes waits for: that `left` channels are sure, or not wanted any more."""

    __slots__ = ("future", "left")

    def __init__(self) -> None:
        self.left = 0
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def one_less(self) -> None:
        """One of the channels needs no more waiting."""
        self.left -= 1
        if not self.left and not self.future.done():
            self.future.set_result(None)


class _Channel:
    """`told`: the last command sent on this connection was to subscribe. The numbers are of those not confirmed."""

    __slots__ = ("log", "name", "subscribes", "told", "unsubscribes", "waits", "wanted")

    def __init__(self, log: str, name: bytes) -> None:
        self.log = log
        self.name = name
        self.wanted = False
        self.told = False
        self.subscribes = 0
        self.unsubscribes = 0
        self.waits: list[Wait] = []

    @property
    def sure(self) -> bool:
        return self.told and not self.subscribes


class Subscriptions:
    """The channels of one connection. `all_sure` is called when those of which something may have been missed are sure
    again: whoever reads after that misses nothing.
    """

    def __init__(self, all_sure: Callable[[], None]) -> None:
        self._all_sure = all_sure
        self._logs: dict[str, _Channel] = {}
        self._names: dict[bytes, _Channel] = {}
        self._changed: dict[_Channel, None] = {}
        # Those of which something may have been missed that nobody waits for.
        self._unsure: set[_Channel] = set()

    def __len__(self) -> int:
        return len(self._names)

    @property
    def logs(self) -> list[str]:
        """The logs whose channels are wanted."""
        return [c.log for c in self._logs.values() if c.wanted]

    def want(self, log: str, name: bytes, wait: Wait | None) -> None:
        """A channel is wanted. `wait` is counted up when there is something to wait for; without one, what may have
        been missed is told by `all_sure`.
        """
        channel = self._logs.get(log)
        if channel is None:
            channel = self._logs[log] = self._names[name] = _Channel(log, name)
        channel.wanted = True
        if not channel.sure:
            self._changed[channel] = None
            if wait is None:
                self._unsure.add(channel)
            else:
                wait.left += 1
                channel.waits.append(wait)

    def unwant(self, log: str) -> None:
        """A channel is not wanted any more: nobody waits for it."""
        channel = self._logs.get(log)
        if channel is None or not channel.wanted:
            return
        channel.wanted = False
        self._changed[channel] = None
        self._release(channel)
        self._now_sure(channel)

    def give_up(self, log: str, wait: Wait) -> None:
        """Somebody waits no longer: what they miss until it is sure is told by `all_sure`."""
        channel = self._logs.get(log)
        if channel is not None and wait in channel.waits:
            channel.waits.remove(wait)
            self._unsure.add(channel)

    def evict(self, log: str) -> list[Wait]:
        """A channel is another connection's from now on. Gives those who wait for it, still counted."""
        channel = self._logs[log]
        waits, channel.waits = channel.waits, []
        channel.wanted = False
        self._changed[channel] = None
        self._now_sure(channel)
        return waits

    def adopt(self, log: str, name: bytes, waits: list[Wait]) -> None:
        """Takes a channel over, with those who wait for it. Something may have been missed."""
        self.want(log, name, None)
        channel = self._logs[log]
        if channel.sure:
            for wait in waits:
                wait.one_less()
        else:
            channel.waits.extend(waits)

    def commands(self) -> tuple[list[bytes], list[bytes]]:
        """The channels to subscribe to, and those to unsubscribe from. They count as sent."""
        changed, self._changed = self._changed, {}
        subscribe, unsubscribe = [], []
        for channel in changed:
            if channel.wanted and not channel.told:
                channel.told = True
                channel.subscribes += 1
                subscribe.append(channel.name)
            elif not channel.wanted and channel.told:
                channel.told = False
                channel.unsubscribes += 1
                unsubscribe.append(channel.name)
            else:
                self._forget(channel)
        return subscribe, unsubscribe

    def subscribed(self, name: bytes) -> None:
        """The server has confirmed a subscription."""
        channel = self._names.get(name)
        if channel is None or not channel.subscribes:
            return
        channel.subscribes -= 1
        if channel.sure:
            self._release(channel)
            self._now_sure(channel)
        self._forget(channel)

    def unsubscribed(self, name: bytes) -> bool:
        """The server has ended a subscription. Returns whether it did so of its own accord: its slot has moved."""
        channel = self._names.get(name)
        if channel is None:
            return False
        if channel.unsubscribes:
            channel.unsubscribes -= 1
            self._forget(channel)
            return False
        channel.told = False
        channel.subscribes = 0
        if channel.wanted:
            self._unsure.add(channel)
            self._changed[channel] = None
        return True

    def lost(self) -> None:
        """The connection is gone: all that is wanted is to be subscribed to anew, and something may be missed."""
        for channel in list(self._logs.values()):
            if channel.sure and channel.wanted:
                self._unsure.add(channel)
            channel.told = False
            channel.subscribes = channel.unsubscribes = 0
            if channel.wanted:
                self._changed[channel] = None
            else:
                self._changed.pop(channel, None)
                self._forget(channel)

    def release_all(self) -> None:
        """Nothing is sure or will be: nobody needs to wait."""
        for channel in self._logs.values():
            self._release(channel)

    def _release(self, channel: _Channel) -> None:
        waits, channel.waits = channel.waits, []
        for wait in waits:
            wait.one_less()

    def _now_sure(self, channel: _Channel) -> None:
        if channel in self._unsure:
            self._unsure.remove(channel)
            if not self._unsure:
                self._all_sure()

    def _forget(self, channel: _Channel) -> None:
        if not (channel.wanted or channel.told or channel.subscribes or channel.unsubscribes):
            del self._logs[channel.log]
            del self._names[channel.name]
