"""The command line: `tidings-server serve | migrate | token | backup | restore | begin-history | doctor`, and
`explain | nodes | sessions`, which ask a running server.

Answers go to standard output; the log and errors, one line each, to standard error. Exit codes: 0 for success, 1 when
something failed, 2 for a wrong command line or wrong settings.
"""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import uvloop

from tidings_server import maintenance
from tidings_server.auth import KeysUnusable, NoSecret, mint
from tidings_server.buses import BusUnusable
from tidings_server.config import ConfigError, Settings, load
from tidings_server.core.clock import SystemClock
from tidings_server.core.principal import ADMIN_SCOPE
from tidings_server.demo import Demo, SecretUnusable, dev_secret_path, with_dev_secret
from tidings_server.doctor import examine
from tidings_server.errors import DomainError
from tidings_server.findings import Finding, Level, fail, ok
from tidings_server.rpc.engine import choose_poller
from tidings_server.storage.base import StoreCorrupt, StoreUnavailable
from tidings_server.telemetry import logging

if TYPE_CHECKING:
    from tidings_server.app import Running
    from tidings_server.rpc.operator import Operator

_MOST_FILES = 1 << 20
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="A TOML file with settings; otherwise TIDINGS_CONFIG names it.",
)


class Duration(click.ParamType[float]):
    """A time such as 90s, 15m, 24h or 7d, as seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds, at least one."""
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", value)
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is no time such as 90s, 15m, 24h or 7d", param, ctx)
        return float(int(match[1]) * _UNITS[match[2] or "s"])


class Failure(click.ClickException):
    """Something that went wrong in a foreseen way. The text is one line."""


class Misuse(Failure):
    """The command line or the settings are wrong."""

    exit_code = 2


