"""Where public keys come from: a file that is read again when it changes, or a URL.

The newest usable set is kept when a later one can't be had.
"""

from __future__ import annotations

import asyncio
import http.client
import urllib.error
import urllib.request
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import structlog

from tidings_server.auth.keys import MAX_JWKS_BYTES, KeySet, parse_jwks
from tidings_server.auth.policy import KeysUnusable

FETCH_TIMEOUT_S = 5.0
MIN_INTERVAL_MS = 10_000
"""Unknown key ids cause at most one fetch in this time, however many there are."""
MAX_AGE_MS = 600_000
"""After this time keys are fetched again, so that one taken out of the set loses its trust."""
_FILE_INTERVAL_MS = 1_000
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_log = structlog.get_logger("tidings.auth")


class KeySource(Protocol):
    """Gives public keys."""

    retry_helps: bool
    """Whether a key that is unknown now may be known in a while, without anybody's doing."""

    def current(self, now_ms: int) -> KeySet:
        """The keys at hand, without waiting. Other keys are another object."""
        ...

    def may_refresh(self, now_ms: int, *, missing: bool) -> bool:
        """Whether to `refresh`: keys are old, or one is `missing` and was not just looked for."""
        ...

    async def refresh(self, now_ms: int) -> bool:
        """Gets the keys anew, once however many ask; whether that went well. Does not raise."""
        ...


class JwksFile:
    """A JWK set in a file, looked at once a second, and when a key is missing."""

    retry_helps = False

    def __init__(self, path: Path) -> None:
        """Reads the file. Raises KeysUnusable."""
        self._path = path
        self._looked_ms = 0
        self._mark: tuple[int, int, int] | None = None
        self._keys = KeySet()
        self._read(self._look())

    def current(self, now_ms: int) -> KeySet:
        """The keys of the file, or the last usable ones."""
        if not 0 <= now_ms - self._looked_ms < _FILE_INTERVAL_MS:
            self._looked_ms = now_ms
            self._try_read()
        return self._keys

    def may_refresh(self, now_ms: int, *, missing: bool) -> bool:  # noqa: ARG002
        """Whether a key is missing and the file has changed."""
        try:
            return missing and self._look() != self._mark
        except KeysUnusable:
            return False

    async def refresh(self, now_ms: int) -> bool:  # noqa: ARG002
        """Reads the file."""
        return self._try_read()

    def _try_read(self) -> bool:
        try:
            mark = self._look()
            if mark != self._mark:
                self._read(mark)
        except KeysUnusable as problem:
            _log.error("jwks_file_unusable", path=str(self._path), why=str(problem))
            return False
        return True

    def _look(self) -> tuple[int, int, int]:
        try:
            stat = self._path.stat()
        except OSError as problem:
            raise KeysUnusable(f"it can't be read: {problem.strerror}") from None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _read(self, mark: tuple[int, int, int]) -> None:
        # Noted first: a bad file is complained of once, not every second.
        self._mark = mark
        try:
            with self._path.open("rb") as file:
                raw = file.read(MAX_JWKS_BYTES + 1)
        except OSError as problem:
            raise KeysUnusable(f"it can't be read: {problem.strerror}") from None
        keys = _parse(raw)
        if keys.keys != self._keys.keys:
            self._keys = keys
            _log.info("jwks_read", path=str(self._path), keys=len(keys.keys))


class JwksUrl:
    """A JWK set behind a URL, fetched in a worker thread."""

    retry_helps = True

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys = KeySet()
        self._tried_ms: int | None = None
        self._fetched_ms: int | None = None
        self._fetch: asyncio.Task[bool] | None = None

    def current(self, now_ms: int) -> KeySet:  # noqa: ARG002
        """The keys of the last good fetch."""
        return self._keys

    def may_refresh(self, now_ms: int, *, missing: bool) -> bool:
        """Whether a fetch is due, or under way for those who miss a key."""
        if self._fetch is not None:
            return missing
        stale = self._fetched_ms is None or not 0 <= now_ms - self._fetched_ms < MAX_AGE_MS
        waited = self._tried_ms is None or not 0 <= now_ms - self._tried_ms < MIN_INTERVAL_MS
        return waited and (missing or stale)

    async def refresh(self, now_ms: int) -> bool:
        """Fetches, or awaits the fetch under way."""
        if self._fetch is None:
            self._tried_ms = now_ms
            self._fetch = asyncio.create_task(self._refresh(now_ms))
        # Whoever began the fetch may give up without taking it from the others.
        return await asyncio.shield(self._fetch)

    async def _refresh(self, now_ms: int) -> bool:
        try:
            async with asyncio.timeout(3 * FETCH_TIMEOUT_S):
                keys = await asyncio.to_thread(fetch_jwks, self._url)
        except (KeysUnusable, TimeoutError) as problem:
            why = str(problem) or "it takes too long"
            _log.error("jwks_url_unusable", why=why, kept=len(self._keys.keys))
            return False
        finally:
            self._fetch = None
        self._fetched_ms = now_ms
        if keys.keys != self._keys.keys:
            self._keys = keys
            _log.info("jwks_read", keys=len(keys.keys))
        return True


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows only where the first request might have gone."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: object,
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        _check(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def fetch_jwks(url: str) -> KeySet:
    """The keys behind a URL. Blocks, at most a few times `FETCH_TIMEOUT_S`. Raises KeysUnusable."""
    _check(url)
    handlers: list[urllib.request.BaseHandler] = [_SafeRedirects()]
    if urlsplit(url).hostname in _LOOPBACK:
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310
    try:
        with opener.open(request, timeout=FETCH_TIMEOUT_S) as response:
            raw = response.read(MAX_JWKS_BYTES + 1)
    except urllib.error.HTTPError as problem:
        problem.close()
        raise KeysUnusable(f"the answer is HTTP {problem.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as problem:
        raise KeysUnusable(f"it can't be reached: {type(problem).__name__}") from None
    return _parse(raw)


def _parse(raw: bytes) -> KeySet:
    if len(raw) > MAX_JWKS_BYTES:
        raise KeysUnusable("it is too large")
    return parse_jwks(raw)


def _check(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise KeysUnusable("it is neither https nor on this machine")
