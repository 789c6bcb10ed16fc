"""Settings: what an operator may say, from the environment and a TOML file, validated once."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tidings_server.auth.policy import TokenPolicy
from tidings_server.core.limits import MAX_WINDOW, Limits

PREFIX = "TIDINGS_"
CONFIG_VARIABLE = "TIDINGS_CONFIG"
CLIENT_VARIABLES = frozenset(
    {
        "TIDINGS_TOKEN",
        "TIDINGS_ADMIN_TOKEN",
        "TIDINGS_SERVER",
        "TIDINGS_DEVICE",
        "TIDINGS_CHAT_THEME",
    }
)
"""Names that clients read: people set them in the shell that they start the server from, too."""
MIN_SECRET_BYTES = 32
_LIMITS = Limits()


class ConfigError(Exception):
    """Settings can't be used. The text names each field, its problem and where it came from, and
    holds no values.
    """


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0 lets the system choose."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `host:port` or `[ipv6]:port`. Raises ValueError saying what is wrong."""
        host, colon, port = text.rpartition(":")
        if not colon or not host:
            raise ValueError("must be host:port, such as 127.0.0.1:50051")
        if host.startswith("[") != host.endswith("]") or (":" in host and not host.startswith("[")):
            raise ValueError("an IPv6 address goes in brackets, such as [::1]:50051")
        if not port.isascii() or not port.isdigit() or int(port) > 65_535:
            raise ValueError("the port must be a number from 0 to 65535")
        return cls(host.strip("[]"), int(port))

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _listen(text: str) -> str:
    return str(Address.parse(text))


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be a URL that begins with https:// or http://")
    return text


def _jwks_url(text: str) -> str:
    parts = urlsplit(_url(text))
    if parts.scheme == "http" and not Address(parts.hostname or "", 0).loopback:
        raise ValueError("must be an https:// URL (http:// is for this machine only)")
    return text


Listen = Annotated[str, AfterValidator(_listen)]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class GrpcSettings(_Group):
    """The API. With a certificate it speaks TLS; files that change are read again."""

    listen: Listen = "127.0.0.1:50051"
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file go together")
        return self


class MetricsSettings(_Group):
    """The Prometheus endpoint, with health beside it."""

    enabled: bool = True
    listen: Listen = "127.0.0.1:9464"


def _servers(text: str) -> str:
    for part in text.split(","):
        Address.parse(part.strip())
    return text


def _origins(text: str) -> str:
    for origin in _split(text):
        parts = urlsplit(origin)
        if origin not in {"*", f"{parts.scheme}://{parts.netloc}"}:
            raise ValueError(
                "must be origins with commas between them, such as https://chat.example.com, or *"
            )
    return text


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


class BridgeSettings(_Group):
    """The HTTP port for browsers. With a certificate it speaks TLS; files that change are read again.

    An address may connect `connects_at_once` times, and `connects_a_second` for long; with `behind_proxy` it is the one
    that the proxy tells in X-Forwarded-For. The servers are those of the process `tidings-bridge`.
    """

    enabled: bool = True
    listen: Listen = "127.0.0.1:8080"
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    allowed_origins: Annotated[str, AfterValidator(_origins)] = ""
    ping_interval_s: Annotated[float, Field(ge=0.1, le=600)] = 20
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    connects_a_second: Annotated[float, Field(gt=0, le=100_000)] = 50
    connects_at_once: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    behind_proxy: bool = False
    servers: Annotated[str, AfterValidator(_servers)] = "127.0.0.1:50051"
    servers_tls: bool = False
    servers_tls_ca_file: Path | None = None

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file go together")
        if self.servers_tls_ca_file is not None and not self.servers_tls:
            raise ValueError("servers_tls_ca_file is named, but servers_tls is off")
        return self

    def server_list(self) -> tuple[str, ...]:
        """The addresses of the servers."""
        return _split(self.servers)

    def origin_list(self) -> tuple[str, ...]:
        """The sites whose pages are allowed, besides the bridge's own."""
        return _split(self.allowed_origins)


class StoreSettings(_Group):
    """Where messages are kept: in the embedded store, a file whose relative path begins at the working directory, or in
    the cluster that `scylla` names.
    """

    kind: Literal["sqlite", "scylla"] = "sqlite"
    path: Path = Path("data/tidings.db")


def _hosts(text: str) -> str:
    if not all(part.strip() for part in text.split(",")):
        raise ValueError("must be host names or addresses with commas between them")
    return text


