"""Servers of Redis for developers: started and stopped by a command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tools.stack.redis import HOST, free_port


def tool(*arguments: str) -> str:
    command = [sys.executable, "-m", "tools.stack.redis", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def test_started_and_stopped_by_a_command(tmp_path: Path) -> None:
    port = free_port()
    assert str(port) in tool("start", "--dir", str(tmp_path), "--port", str(port))
    with redis.Redis(host=HOST, port=port, protocol=3) as client:
        assert client.ping()
    tool("stop", "--dir", str(tmp_path))
    with (
        redis.Redis(host=HOST, port=port, protocol=3) as client,
        pytest.raises(redis.exceptions.ConnectionError),
    ):
        client.ping()
    assert not (tmp_path / "pid").exists()
    tool("stop", "--dir", str(tmp_path))
