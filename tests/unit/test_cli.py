"""The command line: what it prints where, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from tests.unit.tokens import SECRET
from tidings.v1.conversation_service_pb2 import ListConversationsRequest
from tidings.v1.conversation_service_pb2_grpc import ConversationServiceStub
from tidings_server.auth import TokenPolicy, TokenVerifier
from tidings_server.cli import main
from tidings_server.core.clock import SystemClock

Run = Callable[..., tuple[int, str, str]]
DEADLINE_S = 60


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in an empty folder: its exit code, standard output and standard error."""
    for name in os.environ:
        if name.upper().startswith("TIDINGS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tidings-server", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return run


class Server:
    """A server process with a demo, on ports of the system's choice."""

    def __init__(self, folder: Path, *args: str, **settings: str) -> None:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("TIDINGS_")}
        environ |= {
            "TIDINGS_GRPC__LISTEN": "127.0.0.1:0",
            "TIDINGS_BRIDGE__LISTEN": "127.0.0.1:0",
            "TIDINGS_METRICS__LISTEN": "127.0.0.1:0",
            "TIDINGS_DRAIN__DELAY_SPREAD_S": "0",
            **settings,
        }
        self.log = folder / "server.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tidings_server", "serve", *args],
                cwd=folder,
                env=environ,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def welcome(self) -> str:
        """What it prints, up to its last line."""
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        assert lines, self.log.read_text("utf-8")
        return "".join(lines)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends it by a signal: the exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def serve(*args: str, **settings: str) -> Server:
        started.append(Server(tmp_path, *args, **settings))
        return started[-1]

    yield serve
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()
        assert server.process.stdout is not None
        server.process.stdout.close()


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    assert match is not None, (pattern, text)
    return match[1]


def conversations(address: str, token: str) -> dict[str, int]:
    """A user's conversations and their newest positions, from a real call."""
    with grpc.insecure_channel(address) as channel:
        answer = ConversationServiceStub(channel).ListConversations(
            ListConversationsRequest(page_size=200),
            metadata=(("authorization", f"Bearer {token}"),),
            timeout=DEADLINE_S,
        )
    return {c.title or c.peer_user_id: c.head_seq for c in answer.conversations}


def test_the_demo_can_be_chatted_with_and_comes_back_the_same(
    serve: Callable[..., Server], run: Run
) -> None:
    server = serve("--demo")
    welcome = server.welcome()
    address = found(r"^    API +(\S+)", welcome)
    first = conversations(address, found(r"^    alice +(eyJ\S+)$", welcome))
    assert {"bob", "carol", "#rust", "Small joys"} <= first.keys()
    code, token, err = run("token", "carol", "--device", "desk")
    assert (code, err) == (0, "")
    assert "#rust" in conversations(address, token.strip())
    code, out, err = run("migrate")
    assert (code, out) == (1, "")
    assert re.fullmatch(r"tidings-server: .* in use by the process .*\n", err)
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL

    server = serve("--demo")
    welcome = server.welcome()
    address = found(r"^    API +(\S+)", welcome)
    assert conversations(address, found(r"^    alice +(eyJ\S+)$", welcome)) == first
    assert conversations(address, token.strip())
    assert server.stop(signal.SIGTERM) == 0
    log = server.log.read_text("utf-8")
    assert "Traceback" not in log
    assert "eyJ" not in log


def test_a_taken_port_is_one_line(serve: Callable[..., Server]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for group in ("GRPC", "BRIDGE", "METRICS"):
            setting = f"TIDINGS_{group}__LISTEN"
            server = serve("--demo", **{setting: address})
            assert server.process.wait(DEADLINE_S) == 1
            errors = [
                line
                for line in server.log.read_text("utf-8").splitlines()
                if line.startswith("tidings-server: ")
            ]
            assert len(errors) == 1
            assert address.rpartition(":")[2] in errors[0]
            assert "Traceback" not in server.log.read_text("utf-8")


async def test_a_token_is_all_that_is_printed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_AUTH__HS256_SECRET", SECRET.decode())
    args = ("--device", "desk", "--ttl", "90s", "--scope", "admin", "--scope", "feed")
    code, out, err = run("token", "alice", *args)
    assert (code, err) == (0, "")
    before = time.time()
    principal = await TokenVerifier(TokenPolicy(hs256_secret=SECRET), SystemClock()).verify(
        out.removesuffix("\n")
    )
    assert (principal.user_id, principal.device_id) == ("alice", "desk")
    assert principal.scopes == {"admin", "feed"}
    assert before + 60 < principal.expires_at_ms / 1000 < before + 120


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["token"], "Missing argument 'USER'"),
        (["token", "a b"], "must not contain white space"),
        (["token", "alice", "--device", "x" * 65], "at most 64 bytes"),
        (["token", "alice", "--ttl", "0"], "is no time such as"),
        (["token", "alice", "--ttl", "soon"], "is no time such as"),
        (["tokens"], "No such command 'tokens'"),
        (["serve", "--demon"], "No such option '--demon'"),
        (["serve", "--config", "absent.toml"], "absent.toml can't be read: No such file"),
        (["migrate", "--config", "."], "can't be read: Is a directory"),
    ],
    ids=" ".join,
)
def test_misuse_is_one_line_and_code_2(
    run: Run, monkeypatch: pytest.MonkeyPatch, args: list[str], why: str
) -> None:
    monkeypatch.setenv("TIDINGS_AUTH__HS256_SECRET", SECRET.decode())
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert err.startswith("tidings-server: ")
    assert err.count("\n") == 1
    assert why in err
    assert SECRET.decode() not in err


