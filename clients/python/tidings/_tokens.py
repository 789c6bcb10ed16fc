"""Tokens: asked for when there is none, kept while they serve, asked for anew when they are refused or run out."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias

TokenProvider: TypeAlias = Callable[[], str | Awaitable[str]]
"""Gives a token: a function or a coroutine function without arguments. It may raise; then it is asked again later."""


class TokenSource:
    """The token in use, and where the next one comes from."""

    def __init__(self, provider: TokenProvider) -> None:
        self._provider = provider
        self._token: str | None = None
        self._lock = asyncio.Lock()

    async def get(self) -> str:
        """The token in use, asked for if there is none. Raises what the provider raises."""
        async with self._lock:
            if self._token is None:
                token = self._provider()
                if inspect.isawaitable(token):
                    token = await token
                if not isinstance(token, str):
                    raise TypeError(f"the token provider gave {type(token).__name__}, not str")
                # A token from a file often ends with a line.
                token = token.strip()
                if not token.isascii() or not token.isprintable():
                    raise ValueError("the token provider gave what can't go into a header")
                self._token = token
            return self._token

    def refused(self, token: str) -> None:
        """A token doesn't serve any more: the next `get` asks for another."""
        if self._token == token:
            self._token = None

    async def renew(self) -> str:
        """Another token, whatever the one in use is."""
        self._token = None
        return await self.get()
