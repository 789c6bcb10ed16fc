"""How the program begins: arguments, tokens, the state file."""

from __future__ import annotations

import base64
import json
import shlex
import sys
from pathlib import Path

import pytest

from tidings_chat.options import parse, state_path
from tidings_chat.tokens import FixedToken, Identity, NoToken, TokenCommand, identity_of


def token_for(**claims: object) -> str:
    parts = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": "none"}, claims)
    )
    return ".".join((*parts, "signature"))


def python(code: str) -> str:
    return shlex.join([sys.executable, "-c", code])


async def test_the_token_may_come_from_the_environment_or_the_command_line() -> None:
    assert await parse([], {"TIDINGS_TOKEN": " abc\n"}).token() == "abc"
    assert await parse(["--token", "xyz"], {"TIDINGS_TOKEN": "abc"}).token() == "xyz"


async def test_a_token_command_is_run_each_time_and_knows_the_device(tmp_path: Path) -> None:
    code = "import os; print('token-of', os.environ['TIDINGS_DEVICE'], sep='-')"
    options = parse(["--token-command", python(code), "--device", "desk"], {})
    assert await options.token() == "token-of-desk"
    calls = tmp_path / "calls"
    command = TokenCommand(f"echo x >> {shlex.quote(str(calls))}; echo token")
    assert [await command(), await command()] == ["token", "token"]
    assert calls.read_text().split() == ["x", "x"]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import sys; sys.exit('no key')", "no key"),
        ("import sys; sys.exit(3)", "exit code 3"),
        ("print('two words')", "printed no token"),
        ("pass", "printed no token"),
    ],
)
async def test_a_token_command_that_fails_says_why(code: str, told: str) -> None:
    with pytest.raises(NoToken, match=told):
        await TokenCommand((sys.executable, "-c", code))()


async def test_a_token_command_that_is_not_there_says_so() -> None:
    with pytest.raises(NoToken, match="can't be run"):
        await TokenCommand(("/no/such/program",))()


def test_without_a_token_the_program_tells_how_to_give_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as exited:
        parse([], {})
    assert exited.value.code == 2
    assert "TIDINGS_TOKEN" in capsys.readouterr().err


def test_the_theme_may_be_preferred_in_the_environment() -> None:
    environment = {"TIDINGS_TOKEN": "t", "TIDINGS_CHAT_THEME": "light"}
    assert parse([], environment).theme == "light"
    assert parse(["--theme", "dark"], environment).theme == "dark"
    assert parse([], {**environment, "TIDINGS_CHAT_THEME": "pink"}).theme == "dark"


def test_the_identity_is_read_from_the_token() -> None:
    assert identity_of(token_for(sub="bob", device_id="desk")) == Identity("bob", "desk")
    for odd in ("", "abc", "a.b.c", "a.e30.c", token_for()):
        assert identity_of(odd) == Identity()


def test_every_user_device_and_server_has_a_state_file_of_its_own(tmp_path: Path) -> None:
    environment = {"XDG_STATE_HOME": str(tmp_path)}

    def path(server: str, user: str, device: str) -> Path:
        options = parse(["--token", "t", "--server", server], {})
        return state_path(options, Identity(user, device), environment)

    paths = {
        path(server, user, device)
        for server in ("a:1", "b:1")
        for user in ("bob", "../bob", "x" * 127 + "1", "x" * 127 + "2", "élan")
        for device in ("d1", "d2")
    }
    assert len(paths) == 20
    for one in paths:
        assert one.parent.parent == tmp_path / "tidings-chat"
        assert one.parent.stat().st_mode & 0o077 == 0
        one.write_bytes(b"")


def test_a_state_file_may_be_named(tmp_path: Path) -> None:
    named = tmp_path / "state"
    options = parse(["--token", "t", "--state", str(named)], {})
    assert state_path(options, Identity("bob"), {}) == named
    assert isinstance(options.token, FixedToken)
