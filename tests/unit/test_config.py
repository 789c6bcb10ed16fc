"""Settings: where they come from, and that each mistake is named without giving values away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from tidings_server.config import Address, ConfigError, Settings, load
from tidings_server.core.limits import Limits

SECRET = "a secret of thirty-two bytes or so"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("TIDINGS_"):
            monkeypatch.delenv(name)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "server.toml"


def problem(path: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_defaults_are_those_of_the_documentation() -> None:
    settings = load()
    assert settings.grpc.listen == "127.0.0.1:50051"
    assert settings.metrics.listen == "127.0.0.1:9464"
    assert settings.store.path == Path("data/tidings.db")
    assert settings.limits.as_limits() == Limits()
    assert not settings.auth.has_keys
    assert settings.otel.sample_ratio == 0.0


def test_the_environment_beats_the_file(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text(
        '[limits]\nwindow = 7\nmax_members = 9\n[grpc]\nlisten = "0.0.0.0:1"\n', "utf-8"
    )
    monkeypatch.setenv("TIDINGS_LIMITS__WINDOW", "8")
    settings = load(toml)
    assert settings.limits.as_limits() == Limits(window=8, max_members=9)
    assert settings.grpc.listen == "0.0.0.0:1"


def test_the_file_may_be_named_by_the_environment(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml.write_text("[limits]\nwindow = 7\n", "utf-8")
    monkeypatch.setenv("TIDINGS_CONFIG", str(toml))
    assert load().limits.window == 7


def test_keys_make_a_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_AUTH__HS256_SECRET", SECRET)
    monkeypatch.setenv("TIDINGS_AUTH__JWKS_URL", "https://id.example.com/keys")
    monkeypatch.setenv("TIDINGS_AUTH__ISSUER", "me")
    auth = load().auth
    policy = auth.policy()
    assert auth.has_keys
    assert (policy.hs256_secret, policy.issuer) == (SECRET.encode(), "me")
    assert policy.jwks_url == "https://id.example.com/keys"


def test_settings_show_no_secret_and_cannot_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_AUTH__HS256_SECRET", SECRET)
    settings = load()
    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json()
    with pytest.raises(ValidationError):
        settings.auth.issuer = "another"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[limits]\nwindow = 0\n", "limits.window: must be greater than or equal to 1 (in {})"),
        ("[limits]\nwindow = 8193\n", "limits.window: must be less than or equal to 8192 (in {})"),
        ("[limits]\nwindow = 'x'\n", "limits.window: must be a valid integer"),
        ("[limits]\nwindov = 1\n", "limits.windov: is no setting (is limits.window meant?) (in"),
        ("[limit]\nwindow = 1\n", "limit: is no setting (is limits meant?) (in {})"),
        ("_env_file = '.env'\n", "_env_file: is no setting (in {})"),
        ("_cli_parse_args = true\n", "_cli_parse_args: is no setting (in {})"),
        ("self = 1\n", "self: is no setting (in {})"),
        ("limits = 3\n", "limits: must be a valid dictionary"),
        ("[grpc]\nlisten = '50051'\n", "grpc.listen: must be host:port, such as"),
        ("[grpc]\nlisten = 'localhost:70000'\n", "grpc.listen: the port must be a number"),
        ("[grpc]\nlisten = '::1:50051'\n", "grpc.listen: an IPv6 address goes in brackets"),
        ("[auth]\njwks_url = 'ftp://x/keys'\n", "auth.jwks_url: must be a URL that begins"),
        ("[auth]\njwks_url = 'http://x.org/k'\n", "auth.jwks_url: must be an https:// URL"),
        (
            "[auth]\njwks_url = 'https://x/k'\njwks_file = 'k'\n",
            "auth: jwks_file and jwks_url exclude each other (in {})",
        ),
        ("[log]\nlevel = 'loud'\n", "log.level: must be 'debug', 'info', 'warning' or 'error'"),
        ("[otel]\ntrace_sample_ratio = 2\n", "otel.trace_sample_ratio: must be less than or"),
        ("[otel]\ntrace_sample_ratio = 1\n", "otel: trace_sample_ratio needs otlp_endpoint"),
        ("[limits\n", "the file {} is no valid TOML: "),
        ("a = '\x00'\n", "the file {} is no valid TOML: "),
    ],
)
def test_mistakes_in_the_file_are_named(toml: Path, text: str, expected: str) -> None:
    toml.write_text(text, "utf-8")
    assert expected.format(toml) in problem(toml)


def test_a_file_that_is_no_text_or_not_there_is_named(toml: Path) -> None:
    assert f"the file {toml} can't be read: No such file" in problem(toml)
    toml.write_bytes(b"\xff\xfe")
    assert "is no valid TOML" in problem(toml)


def test_mistakes_in_the_environment_are_named(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text("[limits]\nwindow = 5\n", "utf-8")
    monkeypatch.setenv("TIDINGS_LIMITS__WINDOW", "many")
    monkeypatch.setenv("TIDINGS_METRICS__LISTEN", "nowhere")
    text = problem(toml)
    assert "limits.window: must be a valid integer" in text
    assert "(from TIDINGS_LIMITS__WINDOW in the environment)" in text
    assert "(from TIDINGS_METRICS__LISTEN in the environment)" in text
    assert "many" not in text
    assert "nowhere" not in text


@pytest.mark.parametrize(
    "name",
    [
        "TIDINGS_LIMITS__WINDOV",
        "TIDINGS_LIMIT__WINDOW",
        "TIDINGS_LIMITS_WINDOW",
        "TIDINGS_LIMITS",
        "TIDINGS_LIMITS__WINDOW__X",
        "tidings_limits__windov",
    ],
)
def test_unknown_names_in_the_environment_are_errors(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, '{"window": 1}')
    assert problem().startswith(f"{name} in the environment is no setting")


@pytest.mark.parametrize(
    "name", ["TIDINGS_TOKEN", "TIDINGS_SERVER", "TIDINGS_DEVICE", "TIDINGS_CHAT_THEME"]
)
def test_names_of_clients_are_left_to_them(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "eyJ")
    load()


def test_a_near_name_is_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_LIMITS_WINDOW", "1")
    assert "is TIDINGS_LIMITS__WINDOW meant?" in problem()


@pytest.mark.parametrize("place", ["file", "environment"])
def test_a_bad_secret_is_not_shown(toml: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    if place == "file":
        toml.write_text("[auth]\nhs256_secret = 'hunter2'\njwks_url = 'ftp://u:hunter2@x/'\n")
    else:
        toml.write_text("")
        monkeypatch.setenv("TIDINGS_AUTH__HS256_SECRET", "hunter2")
    text = problem(toml)
    assert "hunter2" not in text
    assert "auth" in text


def test_a_short_secret_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_AUTH__HS256_SECRET", "x" * 31)
    expected = "auth.hs256_secret: must have at least 32 bytes (from TIDINGS_AUTH__HS256_SECRET"
    assert expected in problem()


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051, True),
        ("127.8.0.1:0", "127.8.0.1", 0, True),
        ("localhost:1", "localhost", 1, True),
        ("[::1]:65535", "::1", 65535, True),
        ("0.0.0.0:1", "0.0.0.0", 1, False),
        ("[::]:1", "::", 1, False),
    ],
)
def test_addresses(text: str, host: str, port: int, loopback: bool) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, address.loopback) == (host, port, loopback)
    assert str(address) == text


def test_traces_are_sampled_once_there_is_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_OTEL__OTLP_ENDPOINT", "http://127.0.0.1:4317")
    assert load().otel.sample_ratio == 0.01
    monkeypatch.setenv("TIDINGS_OTEL__TRACE_SAMPLE_RATIO", "0")
    assert load().otel.sample_ratio == 0.0


def test_every_setting_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text("utf-8")
    for group, field in Settings.model_fields.items():
        for name in field.annotation.model_fields:  # type: ignore[union-attr]
            assert f"`{group}.{name}`" in page


def test_the_example_of_the_documentation_is_valid(toml: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text("utf-8")
    toml.write_text(page.split("```toml\n")[1].split("```")[0], "utf-8")
    assert load(toml).auth.issuer == "https://id.example.com"
