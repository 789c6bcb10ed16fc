"""The engine of grpc.aio as the server sets it up, each in a process of its own: grpc begins once a process."""

from __future__ import annotations

import os
import sys
from subprocess import run

import pytest

ECHO = """
import asyncio, socket
import uvloop
from tidings_server.rpc import engine
engine.choose_poller()
import grpc

CALLS = 40

async def echo(request, context):
    return request

async def serve():
    received = []
    taken = engine._Drained.recv
    engine._Drained.recv = lambda *a: received.append(taken(*a)) or received[-1]
    with engine.one_wake_up():
        assert socket.socketpair.__module__ == "socket"
        server = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(echo)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", {"echo": handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/s/echo")
            answers = await asyncio.gather(*(call(b"%d" % n) for n in range(CALLS)))
        await server.stop(0)
    assert answers == [b"%d" % n for n in range(CALLS)]
    assert received, "grpc.aio does not use the drained socket"
    print(len(received), len(b"".join(received)))

{loop}.run(serve())
"""


def python(code: str, **environment: str) -> str:
    done = run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_every_completion_is_taken_with_fewer_wake_ups(loop: str) -> None:
    wake_ups, completions = map(int, python(ECHO.replace("{loop}", loop)).split())
    assert 1 <= wake_ups <= completions


def test_the_poller_is_chosen_before_grpc_is_there() -> None:
    told = python(
        "import os, sys\n"
        "from tidings_server.rpc import engine\n"
        "assert 'grpc' not in sys.modules\n"
        "engine.choose_poller()\n"
        "print(os.environ['GRPC_EXPERIMENTS'])"
    )
    assert told.strip() == "-event_engine_listener"


def test_the_command_line_leaves_that_to_the_server() -> None:
    assert python("import sys, tidings_server.cli; print('grpc' in sys.modules)").strip() == "False"


def test_an_operator_has_the_last_word() -> None:
    told = python(
        "import os\n"
        "from tidings_server.rpc import engine\n"
        "engine.choose_poller()\n"
        "print(os.environ['GRPC_EXPERIMENTS'])",
        GRPC_EXPERIMENTS="pollset_alternative",
    )
    assert told.strip() == "pollset_alternative"


def test_grpc_still_knows_the_experiment() -> None:
    told = run(
        [
            sys.executable,
            "-c",
            "from tidings_server.rpc import engine; engine.choose_poller(); import grpc",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "Unknown experiment" not in told.stderr