def test_wrong_settings_stop_every_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_LIMITS__WINDOW", "0")
    for args in (["serve"], ["migrate"], ["token", "alice"]):
        code, out, err = run(*args)
        assert (code, out) == (2, "")
        assert err.startswith("tidings-server: limits.window: must be greater")


def test_a_server_without_keys_says_which_it_could_have(run: Run) -> None:
    code, out, err = run("serve")
    assert (code, out) == (2, "")
    assert "auth.jwks_url" in err
    code, out, err = run("token", "alice")
    assert (code, out) == (2, "")
    assert "auth.hs256_secret" in err


def test_the_demo_adds_no_secret_to_public_keys(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_AUTH__JWKS_URL", "https://id.example.com/keys")
    code, _, err = run("serve", "--demo")
    assert code == 2
    assert "auth.hs256_secret" in err
    assert not Path("data").exists()


def test_bad_keys_are_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("jwks.json").write_text("{}", "utf-8")
    monkeypatch.setenv("TIDINGS_AUTH__JWKS_FILE", "jwks.json")
    code, _, err = run("serve")
    assert code == 1
    assert err.splitlines()[-1].startswith("tidings-server: auth.jwks_file jwks.json: ")
    assert "Traceback" not in err


def test_migrate_makes_a_store_once(run: Run) -> None:
    for _ in range(2):
        assert run("migrate") == (0, "data/tidings.db is up to date\n", "")
    Path("data/tidings.db").write_bytes(b"no database at all" * 1000)
    code, out, err = run("migrate")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1


def test_a_store_is_backed_up_while_it_is_used_and_restored_as_another(
    serve: Callable[..., Server], run: Run
) -> None:
    server = serve("--demo")
    welcome = server.welcome()
    alice = found(r"^    alice +(eyJ\S+)$", welcome)
    first = conversations(found(r"^    API +(\S+)", welcome), alice)
    code, out, err = run("backup", "copy.db")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"copy\.db: [0-9,]+ entries in [0-9]+ logs, [0-9.]+ MiB\n", out)
    assert Path("copy.db").stat().st_mode & 0o077 == 0
    code, out, err = run("restore", "copy.db")
    assert (code, out) == (1, "")
    assert "in use by the process" in err
    server.stop(signal.SIGKILL)
    code, out, err = run("restore", "copy.db")
    assert (code, out) == (1, "")
    assert re.search(r"data/tidings\.db\S* (exists already|is there)", err)

    # What a kill left is inspected without being touched.
    left = {p.name: p.read_bytes() for p in Path("data").iterdir() if p.suffix != ".lock"}
    code, out, err = run("doctor")
    assert (code, err) == (0, "")
    assert re.search(r"^ok +store +data/tidings\.db: [0-9,]+ entries in", out, re.MULTILINE)
    for name, content in left.items():
        if not name.endswith("-shm"):
            assert Path("data", name).read_bytes() == content

    assert run("restore", "copy.db", "--to", "new/tidings.db")[0] == 0
    Path("data/dev-secret").rename("new/dev-secret")
    server = serve("--demo", TIDINGS_STORE__PATH="new/tidings.db")
    assert conversations(found(r"^    API +(\S+)", server.welcome()), alice) == first


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["backup", "copy.db"], "there is no database at data/tidings.db"),
        (["restore", "absent.db"], "there is no database at absent.db"),
        (["restore", "rubbish.db"], "is not a sound database"),
        (["backup", "nowhere/copy.db", "--config", "rubbish.toml"], "nowhere/copy.db"),
    ],
    ids=" ".join,
)
def test_copies_that_cannot_be_made_are_one_line(run: Run, args: list[str], why: str) -> None:
    Path("rubbish.db").write_bytes(b"no database at all" * 1000)
    Path("rubbish.toml").write_text('[store]\npath = "rubbish.db"\n', "utf-8")
    code, out, err = run(*args)
    assert (code, out) == (1, "")
    assert err.startswith("tidings-server: ")
    assert err.count("\n") == 1
    assert why in err


def test_the_doctor_tells_what_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_GRPC__LISTEN", "127.0.0.1:0")
    monkeypatch.setenv("TIDINGS_BRIDGE__LISTEN", "127.0.0.1:0")
    monkeypatch.setenv("TIDINGS_METRICS__LISTEN", "127.0.0.1:0")
    code, out, err = run("doctor")
    assert (code, err) == (0, "")
    assert out.startswith("ok    config  the settings are valid\n")
    assert re.search(r"^warn  auth .* -> .*auth\.jwks_url", out, re.MULTILINE)
    assert not Path("data").exists()
    Path("data").mkdir()
    Path("data/tidings.db").write_bytes(b"no database at all" * 1000)
    code, out, err = run("doctor")
    assert (code, err) == (1, "")
    assert re.search(r"^fail  store .* -> .*restore a backup", out, re.MULTILINE)
    monkeypatch.setenv("TIDINGS_LIMITS__WINDOW", "0")
    code, out, err = run("doctor")
    assert (code, err) == (1, "")
    assert out.startswith("fail  config  limits.window: must be")


def test_help_and_version(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for command in ("serve", "migrate", "token", "backup", "restore", "doctor"):
        assert re.search(rf"^  {command} ", out, re.MULTILINE)
    assert run("--version")[1].strip().count(".") == 2