def main() -> NoReturn:
    """The entry point of the process."""
    try:
        code = cli.main(prog_name="tidings-server", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except click.ClickException as problem:
        click.echo(_one_line(problem), err=True)
        code = problem.exit_code
    sys.exit(code if isinstance(code, int) else 0)


def _one_line(problem: click.ClickException) -> str:
    text = problem.format_message()
    if isinstance(problem, click.exceptions.NoArgsIsHelpError):
        return text
    if isinstance(problem, click.UsageError) and problem.ctx is not None:
        text += f" (see `{problem.ctx.command_path} --help`)"
    return f"tidings-server: {text}"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tidings-server", message="%(version)s")
def cli() -> None:
    """Tidings: a chat server."""


@cli.command()
@config_option
@click.option("--demo", is_flag=True, help="Bring people, conversations and ready tokens.")
def serve(config: Path | None, *, demo: bool) -> int:
    """Run the server until SIGTERM or Ctrl-C."""
    settings = _settings(config)
    if demo:
        settings = _demo_settings(settings)
    elif not settings.auth.has_keys:
        raise Misuse(
            "auth: no keys are configured: set auth.jwks_url, auth.jwks_file or auth.hs256_secret,"
            " or try `serve --demo`"
        )
    logging.configure(settings.log.level, settings.log.format)
    _raise_file_limit()
    choose_poller()
    # Imported here: the other commands need neither grpc nor OpenTelemetry, and answer sooner.
    from tidings_server import app  # noqa: PLC0415

    host = Demo(settings.auth.policy(), SystemClock(), sys.stdout) if demo else None

    async def started(running: Running) -> None:
        if host is not None:
            await host.seed(running.node.handlers.execute)
            host.welcome(*_addresses(settings, running))

    with _one_line_each():
        return uvloop.run(app.run(settings, started=started))


@cli.command()
@config_option
def migrate(config: Path | None) -> None:
    """Bring the store's schema up to date (`serve` does it too)."""
    settings = _settings(config)
    with _one_line_each():
        maintenance.migrate(settings)
    click.echo(f"{_store_name(settings)} is up to date")


@cli.command("begin-history")
@config_option
@click.confirmation_option(
    prompt="Is the keyspace as it was restored, and does no server use it?",
    help="Don't ask whether all servers are stopped.",
)
def begin_history(config: Path | None) -> None:
    """Begin a new history in a keyspace that was restored from a backup.

    Devices that had got further than the backup start from what was restored. The embedded store does not need it: its
    `restore` does the same.
    """
    settings = _settings(config)
    if settings.store.kind != "scylla":
        raise Misuse("begin-history is for store.kind = scylla; the embedded store has `restore`")
    with _one_line_each():
        incarnation, stamp = maintenance.begin_history(settings)
    click.echo(f"{_store_name(settings)}: incarnation {incarnation}, from stamp {stamp} on")


@cli.command()
@click.argument("dest", type=click.Path(path_type=Path))
@config_option
def backup(dest: Path, config: Path | None) -> None:
    """Copy the store to the new file DEST, also while a server runs, and verify the copy."""
    settings = _embedded(_settings(config), "backup")
    with _one_line_each(), _progress("copying") as progress:
        contents = maintenance.backup(settings.store.path, dest, progress)
    click.echo(f"{dest}: {maintenance.tell(contents)}")


@cli.command()
@click.argument("src", type=click.Path(path_type=Path))
@click.option(
    "--to", type=click.Path(path_type=Path), help="The file to make; store.path unless given."
)
@config_option
def restore(src: Path, to: Path | None, config: Path | None) -> None:
    """Make a store of the backup SRC.

    It begins a new incarnation: devices that had got further start from what was restored.
    """
    settings = _embedded(_settings(config), "restore")
    target = to if to is not None else settings.store.path
    with _one_line_each(), _progress("restoring") as progress:
        contents = maintenance.restore(src, target, progress)
    click.echo(f"{target}: {maintenance.tell(contents)}")


@cli.command()
@config_option
def doctor(config: Path | None) -> int:
    """Check settings, keys, ports, disk, clock, limits and the store."""
    try:
        settings = load(config)
    except ConfigError as problem:
        _show(fail("config", str(problem), "docs/configuration.md lists every setting"))
        return 1
    _show(ok("config", "the settings are valid"))
    worst = 0
    for finding in examine(
        settings,
        SystemClock(),
        maintenance.inspect,
        lambda: maintenance.inspect_cluster(settings),
    ):
        _show(finding)
        worst |= finding.level is Level.FAIL
    return worst


@cli.command()
@click.argument("user")
@click.option("--device", default="cli", show_default=True, help="The device's id.")
@click.option(
    "--ttl", type=Duration(), default="24h", show_default=True, help="How long it is good."
)
@click.option(
    "--scope", "scopes", multiple=True, help="A right beyond a user's own; may be repeated."
)
@click.option("--admin", is_flag=True, help="The same as --scope admin: for AdminService.")
@config_option
def token(
    user: str, device: str, ttl: float, scopes: tuple[str, ...], config: Path | None, *, admin: bool
) -> None:
    """Print a token for USER, for development.

    It is signed with auth.hs256_secret or, without one, with the secret that `serve --demo` made.
    """
    if admin:
        scopes = (*scopes, ADMIN_SCOPE)
    click.echo(_mint(_settings(config), user, device, ttl, scopes))


@dataclass(frozen=True, slots=True)
class Reach:
    """How a running server is asked."""

    server: str | None
    token: str | None
    tls: bool
    ca: Path | None


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of commands that ask a running server, which get them as one."""

    @click.option(
        "--server",
        envvar="TIDINGS_SERVER",
        help="The server's address; otherwise TIDINGS_SERVER has it, or it is grpc.listen of the settings.",
    )
    @click.option(
        "--token",
        envvar="TIDINGS_ADMIN_TOKEN",
        help="A token with the scope admin; otherwise TIDINGS_ADMIN_TOKEN has it, or `token --admin` makes one.",
    )
    @click.option("--tls", is_flag=True, help="Speak TLS.")
    @click.option(
        "--ca",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Speak TLS, and believe the authorities in this file instead of the system's.",
    )
    @wraps(command)
    def asking(
        *args: Any,
        server: str | None,
        token: str | None,
        tls: bool,
        ca: Path | None,
        **kwargs: Any,
    ) -> None:
        command(Reach(server, token, tls, ca), *args, **kwargs)

    return asking


@cli.command()
@click.argument("conversation")
@click.argument("message")
@click.argument("user")
@click.option("--device", "devices", multiple=True, help="A device to look at; may be repeated.")
@server_options
@config_option
def explain(
    reach: Reach,
    conversation: str,
    message: str,
    user: str,
    devices: tuple[str, ...],
    config: Path | None,
) -> None:
    """Tell what became of a message on its way to USER, or why it has not arrived.

    MESSAGE is its id or its position.
    """
    with _operator(reach, config) as operator:
        for line in operator.explain(conversation, message, user, devices):
            click.echo(line)


@cli.command()
@server_options
@config_option
def nodes(reach: Reach, config: Path | None) -> None:
    """List the nodes that live, as a server knows them."""
    with _operator(reach, config) as operator:
        for line in operator.nodes():
            click.echo(line)


@cli.command()
@click.argument("user", default="")
@server_options
@config_option
def sessions(reach: Reach, user: str, config: Path | None) -> None:
    """List the sessions of a server, or those of USER there."""
    with _operator(reach, config) as operator:
        for line in operator.sessions(user):
            click.echo(line)


@contextmanager
def _operator(reach: Reach, config: Path | None) -> Iterator[Operator]:
    """Asks a server; what it refuses becomes one line."""
    from tidings_server.rpc.operator import Operator, Unanswered  # noqa: PLC0415 (it needs grpc)

    settings = _settings(config)
    made = reach.token or _mint(settings, "operator", "cli", 600, (ADMIN_SCOPE,))
    try:
        yield Operator(
            reach.server or settings.grpc.listen,
            made,
            tls=reach.tls or reach.ca is not None,
            authorities=None if reach.ca is None else reach.ca.read_bytes(),
        )
    except Unanswered as problem:
        raise Failure(str(problem)) from None


def _mint(settings: Settings, user: str, device: str, ttl: float, scopes: tuple[str, ...]) -> str:
    try:
        settings = with_dev_secret(settings, make=False)
        return mint(settings.auth.policy(), SystemClock(), user, device, ttl_s=ttl, scopes=scopes)
    except SecretUnusable as problem:
        raise Failure(str(problem)) from None
    except NoSecret:
        raise Misuse(
            f"auth.hs256_secret is not set and there is no {dev_secret_path(settings)}, which `serve --demo` makes"
        ) from None
    except DomainError as problem:
        raise Misuse(problem.message) from None


def _settings(config: Path | None) -> Settings:
    try:
        return load(config)
    except ConfigError as problem:
        raise Misuse(str(problem)) from None


def _store_name(settings: Settings) -> str:
    if settings.store.kind == "sqlite":
        return str(settings.store.path)
    return f"keyspace {settings.scylla.keyspace}"


def _embedded(settings: Settings, command: str) -> Settings:
    if settings.store.kind != "sqlite":
        raise Misuse(
            f"{command} is for the embedded store; a cluster has its own means (docs/storage-scylla.md)"
        )
    return settings


def _show(finding: Finding) -> None:
    colour = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}[finding.level]
    level = click.style(f"{finding.level.value:<4}", fg=colour, bold=True)
    remedy = f" -> {finding.remedy}" if finding.remedy else ""
    click.echo(f"{level}  {finding.subject:<7} {finding.what}{remedy}")


@contextmanager
def _progress(label: str) -> Iterator[maintenance.Progress]:
    """A bar on a terminal, and nothing elsewhere."""
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=1, label=label, file=sys.stderr, hidden=hidden) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = max(total, 1)
            bar.update(done - bar.pos)

        yield progress


@contextmanager
def _one_line_each() -> Iterator[None]:
    """What goes wrong in foreseen ways becomes one line."""
    try:
        yield
    except (StoreUnavailable, StoreCorrupt, BusUnusable, KeysUnusable) as problem:
        raise Failure(str(problem)) from None
    except OSError as problem:
        raise Failure(problem.strerror or str(problem)) from None


def _demo_settings(settings: Settings) -> Settings:
    if settings.auth.has_keys and settings.auth.hs256_secret is None:
        raise Misuse(
            "auth: the demo signs tokens itself: it needs auth.hs256_secret, or no keys at all"
        )
    try:
        return with_dev_secret(settings, make=True)
    except SecretUnusable as problem:
        raise Failure(str(problem)) from None


def _addresses(settings: Settings, running: Running) -> tuple[str, str | None, str | None]:
    """The addresses of gRPC, HTTP and metrics with the ports that were had."""

    def had(listen: str, port: int | None) -> str | None:
        return None if port is None else f"{listen.rpartition(':')[0]}:{port}"

    return (
        f"{settings.grpc.listen.rpartition(':')[0]}:{running.port}",
        had(settings.bridge.listen, running.http_port),
        had(settings.metrics.listen, running.metrics_port),
    )


def _raise_file_limit() -> None:
    """Each client needs a file: the usual soft limit of 1,024 is for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
