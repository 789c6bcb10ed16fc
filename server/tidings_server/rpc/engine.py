"""The engine of grpc.aio: two things that make it cheaper, for which it has no options of its own.

Importing this does not import grpc, whose core reads its environment when it is imported.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EXPERIMENTS = "GRPC_EXPERIMENTS"
WITHOUT_LISTENER = "-event_engine_listener"
_RECEIVE_BYTES = 4096


def choose_poller() -> None:
    """Lets the thread that waits for completions read the sockets itself. To be called before grpc is imported.

    Since 1.80 the sockets of a server are read by threads of grpc's event engine, which wake the thread that waits for
    completions, which wakes the event loop. Without `event_engine_listener` there is one hand-over less, as before
    1.80. What an operator says in GRPC_EXPERIMENTS holds.
    """
    os.environ.setdefault(EXPERIMENTS, WITHOUT_LISTENER)


class _Drained(socket.socket):
    """A socket whose `recv` takes all bytes that are there."""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """See `socket.socket`; `bufsize` is raised."""
        return super().recv(max(bufsize, _RECEIVE_BYTES), flags)


@contextmanager
def one_wake_up() -> Iterator[None]:
    """While it lasts, a burst of completed operations wakes the running event loop once.

    Each completed operation puts a byte into a socket. The event loop then reads one byte, but takes all operations
    that have completed, and the other bytes wake it again for nothing. Here it reads all of them. To be entered before
    anything else of grpc.aio is used in the process; afterwards it changes nothing.

    For processes with one event loop only: what completes for a loop that is closed by then makes grpc raise in the
    midst of the operations, and without bytes of their own the others would wait for ever.
    """
    import grpc.aio  # noqa: PLC0415

    original = socket.socketpair

    def drained_pair(*arguments: Any, **options: Any) -> tuple[socket.socket, socket.socket]:
        reader, writer = original(*arguments, **options)
        return _Drained(reader.family, reader.type, reader.proto, reader.detach()), writer

    socket.socketpair = drained_pair
    try:
        grpc.aio.init_grpc_aio()
    finally:
        socket.socketpair = original
    try:
        yield
    finally:
        grpc.aio.shutdown_grpc_aio()
