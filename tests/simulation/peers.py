"""The wires between nodes: links over which changes go to the home of their log, slow, silent and cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from tidings_server.messaging.forwarding import Dial, Listener
from tidings_server.messaging.hosting import Guest
from tidings_server.node import Node
from tidings_server.presence.base import NodeInfo

from .loop import Process, SimLoop
from .violation import Violation

_OPEN, _CLOSED = object(), object()


class PeerNet:
    """All links between nodes. `delay` gives the seconds that a frame is under way; `report` is told when a node
    forwards what was forwarded to it.
    """

    def __init__(
        self,
        loop: SimLoop,
        delay: Callable[[], float],
        report: Callable[[Violation], None],
    ) -> None:
        self.loop = loop
        self.delay = delay
        self.report = report
        self.links: dict[PeerLink, None] = {}
        self._nodes: dict[str, tuple[Process, Node]] = {}

    def listen(self, process: Process, node: Node) -> None:
        """A node can be reached, by the name of its process."""
        self._nodes[process.name] = (process, node)

    def dial(self, process: Process) -> Dial:
        """How a process reaches others."""

        def dial(node: NodeInfo, listener: Listener) -> PeerLink:
            return PeerLink(self, process, self._nodes.get(node.address), listener)

        return dial

    def died(self, process: Process, noticed_after: Callable[[], float | None]) -> None:
        """A process is gone: the other ends of its links notice, or don't."""
        self._nodes.pop(process.name, None)
        for link in [link for link in self.links if process in (link.caller, link.called)]:
            link.cut(noticed_after())


class _Way:
    """One direction of a link. What is sent first arrives first; it arrives whether or not its sender lives on."""

    def __init__(self, net: PeerNet, process: Process, take: Callable[[Any], None]) -> None:
        self._net = net
        self._process = process
        self._take = take
        self._flying: deque[Any] = deque()
        self._arrived: deque[Any] = deque()
        self._last = 0.0
        self._whole = True

    def put(self, item: Any) -> None:
        if self._whole:
            now = self._net.loop.time()
            self._last = at = max(now + self._net.delay(), self._last)
            self._flying.append(item)
            self._net.loop.later(at - now, self._arrive)

    def stall(self, until: float) -> None:
        self._last = max(self._last, until)

    def cut(self) -> None:
        self._whole = False
        self._flying.clear()

    def end(self, item: Any) -> None:
        """The receiver is told that nothing more comes, behind what has arrived."""
        self._arrived.append(item)
        self._net.loop.soon(self._process, self._hand_on)

    def _arrive(self) -> None:
        if self._flying:
            self._arrived.append(self._flying.popleft())
            self._net.loop.soon(self._process, self._hand_on)

    def _hand_on(self) -> None:
        if self._arrived:
            self._take(self._arrived.popleft())


class PeerLink:
    """See `tidings_server.messaging.forwarding.Link`."""

    def __init__(
        self,
        net: PeerNet,
        caller: Process,
        called: tuple[Process, Node] | None,
        listener: Listener,
    ) -> None:
        self.caller = caller
        self.called = called[0] if called else None
        self._net = net
        self._node = called[1] if called else None
        self._listener: Listener | None = listener
        self._guest: Guest | None = None
        self._back = _Way(net, caller, self._heard)
        if self.called is None:
            self._there = None
            net.loop.later(net.delay(), self._back.end, _CLOSED)
            return
        net.links[self] = None
        self._there = _Way(net, self.called, self._received)
        self._there.put(_OPEN)

    # The caller's side

    def send(self, frame: bytes) -> None:
        """See `Link`."""
        if self._listener is not None and self._there is not None:
            self._there.put(frame)

    def close(self) -> None:
        """See `Link`."""
        if self._listener is not None:
            self._listener = None
            if self._there is not None:
                self._there.put(_CLOSED)

    def _heard(self, item: Any) -> None:
        listener = self._listener
        if listener is None:
            return
        if item is _CLOSED:
            self._listener = None
            listener.broken("the wire was cut")
        else:
            listener.heard(item)

    # The called side

    def _received(self, item: Any) -> None:
        if item is _CLOSED:
            self._net.links.pop(self, None)
            if self._guest is not None:
                self._guest.close()
        elif item is _OPEN:
            assert self._node is not None
            self._guest = self._node.host.open(self._back.put)
        elif self._guest is not None:
            assert self._node is not None
            before = self._node.counters.forwarded
            self._guest.receive(item)
            if self._node.counters.forwarded > before:
                where = f"{self.called.name if self.called else ''} forwards what {self.caller.name} forwarded to it"
                self._net.report(Violation("home", where))

    # The simulation's side

    def stall(self, until: float) -> None:
        """Nothing that is sent from now on arrives before a moment, in one direction or both."""
        for way in (self._there, self._back):
            if way is not None:
                way.stall(until)

    def cut(self, noticed_after: float | None) -> None:
        """Cuts it, with what is under way; both ends notice after some seconds, or only by the silence."""
        self._net.links.pop(self, None)
        for way in (self._there, self._back):
            if way is not None:
                way.cut()
                if noticed_after is not None:
                    self._net.loop.later(noticed_after, way.end, _CLOSED)
