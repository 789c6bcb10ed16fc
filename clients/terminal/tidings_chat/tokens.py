"""Where the token comes from, and whom it names."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

_TIMEOUT = 30.0


class NoToken(Exception):
    """There is no token. The text says why, in one line."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a token names: the user and the device, empty where it doesn't say."""

    user_id: str = ""
    device_id: str = ""


def identity_of(token: str) -> Identity:
    """Whom a token names, unverified: good enough to choose a file by."""
    parts = token.split(".")
    if len(parts) != 3:
        return Identity()
    payload = parts[1] + "=" * (-len(parts[1]) % 4)
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload))
    except (binascii.Error, ValueError):
        return Identity()
    if not isinstance(claims, dict):
        return Identity()
    return Identity(str(claims.get("sub", "")), str(claims.get("device_id", "")))


class FixedToken:
    """A token that was given once."""

    def __init__(self, token: str) -> None:
        self._token = token.strip()

    async def __call__(self) -> str:
        """The token."""
        return self._token


class TokenCommand:
    """A command whose standard output is the token; it is run again whenever another one is needed.

    Args:
        command: The command: a line for the shell, or a program with its arguments.
        environment: What is set besides the environment of this process.
    """

    def __init__(
        self, command: str | tuple[str, ...], environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = command
        self._environment = {**os.environ, **(environment or {})}

    async def __call__(self) -> str:
        """A token. Raises NoToken."""
        try:
            code, out, err = await self._run()
        except OSError as error:
            raise NoToken(f"the token command can't be run: {error}") from error
        except TimeoutError:
            raise NoToken(f"the token command took longer than {_TIMEOUT:g} s") from None
        if code != 0:
            said = err.decode(errors="replace").strip().splitlines()
            raise NoToken(f"the token command failed: {said[-1] if said else f'exit code {code}'}")
        lines = out.decode(errors="replace").split()
        if len(lines) != 1:
            raise NoToken("the token command printed no token, or more than one word")
        return lines[0]

    async def _run(self) -> tuple[int, bytes, bytes]:
        pipe = asyncio.subprocess.PIPE
        if isinstance(self._command, str):
            process = await asyncio.create_subprocess_shell(
                self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=pipe,
                stderr=pipe,
                env=self._environment,
            )
        else:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=pipe,
                stderr=pipe,
                env=self._environment,
            )
        try:
            async with asyncio.timeout(_TIMEOUT):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode or 0, out, err
