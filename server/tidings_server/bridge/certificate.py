"""The certificate of the HTTP port, read again when its files change: certificates are renewed while servers run."""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)


class ServerCertificate:
    """A certificate with its private key, both PEM. Raises OSError when a file can't be read or used."""

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        self._cert_file = cert_file
        self._key_file = key_file
        self._seen = self._stamps()
        self._shown = self._read()

    def context(self) -> ssl.SSLContext:
        """What a server shows to whoever connects. Clients need no certificate."""
        context = self._read()
        context.sni_callback = self._show
        return context

    def _show(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:  # noqa: ARG002
        """Asked at each connection, before anything is shown."""
        try:
            stamps = self._stamps()
            if stamps != self._seen:
                self._shown = self._read()
                self._seen = stamps
                log.info("certificate_renewed")
        except OSError as problem:
            log.warning("certificate_not_read", cause=str(problem))
        connection.context = self._shown

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self._cert_file, self._key_file)
        return context

    def _stamps(self) -> tuple[int, int]:
        return self._cert_file.stat().st_mtime_ns, self._key_file.stat().st_mtime_ns