def _copies(text: str) -> dict[str, int]:
    """Copies by data centre; "" is the one of the contact points."""
    found: dict[str, int] = {}
    for part in text.split(","):
        centre, _, number = part.rpartition(":")
        name, copies = centre.strip(), number.strip()
        plausible = copies.isascii() and copies.isdigit() and 1 <= int(copies) <= 9
        if not plausible or name in found or (not name and "," in text):
            raise ValueError(
                "must be a number of copies from 1 to 9, or data centres with theirs, such as east:3,west:3"
            )
        found[name] = int(copies)
    return found


def _replication(text: str) -> str:
    _copies(text)
    return text


class ScyllaSettings(_Group):
    """The cluster of ScyllaDB or Cassandra, when `store.kind` is `scylla`.

    `replication` is how the keyspace is made when it is absent: copies in the data centre of the contact points, or by
    data centre (`east:3,west:3`). `consistency` says whose word counts: `local`, a quorum of the data centre that a
    node speaks to, or `everywhere`, one of all. With several data centres `local` needs `home_datacenter`.
    """

    hosts: Annotated[str, AfterValidator(_hosts)] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)] = 9042
    keyspace: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$")] = "tidings"
    replication: Annotated[str, AfterValidator(_replication)] = "3"
    consistency: Literal["local", "everywhere"] = "local"
    home_datacenter: Annotated[str, Field(min_length=1)] | None = None
    username: Annotated[str, Field(min_length=1)] | None = None
    password: SecretStr | None = None
    tls: bool = False
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    request_timeout_s: Annotated[float, Field(ge=0.5, le=60)] = 3

    @model_validator(mode="after")
    def _one_home(self) -> Self:
        several = len(self.copies()) > 1
        if several and self.consistency == "local" and self.home_datacenter is None:
            raise ValueError(
                "with copies in several data centres, appends that are decided in one of them would fork logs: set"
                " home_datacenter, or consistency = everywhere"
            )
        if not self.tls and (self.tls_ca_file or self.tls_cert_file or self.tls_key_file):
            raise ValueError("files for TLS are named, but tls is off")
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        return self

    def host_list(self) -> tuple[str, ...]:
        """The contact points."""
        return tuple(part.strip() for part in self.hosts.split(","))

    def copies(self) -> dict[str, int]:
        """Copies by data centre; "" is the one of the contact points."""
        return _copies(self.replication)


class BusSettings(_Group):
    """What carries events between nodes: nothing, for a node alone, or the Redis that `redis` names."""

    kind: Literal["local", "redis"] = "local"


class RedisSettings(_Group):
    """Redis, when `bus.kind` is `redis`: one server, or a Redis Cluster of which some servers are named.

    Nodes with the same `namespace` hear each other. A node that ends without a word is gone for others after
    `lease_s`, which is the same at all nodes. A connection that is silent for `silence_s` is made anew.
    """

    hosts: Annotated[str, AfterValidator(_servers)] = "127.0.0.1:6379"
    cluster: bool = False
    namespace: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,47}$")] = "tidings"
    username: Annotated[str, Field(min_length=1)] | None = None
    password: SecretStr | None = None
    tls: bool = False
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    tls_check_hostname: bool = True
    lease_s: Annotated[float, Field(ge=1, le=300)] = 10
    silence_s: Annotated[float, Field(ge=0.5, le=60)] = 5

    @model_validator(mode="after")
    def _together(self) -> Self:
        if not self.cluster and len(self.host_list()) > 1:
            raise ValueError("hosts names several servers: set cluster, or name one")
        if self.username is not None and self.password is None:
            raise ValueError("username needs password")
        if not self.tls and (self.tls_ca_file or self.tls_cert_file or self.tls_key_file):
            raise ValueError("files for TLS are named, but tls is off")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file go together")
        return self

    def host_list(self) -> tuple[Address, ...]:
        """The servers."""
        return tuple(Address.parse(part.strip()) for part in self.hosts.split(","))


