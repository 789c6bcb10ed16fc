"""The demo: people, real conversations and ready tokens for whoever tries the server."""

from __future__ import annotations

from tidings_server.demo.host import Demo
from tidings_server.demo.secret import (
    SecretUnusable,
    dev_secret_path,
    read_dev_secret,
    with_dev_secret,
)

__all__ = ["Demo", "SecretUnusable", "dev_secret_path", "read_dev_secret", "with_dev_secret"]
