"""The command line of `tidings-chat`, and what follows from it."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import quote

from .tokens import FixedToken, Identity, TokenCommand

_DEVICE = "terminal"
_THEMES = ("dark", "light")
_LONGEST_NAME = 80
_EPILOG = """\
The token comes from --user, --token, --token-command or the environment variable TIDINGS_TOKEN. A token command is run
again when the token runs out; it finds the device in TIDINGS_DEVICE. Two windows of the same user need two devices.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for.

    Attributes:
        server: Where the server is.
        token: Where the token comes from.
        device: The device asked for.
        state: The state file, or None for the usual one.
        theme: "dark" or "light".
        tls: True for TLS, False for plain text, None for what suits the server.
        ca: A file with the certificates to trust, or None.
        bell: Whether to ring when a message comes while nobody looks.
        log: A file for the log, or None.
    """

    server: str
    token: FixedToken | TokenCommand
    device: str
    state: Path | None = None
    theme: str = "dark"
    tls: bool | None = None
    ca: Path | None = None
    bell: bool = False
    log: Path | None = None


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Understand the command line. Prints what is wrong and exits with 2 where it can't."""
    parser = _parser()
    given = parser.parse_args(arguments)
    preferred = environment.get("TIDINGS_CHAT_THEME", "")
    return Options(
        server=given.server or environment.get("TIDINGS_SERVER") or "127.0.0.1:50051",
        token=_token(parser, given, environment),
        device=given.device,
        state=given.state,
        theme=given.theme or (preferred if preferred in _THEMES else _THEMES[0]),
        tls=given.tls,
        ca=given.ca,
        bell=given.bell,
        log=given.log,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tidings-chat", description="Chat in the terminal.", epilog=_EPILOG, allow_abbrev=False
    )
    add = parser.add_argument
    add("--version", action="version", version=_version())
    add("--server", metavar="HOST:PORT", help="the server (TIDINGS_SERVER; 127.0.0.1:50051)")
    whom = parser.add_mutually_exclusive_group()
    whom.add_argument(
        "--user", help="for development: ask `tidings-server token` for a token of this user"
    )
    whom.add_argument(
        "--token", help="the token; better in TIDINGS_TOKEN, where ps doesn't show it"
    )
    whom.add_argument("--token-command", metavar="CMD", help="a command that prints a token")
    add("--device", default=_DEVICE, help="the device's name (default: %(default)s)")
    add("--state", type=Path, metavar="PATH", help="the file for the outbox and positions")
    add("--theme", choices=_THEMES, help="TIDINGS_CHAT_THEME; default: dark")
    add(
        "--tls",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="encrypt; by default everywhere but on this machine",
    )
    add("--ca", type=Path, metavar="FILE", help="certificates to trust (PEM)")
    add("--bell", action="store_true", help="ring when a message comes while you are elsewhere")
    add("--log", type=Path, metavar="FILE", help="write a log")
    return parser


def _token(
    parser: argparse.ArgumentParser, given: argparse.Namespace, environment: Mapping[str, str]
) -> FixedToken | TokenCommand:
    if given.user:
        program = _server_program()
        if program is None:
            parser.error("--user needs the program tidings-server, which isn't installed here")
        return TokenCommand((program, "token", given.user, "--device", given.device))
    if given.token_command:
        return TokenCommand(given.token_command, {"TIDINGS_DEVICE": given.device})
    token = given.token or environment.get("TIDINGS_TOKEN")
    if not token or not token.strip():
        parser.error("no token: give --user, --token-command, --token or set TIDINGS_TOKEN")
    return FixedToken(token)


def _server_program() -> str | None:
    beside = Path(sys.executable).with_name("tidings-server")
    return str(beside) if beside.exists() else shutil.which("tidings-server")


def _version() -> str:
    try:
        return version("tidings-server")
    except PackageNotFoundError:
        return "unknown"


def state_path(options: Options, identity: Identity, environment: Mapping[str, str]) -> Path:
    """The state file: the one asked for, or one of its own for every server, user and device.

    Its folder is made, closed to others. Raises OSError.
    """
    if options.state is not None:
        return options.state
    base = environment.get("XDG_STATE_HOME") or ""
    # The specification has relative paths ignored.
    home = Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state"
    folder = home / "tidings-chat" / _safe(options.server)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    user = identity.user_id or "user"
    device = identity.device_id or options.device
    return folder / f"{_safe(user)}@{_safe(device)}.sqlite3"


def _safe(name: str) -> str:
    """A name as part of a path: no separators, no hidden files, never too long, never another's."""
    quoted = quote(name, safe="-_.:+@")
    if quoted.startswith("."):
        quoted = f"%2E{quoted[1:]}"
    if len(quoted) > _LONGEST_NAME:
        quoted = f"{quoted[:_LONGEST_NAME]}-{sha256(name.encode()).hexdigest()[:16]}"
    return quoted
