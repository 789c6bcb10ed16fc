"""The command line of the bridge as a process: `tidings-bridge`. Exit codes are those of `tidings-server`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click
import uvloop

from tidings_server.config import ConfigError, load
from tidings_server.telemetry import logging


class _Misuse(click.ClickException):
    """The settings are wrong."""

    exit_code = 2


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tidings-server", message="%(version)s")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="A TOML file with settings; otherwise TIDINGS_CONFIG names it.",
)
def cli(config: Path | None) -> int:
    """Carry WebSockets to the servers of bridge.servers, until SIGTERM or Ctrl-C."""
    try:
        settings = load(config)
    except ConfigError as problem:
        raise _Misuse(str(problem)) from None
    logging.configure(settings.log.level, settings.log.format)
    # Imported here: help and wrong settings are told without grpc.
    from tidings_server import bridging  # noqa: PLC0415

    try:
        return uvloop.run(bridging.run(settings))
    except OSError as problem:
        raise click.ClickException(problem.strerror or str(problem)) from None


def main() -> NoReturn:
    """The entry point of the process."""
    try:
        code = cli.main(prog_name="tidings-bridge", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except click.ClickException as problem:
        click.echo(f"tidings-bridge: {problem.format_message()}", err=True)
        code = problem.exit_code
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
