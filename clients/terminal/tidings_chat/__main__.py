"""The program `tidings-chat`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from .options import Options, parse, state_path
from .tokens import NoToken, identity_of

_HUNG_UP = 129


def main() -> None:
    """Run the client until the person leaves; exits with 1 when it can't begin, with 2 for a wrong command line."""
    options = parse(sys.argv[1:], os.environ)
    if options.log is not None:
        logging.basicConfig(
            filename=options.log,
            level=logging.INFO,
            format="%(asctime)s %(levelname)s %(name)s %(message)s",
        )
    else:
        logging.getLogger().addHandler(logging.NullHandler())
    # What grpc's core writes by itself would stand in the middle of the screen.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Also where whoever started it ignores hang-ups: without its terminal it would go on for ever. What waits is kept.
    signal.signal(signal.SIGHUP, lambda _number, _frame: os._exit(_HUNG_UP))
    try:
        asyncio.run(_run(options))
    except Problem as problem:
        sys.exit(f"tidings-chat: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)


class Problem(Exception):
    """Why the client can't begin, in one line."""


async def _run(options: Options) -> None:
    try:
        token = await options.token()
    except NoToken as problem:
        raise Problem(str(problem)) from None
    # Imported here: a wrong command line or no token is told at once.
    from tidings import Client, ClientConfig, StateError  # noqa: PLC0415

    from .session import ChatSession  # noqa: PLC0415
    from .ui.app import ChatApp  # noqa: PLC0415

    identity = identity_of(token)
    try:
        state = state_path(options, identity, os.environ)
        certificates = options.ca.read_bytes() if options.ca is not None else None
    except OSError as error:
        raise Problem(str(error)) from None
    config = ClientConfig(
        auto_apply=False,
        backoff_cap=10.0,
        tls=options.tls,
        root_certificates=certificates,
        client_name="tidings-chat",
    )

    def make_client() -> Client:
        return Client(options.server, token_provider=options.token, state=state, config=config)

    try:
        async with ChatSession(make_client) as session:
            app = ChatApp(session, theme=options.theme, bell=options.bell)
            await app.run_async()
    except StateError as error:
        hint = ""
        if "in use" in error.message:
            hint = "; --device NAME gives this window a device of its own"
        raise Problem(f"{error.message}{hint}") from None


if __name__ == "__main__":
    main()