def _secret(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
        raise ValueError(f"must have at least {MIN_SECRET_BYTES} bytes")
    return secret


class NodesSettings(_Group):
    """How nodes reach each other, when `bus.kind` is `redis`: without a `key` that all share, or certificates, each
    appends by itself.

    Others reach this node at `advertise`; unless given it is `listen` with the port that the system chose.
    """

    listen: Listen = "127.0.0.1:0"
    advertise: Listen | None = None
    key: Annotated[SecretStr, AfterValidator(_secret)] | None = None
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    tls_server_name: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _together(self) -> Self:
        files = (self.tls_ca_file, self.tls_cert_file, self.tls_key_file)
        if any(files) and not all(files):
            raise ValueError("tls_ca_file, tls_cert_file and tls_key_file go together")
        if self.tls_server_name is not None and not any(files):
            raise ValueError("tls_server_name needs the files for TLS")
        if self.advertise is None and Address.parse(self.listen).host in {"0.0.0.0", "::"}:  # noqa: S104
            raise ValueError("advertise must say where others reach a node that listens everywhere")
        return self

    @property
    def trusted(self) -> bool:
        """Whether nodes can know each other."""
        return self.key is not None or self.tls_cert_file is not None


class AuthSettings(_Group):
    """Whose tokens are believed."""

    issuer: Annotated[str, Field(min_length=1)] = "tidings"
    audience: Annotated[str, Field(min_length=1)] = "tidings"
    hs256_secret: Annotated[SecretStr, AfterValidator(_secret)] | None = None
    jwks_file: Path | None = None
    jwks_url: Annotated[str, AfterValidator(_jwks_url)] | None = None
    leeway_s: Annotated[float, Field(ge=0, le=300)] = 5
    token_warning_s: Annotated[float, Field(ge=0, le=86_400)] = 60

    @model_validator(mode="after")
    def _keys(self) -> Self:
        if self.jwks_file is not None and self.jwks_url is not None:
            raise ValueError("jwks_file and jwks_url exclude each other")
        return self

    @property
    def has_keys(self) -> bool:
        """Whether any token could be believed."""
        return any(k is not None for k in (self.hs256_secret, self.jwks_file, self.jwks_url))

    def policy(self) -> TokenPolicy:
        """What `auth` needs to know."""
        secret = self.hs256_secret
        return TokenPolicy(
            issuer=self.issuer,
            audience=self.audience,
            leeway_s=self.leeway_s,
            hs256_secret=secret.get_secret_value().encode() if secret is not None else None,
            jwks_file=self.jwks_file,
            jwks_url=self.jwks_url,
        )


class LimitSettings(_Group):
    """Sizes and numbers, as in `core.limits.Limits`."""

    window: Annotated[int, Field(ge=1, le=MAX_WINDOW)] = _LIMITS.window
    max_text_bytes: Annotated[int, Field(ge=1, le=65_536)] = _LIMITS.max_text_bytes
    max_frame_bytes: Annotated[int, Field(ge=131_072, le=4_194_304)] = _LIMITS.max_frame_bytes
    max_commands_in_flight: Annotated[int, Field(ge=1, le=100_000)] = _LIMITS.max_commands_in_flight
    outbox_bytes: Annotated[int, Field(ge=262_144, le=268_435_456)] = _LIMITS.outbox_bytes
    catch_up_limit: Annotated[int, Field(ge=1, le=10_000)] = _LIMITS.catch_up_limit
    new_device_messages: Annotated[int, Field(ge=0, le=1_000)] = _LIMITS.new_device_messages
    new_device_conversations: Annotated[int, Field(ge=0, le=1_000)] = (
        _LIMITS.new_device_conversations
    )
    max_members: Annotated[int, Field(ge=2, le=10_000_000)] = _LIMITS.max_members
    beacon_interval_ms: Annotated[int, Field(ge=100, le=600_000)] = _LIMITS.beacon_interval_ms

    def as_limits(self) -> Limits:
        """The limits for the rest of the server."""
        return Limits(**self.model_dump())


class DrainSettings(_Group):
    """How the server stops: it says that it is not ready, for `notice_s` before anything else; then
    clients are told to come back after a random delay of up to `delay_spread_s`, and what is under
    way has `grace_s` to finish.
    """

    notice_s: Annotated[float, Field(ge=0, le=600)] = 0
    delay_spread_s: Annotated[float, Field(ge=0, le=600)] = 5
    grace_s: Annotated[float, Field(ge=0, le=600)] = 10


class LogSettings(_Group):
    """The log. `auto` is `console` on a terminal and `json` elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class OtelSettings(_Group):
    """Export of metrics and traces by OTLP over gRPC.

    `trace_sample_ratio` is the part of commands that is traced: 0.01 unless given. Without an
    endpoint nothing is.
    """

    otlp_endpoint: Annotated[str, AfterValidator(_url)] | None = None
    trace_sample_ratio: Annotated[float | None, Field(ge=0, le=1)] = None
    service_name: Annotated[str, Field(min_length=1)] = "tidings-server"
    metrics_interval_s: Annotated[float, Field(ge=1, le=3_600)] = 60

    @model_validator(mode="after")
    def _somewhere_to_send(self) -> Self:
        if self.otlp_endpoint is None and self.trace_sample_ratio:
            raise ValueError("trace_sample_ratio needs otlp_endpoint")
        return self

    @property
    def sample_ratio(self) -> float:
        """The part of commands that is traced."""
        if self.otlp_endpoint is None:
            return 0.0
        return 0.01 if self.trace_sample_ratio is None else self.trace_sample_ratio


class Settings(BaseSettings):
    """Everything that an operator may say. Made by `load`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
    )

    grpc: GrpcSettings = GrpcSettings()
    bridge: BridgeSettings = BridgeSettings()
    metrics: MetricsSettings = MetricsSettings()
    store: StoreSettings = StoreSettings()
    scylla: ScyllaSettings = ScyllaSettings()
    bus: BusSettings = BusSettings()
    redis: RedisSettings = RedisSettings()
    nodes: NodesSettings = NodesSettings()
    auth: AuthSettings = AuthSettings()
    limits: LimitSettings = LimitSettings()
    drain: DrainSettings = DrainSettings()
    log: LogSettings = LogSettings()
    otel: OtelSettings = OtelSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment beats what is given to the constructor, which is the TOML file."""
        return env_settings, init_settings


def load(path: Path | None = None) -> Settings:
    """The settings from the environment and a TOML file, whose path may also be in TIDINGS_CONFIG.

    Raises ConfigError.
    """
    environ = os.environ
    if path is None and environ.get(CONFIG_VARIABLE):
        path = Path(environ[CONFIG_VARIABLE])
    given = _read_toml(path) if path is not None else {}
    unknown = [n for n in environ if _is_ours(n) and _variable(n) not in _variables()]
    if unknown:
        raise ConfigError("; ".join(_unknown_variable(n) for n in sorted(unknown)))
    # To pydantic-settings such names are orders, not settings.
    for name in given:
        if name.startswith("_"):
            raise ConfigError(f"{name}: is no setting (in {path})")
    try:
        return Settings(**given)
    except ValidationError as problem:
        raise ConfigError("; ".join(_tell(problem, path, environ))) from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as problem:
        raise ConfigError(f"the file {path} can't be read: {problem.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"the file {path} is no valid TOML: {problem}") from None


def _groups() -> Iterator[tuple[str, type[_Group]]]:
    for name, field in Settings.model_fields.items():
        yield name, cast("type[_Group]", field.annotation)


def _variables() -> set[str]:
    return {
        f"{PREFIX}{group}__{name}".upper()
        for group, model in _groups()
        for name in model.model_fields
    }


def _is_ours(name: str) -> bool:
    variable = _variable(name)
    return variable.startswith(PREFIX) and variable not in {CONFIG_VARIABLE, *CLIENT_VARIABLES}


def _variable(name: str) -> str:
    return name.upper()


def _unknown_variable(name: str) -> str:
    near = difflib.get_close_matches(_variable(name), _variables(), 1, 0.8)
    hint = f" (is {near[0]} meant?)" if near else ""
    return f"{name} in the environment is no setting{hint}"


def _tell(problem: ValidationError, path: Path | None, environ: Mapping[str, str]) -> Iterator[str]:
    known = {f"{g}.{n}" for g, model in _groups() for n in model.model_fields}
    known |= set(Settings.model_fields)
    names = {_variable(n) for n in environ}
    for error in problem.errors(include_url=False, include_input=False, include_context=False):
        field = ".".join(str(part) for part in error["loc"][:2])
        variable = f"{PREFIX}{field.replace('.', '__')}".upper()
        origin = f"in {path}" if path is not None else "as a default"
        if variable in names:
            origin = f"from {variable} in the environment"
        elif any(n.startswith(f"{variable}__") for n in names):
            origin = f"from {variable}__* in the environment" + (f" and {path}" if path else "")
        what = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        if error["type"] == "extra_forbidden":
            near = difflib.get_close_matches(field, known, 1, 0.7)
            what = "is no setting" + (f" (is {near[0]} meant?)" if near else "")
        yield f"{field}: {what} ({origin})"
