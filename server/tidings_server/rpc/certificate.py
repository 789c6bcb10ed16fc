"""The certificate of the API, read again when its files change: certificates are renewed while servers run."""

from __future__ import annotations

from pathlib import Path

import grpc
import structlog

log = structlog.get_logger(__name__)


class Certificate:
    """A certificate with its private key, both PEM. Raises OSError when a file can't be read."""

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        self._cert_file = cert_file
        self._key_file = key_file
        self._seen = self._stamps()
        self._first = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """What a server shows to whoever connects. Clients need no certificate."""
        # The types know nothing of None, which says that all is as before.
        return grpc.dynamic_ssl_server_credentials(self._first, self.renewed)  # type: ignore[arg-type]

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """What to show from now on; None while nothing has changed. Asked at each connection, on a thread of grpc's."""
        try:
            stamps = self._stamps()
            if stamps == self._seen:
                return None
            found = self._read()
        except OSError as problem:
            log.warning("certificate_not_read", cause=str(problem))
            return None
        self._seen = stamps
        log.info("certificate_renewed")
        return found

    def _read(self) -> grpc.ServerCertificateConfiguration:
        pair = (self._key_file.read_bytes(), self._cert_file.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair])

    def _stamps(self) -> tuple[int, int]:
        return self._cert_file.stat().st_mtime_ns, self._key_file.stat().st_mtime_ns
