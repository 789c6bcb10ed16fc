"""The program itself, on a terminal of its own."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import shlex
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tidings import Client, Conversation, Message

from .screens import direct
from .server import Server, until, until_async

_CTRL_Q = b"\x11"
_ALT_ENTER = b"\x1b\r"


class Program:
    """A running `tidings-chat` and what it has written to its terminal."""

    def __init__(self, process: asyncio.subprocess.Process, terminal: int) -> None:
        self.process = process
        self._terminal = terminal
        self._written = bytearray()
        asyncio.get_running_loop().add_reader(terminal, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._terminal, 65536)
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._terminal)
        self._written += data

    async def writes(self, text: str) -> None:
        """Wait until it has written something."""
        try:
            await until(lambda: text.encode() in self._written, f"“{text}” written", 60.0)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self._written[-4000:]!r}") from None

    def type(self, data: bytes) -> None:
        """Press keys."""
        os.write(self._terminal, data)

    async def ends(self) -> int:
        """Wait for its end; returns the exit code."""
        async with asyncio.timeout(60.0):
            return await self.process.wait()


@asynccontextmanager
async def program(server: Server, home: Path, *arguments: str) -> AsyncIterator[Program]:
    """`tidings-chat` of alice."""
    own, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    environment = {name: value for name, value in os.environ.items() if "TIDINGS" not in name}
    process = await asyncio.create_subprocess_exec(
        # As from a script that outlives its terminal.
        *("env", "--ignore-signal=HUP"),
        *(sys.executable, "-m", "tidings_chat", "--server", server.target),
        *("--token-command", "echo alice/$TIDINGS_DEVICE", "--device", "desk", *arguments),
        stdin=other,
        stdout=other,
        stderr=other,
        env={**environment, "XDG_STATE_HOME": str(home), "TERM": "xterm-256color"},
        start_new_session=True,
    )
    os.close(other)
    running = Program(process, own)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        asyncio.get_running_loop().remove_reader(own)
        os.close(own)


def _texts(client: Client, conversation: Conversation) -> Callable[[], Awaitable[list[str]]]:
    """Asks for the messages of a conversation, the newest first."""

    async def ask() -> list[str]:
        history = client.history(conversation.conversation_id)
        return [entry.text async for entry in history if isinstance(entry, Message)]

    return ask


async def test_it_runs_on_a_terminal_until_it_is_left(server: Server, tmp_path: Path) -> None:
    conversation = await direct(server, "bob", "alice", "hello from bob")
    async with program(server, tmp_path) as alice:
        await alice.writes("hello from bob")
        await alice.writes("online")
        alice.type(b"one" + _ALT_ENTER + b"two\r")
        async with server.client("bob", device="other") as bob:
            history = _texts(bob, conversation)
            await until_async(history, lambda found: "one\ntwo" in found, "two lines are sent")
        alice.type(_CTRL_Q)
        assert await alice.ends() == 0


async def test_it_ends_with_its_terminal(server: Server, tmp_path: Path) -> None:
    await direct(server, "bob", "alice", "hello from bob")
    async with program(server, tmp_path) as alice:
        await alice.writes("hello from bob")
        alice.process.send_signal(signal.SIGHUP)
        assert await alice.ends() == 129


async def test_what_waited_when_it_was_killed_is_sent_by_the_next(
    server: Server, tmp_path: Path
) -> None:
    conversation = await direct(server, "bob", "alice", "hello from bob")
    async with program(server, tmp_path) as alice:
        await alice.writes("hello from bob")
        await alice.writes("online")
        await server.stop()
        await alice.writes("offline")
        alice.type(b"not lost\r")
        await alice.writes("1 waiting")
        alice.process.kill()
        await alice.ends()
    await server.start()
    async with program(server, tmp_path), server.client("bob", device="other") as bob:
        texts = _texts(bob, conversation)
        await until_async(texts, lambda found: "not lost" in found, "it is sent")
        assert await texts() == ["not lost", "hello from bob"]


async def test_a_second_window_is_told_to_take_another_device(
    server: Server, tmp_path: Path
) -> None:
    async with program(server, tmp_path) as first:
        await first.writes("online")
        async with program(server, tmp_path) as second:
            await second.writes("is in use by another client; --device NAME gives this window")
            assert await second.ends() == 1
        state = tmp_path / "other.sqlite3"
        async with program(server, tmp_path, "--state", shlex.quote(str(state))) as third:
            await third.writes("online")
