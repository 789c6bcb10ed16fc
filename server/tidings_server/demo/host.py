"""The host of the demo: brings in people and conversations, and tells whoever looks on how to join."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TextIO

import structlog

from tidings_server.auth import TokenPolicy, mint
from tidings_server.core.clock import Clock
from tidings_server.core.commands import Command, ConversationGot, Result
from tidings_server.core.principal import Principal
from tidings_server.demo.sample import SampleConversation, load_sample
from tidings_server.errors import DomainError, Reason

Execute = Callable[[Principal, Command], Awaitable[Result]]

TOKEN_TTL_S = 24 * 3600
_DEVICE = "demo"
_AT_ONCE = 32
_log = structlog.get_logger("tidings.demo")


class Demo:
    """A demo for a server whose tokens are signed by a secret."""

    def __init__(self, policy: TokenPolicy, clock: Clock, out: TextIO) -> None:
        self._policy = policy
        self._clock = clock
        self._out = out

    async def seed(self, execute: Execute) -> int:
        """Creates what is missing of the conversations, through the handlers of any client.

        To be called before clients come. Returns the number of messages that were sent; none when
        all were there. A conversation that its creator has left is left alone.

        Raises DomainError when the store fails.
        """
        sample = load_sample()
        sent = sum(await asyncio.gather(*(self._converse(execute, part) for part in sample)))
        if sent:
            _log.info("demo_seeded", conversations=len(sample), messages=sent)
        return sent

    async def _converse(self, execute: Execute, part: SampleConversation) -> int:
        try:
            result = await execute(self._principal(part.creator), part.create)
        except DomainError as problem:
            if problem.reason in {Reason.CONVERSATION_NOT_FOUND, Reason.RIGHT_MISSING}:
                return 0
            raise
        assert isinstance(result, ConversationGot)
        # Its creation and the messages: more only when people have gone on, which is after the last.
        if result.view.head_seq > len(part.messages):
            return 0
        sends = list(part.sends(result.view.conversation_id))
        # Tasks begin in the order of their making, and so the messages keep theirs.
        for start in range(0, len(sends), _AT_ONCE):
            batch = sends[start : start + _AT_ONCE]
            await asyncio.gather(*(execute(self._principal(who), send) for who, send in batch))
        return len(sends)

    def _principal(self, user_id: str) -> Principal:
        return Principal(user_id, _DEVICE, self._clock.now_ms() + TOKEN_TTL_S * 1000)

    def welcome(self, grpc: str, http: str | None, metrics: str | None) -> None:
        """Tells how to join. The arguments are the addresses that are listened on."""
        here = Path("Makefile").exists()
        chat = "make chat USER={}" if here else "tidings-chat --user {}"
        server = ".venv/bin/tidings-server" if here else "tidings-server"
        alice, bob = (
            mint(self._policy, self._clock, user, _DEVICE, ttl_s=TOKEN_TTL_S)
            for user in ("alice", "bob")
        )
        lines = [
            "",
            "  Tidings is running, with people and conversations to try it.",
            "",
            f"    API      {grpc}  (gRPC with reflection)",
        ]
        if http is not None:
            lines.append(f"    browsers http://{http}  (WebSockets at /ws: docs/bridge.md)")
        if metrics is not None:
            lines.append(f"    metrics  http://{metrics}/metrics")
        lines += [
            "",
            "  Chat from two other terminals:",
            "",
            f"    {chat.format('alice')}",
            f"    {chat.format('bob')}",
            "",
            "  or call the API with a token, good for 24 hours:",
            "",
            f"    alice    {alice}",
            f"    bob      {bob}",
            "",
            "  There are also carol, dave, chen, minjun and priya; a token for anybody:",
            "",
            f"    {server} token carol",
            "",
            "  Ctrl-C stops the server. Nothing is lost if it is killed instead.",
            "",
            "",
        ]
        self._out.write("\n".join(lines))
        self._out.flush()
