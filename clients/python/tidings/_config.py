"""The settings of a client."""

from __future__ import annotations

from dataclasses import dataclass

from ._backoff import Backoff


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """The settings of a client. Times are in seconds.

    Attributes:
        auto_apply: Whether asking for the next event marks the one before as applied. Without it the application calls
            `client.applied(event)` once it has stored what the event brought.
        window: The most entries on their way or not yet applied. From 1 to 8,192.
        catch_up_limit: The most missed entries sent for one conversation; more come as a Gap. From 1 to 10,000.
        connect_timeout: How long connecting may take, up to the server's Welcome.
        call_timeout: How long a unary operation may take, its retries included.
        close_timeout: How long closing waits for what is being written.
        apply_delay: How long applied positions are gathered before they are stored and acknowledged.
        backoff_base: The longest wait before the second attempt to connect or to send; it doubles with each attempt.
        backoff_cap: The longest wait before any attempt.
        beacon_interval: How often the server is taken to send beacons until it has told.
        max_queued_messages: The most messages in the outbox; more are refused.
        max_queued_events: The most events that wait for an application that doesn't ask for them. Beyond it the oldest
            local events (echoes, receipts, states) are dropped; entries never are, since the window bounds them.
        tls: True for TLS, False for plain text, None for plain text to this machine and TLS to all others.
        root_certificates: PEM certificates to trust with TLS, or None for the well-known ones.
        keepalive: How often the connection is pinged at the least.
        client_name: A name and version for the server's logs, at most 128 bytes.
    """

    auto_apply: bool = True
    window: int = 1024
    catch_up_limit: int = 10_000
    connect_timeout: float = 10.0
    call_timeout: float = 30.0
    close_timeout: float = 2.0
    apply_delay: float = 0.1
    backoff_base: float = 0.5
    backoff_cap: float = 30.0
    beacon_interval: float = 30.0
    max_queued_messages: int = 100_000
    max_queued_events: int = 50_000
    tls: bool | None = None
    root_certificates: bytes | None = None
    keepalive: float = 20.0
    client_name: str = "tidings-python"

    def __post_init__(self) -> None:
        if not 1 <= self.window <= 8192:
            raise ValueError("window must be from 1 to 8192")
        if not 1 <= self.catch_up_limit <= 10_000:
            raise ValueError("catch_up_limit must be from 1 to 10000")
        if len(self.client_name.encode()) > 128:
            raise ValueError("client_name must be at most 128 bytes of UTF-8")
        for name in ("connect_timeout", "call_timeout", "backoff_base", "backoff_cap"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive")
        for name in ("close_timeout", "apply_delay", "max_queued_messages", "max_queued_events"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")

    @property
    def backoff(self) -> Backoff:
        """The waiting times of repeated attempts."""
        return Backoff(self.backoff_base, self.backoff_cap)
