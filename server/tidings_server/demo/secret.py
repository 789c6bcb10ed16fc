"""The development secret: made once beside the store, so that tokens outlive a restart of the demo."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from tidings_server.config import MIN_SECRET_BYTES, Settings


class SecretUnusable(Exception):
    """The development secret can't be read, made or trusted. The text says why."""


def dev_secret_path(settings: Settings) -> Path:
    """Where the development secret of a store is."""
    return settings.store.path.parent / "dev-secret"


def read_dev_secret(path: Path) -> str | None:
    """The development secret, or None when there is none yet.

    Raises SecretUnusable when others could have read it, or it is too short.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise SecretUnusable(f"{path} can be read by others: chmod 600 it, or delete it")
        secret = path.read_text("ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as problem:
        raise SecretUnusable(f"{path} can't be read: {problem}") from None
    if len(secret) < MIN_SECRET_BYTES:
        raise SecretUnusable(f"{path} holds less than {MIN_SECRET_BYTES} bytes: delete it")
    return secret


def with_dev_secret(settings: Settings, *, make: bool) -> Settings:
    """The settings with the development secret, unless they have a secret of their own.

    Without `make` a secret that is not there stays absent. Raises SecretUnusable.
    """
    if settings.auth.hs256_secret is not None:
        return settings
    path = dev_secret_path(settings)
    secret = read_dev_secret(path)
    if secret is None and make:
        secret = _make(path)
    if secret is None:
        return settings
    auth = settings.auth.model_copy(update={"hs256_secret": SecretStr(secret)})
    return settings.model_copy(update={"auth": auth})


def _make(path: Path) -> str | None:
    # Written whole under another name first: nobody finds half a secret, and the first one wins.
    new = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(48) + "\n")
        with contextlib.suppress(FileExistsError):
            os.link(new, path)
        new.unlink()
    except OSError as problem:
        raise SecretUnusable(f"{path} can't be made: {problem.strerror}") from None
    return read_dev_secret(path)
